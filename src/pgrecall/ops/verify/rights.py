"""What each role must be allowed to do, and whether it is."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TypeAlias, cast

import psycopg
from psycopg import sql

from pgrecall.ops.checks import Seen
from pgrecall.ops.verify.cases import Subject
from pgrecall.ops.verify.catalog import TABLES
from pgrecall.ops.verify.session import QUERIES, describe

Rights: TypeAlias = dict[str, dict[str, list[str]]]
"""Kind of object, then object, then privileges; the kind ``default`` is for future objects."""

_KEYS = {
    "agent_episodes": "episode_id",
    "agent_knowledge": "knowledge_id",
    "agent_working_memory": "session_id",
    "agent_memory_metrics": "metric_id",
    "schema_version": "version",
}
_TRIALS = ("select_something", "insert_nothing", "update_nothing", "delete_nothing")
_TABLE_DEFAULTS = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"]
# The specification's user is granted all on what will be created.
_SINGLE_USER_DEFAULTS = {"tables": _TABLE_DEFAULTS, "sequences": ["SELECT", "UPDATE", "USAGE"]}


@cache
def _needed() -> dict[str, Rights]:
    text = (files(__package__) / "rights.json").read_text(encoding="utf-8")
    return cast("dict[str, Rights]", json.loads(text))


def permissions(subject: Subject) -> Seen:
    """Step 2: the database is as specified, its owner can write, and each role can do its work."""
    server = subject.server
    database = str(server["database"])
    faults = []
    if server["encoding"] != "UTF8":
        faults.append(
            f"encoding of database {database} expected: UTF8, found: {server['encoding']}"
        )
    if server["in_recovery"]:
        faults.append("the server is a standby in recovery and accepts no writes")
    present = [table for table in TABLES if table in subject.catalog["tables"]]
    if len(present) < len(TABLES):
        faults.append(f"only {len(present)} of {len(TABLES)} tables are there to have rights on")
    for table in present:
        faults += _try_owner(subject, table)
    roles, missing = _missing_rights(subject, database)
    faults += missing
    if faults:
        return Seen("failed", "; ".join(faults), "run `pgrecall init` again to restore the grants")
    absent = [purpose for purpose in _needed() if purpose not in roles.values()]
    note = f"; no role for {', '.join(absent)} in this server" if absent else ""
    return Seen(
        "passed",
        f"database {database}, UTF8, owned by {server['owner']}; {server['role']} may read and "
        f"write {len(present)} tables; rights of {', '.join(sorted(roles)) or 'no other role'} "
        f"are complete{note}",
    )


def _try_owner(subject: Subject, table: str) -> list[str]:
    """Read one row, and write none, in each way there is; return what was refused."""
    faults = []
    for trial in _TRIALS:
        statement = sql.SQL(QUERIES[trial]).format(
            table=sql.Identifier(table), key=sql.Identifier(_KEYS[table])
        )
        try:
            with subject.session.attempt():
                subject.session.connection.execute(statement)
        except psycopg.Error as error:
            faults.append(f"{trial.split('_')[0]} on {table} was refused: {describe(error)}")
    return faults


def _existing(subject: Subject) -> dict[str, str]:
    """Return the roles that exist, each with what it is for."""
    names = {f"{subject.server['role_prefix']}_{purpose}": purpose for purpose in _needed()}
    rows = subject.session.rows("existing_roles", {"names": list(names)})
    return {row["name"]: names[row["name"]] for row in rows}


def _missing_rights(subject: Subject, database: str) -> tuple[dict[str, str], list[str]]:
    roles = _existing(subject)
    needed = [
        (role, kind, name, privilege)
        for role, purpose in roles.items()
        for kind, objects in _needed()[purpose].items()
        if kind != "default"
        for name, privileges in objects.items()
        for privilege in privileges
    ]
    owners = {str(subject.server["role"]), f"{subject.server['role_prefix']}_owner"}
    needed += [
        (owner, "table", f"public.{table}", privilege)
        for owner in sorted(owners)
        for table in TABLES
        for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE")
    ]
    columns = [list(column) for column in zip(*needed, strict=True)]
    rows = subject.session.rows(
        "missing_rights",
        dict(zip(("roles", "kinds", "objects", "privileges"), columns, strict=True)),
    )
    return roles, [
        f"role {row['role']} lacks {row['privilege']} on {row['kind']} {row['object'] or database}"
        for row in rows
    ]


def default_privileges(subject: Subject) -> Seen:
    """Objects that the owner will create are readable by those who need them."""
    prefix = subject.server["role_prefix"]
    wanted: set[tuple[str, str, str]] = set()
    for role, purpose in _existing(subject).items():
        for kind, privileges in _needed()[purpose].get("default", {}).items():
            wanted |= {(role, kind, privilege) for privilege in privileges}
    for row in subject.session.rows("single_users"):
        for kind, privileges in _SINGLE_USER_DEFAULTS.items():
            wanted |= {(row["name"], kind, privilege) for privilege in privileges}
    if not wanted:
        return Seen(
            "not configured",
            f"no role named {prefix}_app, _readonly or _backup exists, and no other role was "
            "made a member of the owner",
            "run `pgrecall init` to create the roles",
        )
    rows = subject.session.rows("default_privileges")
    missing = wanted - {(row["role"], row["kind"], row["privilege"]) for row in rows}
    if missing:
        return Seen(
            "failed",
            "; ".join(
                f"default privilege {privilege} on {kind} in schema public expected for {role}, "
                "found none"
                for role, kind, privilege in sorted(missing)
            ),
            "run `pgrecall init` again to restore the default privileges",
        )
    return Seen("passed", f"{len(wanted)} default privileges in schema public are as expected")
