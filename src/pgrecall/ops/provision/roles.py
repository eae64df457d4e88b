"""The five roles of a database, what they may do, and the settings they carry."""

from __future__ import annotations

from functools import partial
from typing import LiteralString

import psycopg
from psycopg import sql

from pgrecall.driver.settings import RECALL_SETTINGS
from pgrecall.ops.provision.checks import Facts, Request
from pgrecall.ops.provision.credentials import ROLES, new_password
from pgrecall.ops.provision.report import Journal
from pgrecall.ops.provision.session import Session

_SETTING_ROLES = ("owner", "app", "readonly", "monitor")
# They start their sessions with RECALL_SETTINGS; an operator's own values are kept.
_TABLES = ("agent_episodes", "agent_knowledge", "agent_working_memory", "agent_memory_metrics")
_VIEWS = ("v_episode_quality_by_project", "v_strategy_effectiveness", "v_memory_system_health")
_FUNCTIONS = (
    "public.cleanup_expired_working_memory()",
    "public.update_working_memory_timestamp()",
    "public.record_memory_operation(character varying,integer,integer,character varying)",
)
_STATE_VIEWS = tuple(
    f"pgrecall.{name}"
    for name in (
        "memory_size", "memory_state", "vector_index_state", "operations", "learning_state",
        "knowledge_state", "task_status",
    )
)  # fmt: skip
_MODELS = "pgrecall.embedding_models"
_CODES = (_MODELS, "pgrecall.episode_codes", "pgrecall.knowledge_codes")
_RECENT = "pgrecall.recent_episodes"
_RECENT_CODES = "pgrecall.recent_codes"
_SAMPLES = "pgrecall.recall_samples"
_KEYS = "pgrecall.api_keys"
_ANSWERS = "pgrecall.request_answers"
_ITEMS = "pgrecall.items"
_RECORD_RUN = (
    "pgrecall.record_run(character varying,timestamp with time zone,boolean,bigint,jsonb,"
    "timestamp with time zone)"
)
_PROBES = (
    "pgrecall.embeddings_waiting()",
    "pgrecall.record_sample(double precision,double precision)",
    "pgrecall.probe_recall(integer,integer,double precision)",
)
_PREDEFINED = {"monitor": "pg_monitor", "backup": "pg_read_all_data"}
_READ = ("SELECT",)
_WRITE = ("SELECT", "INSERT", "UPDATE", "DELETE")

Grant = tuple[str, str, str, str]
"""Kind, object, role and privilege."""


def choose_passwords(facts: Facts, request: Request, known: dict[str, str]) -> dict[str, str]:
    """Return the passwords to set, by purpose: for new roles, or for all on request.

    A new role gets the password that the file has for it already: an earlier run may have been
    stopped between writing the file and creating the role.
    """
    chosen = {}
    for purpose in ROLES:
        if request.reset_passwords:
            chosen[purpose] = new_password()
        elif request.role(purpose) not in facts.roles:
            chosen[purpose] = known.get(purpose) or new_password()
    return chosen


def create_roles(
    admin: Session, facts: Facts, request: Request, passwords: dict[str, str], journal: Journal
) -> None:
    """Create the roles, each able to log in and nothing more."""
    for purpose in ROLES:
        name = request.role(purpose)
        role, found = sql.Identifier(name), facts.roles.get(name)
        password = passwords.get(purpose)
        if found is None and password is not None:
            verifier = admin.verifier(name, password)
            journal.create(
                "role",
                name,
                partial(admin.run, "create_role", role=role, verifier=verifier),
            )
            continue
        changes = []
        if password is not None:
            changes.append("a new password")
        if found is not None and not found["can_login"]:
            changes.append("may log in")

        def act(
            role: sql.Identifier = role, name: str = name, password: str | None = password
        ) -> None:
            if password is not None:
                verifier = admin.verifier(name, password)
                admin.run("set_password", role=role, verifier=verifier)
            admin.run("allow_login", role=role)

        if changes:
            journal.change("role", name, act, ", ".join(changes))
        else:
            journal.unchanged("role", name)


def join_owner(admin: Session, facts: Facts, request: Request, journal: Journal) -> None:
    """Let an administrator who isn't superuser, and those of ``grant_to``, act as the owner."""
    members = list(request.grant_to)
    if not facts.server["superuser"]:
        members.insert(0, facts.server["admin"])
    for member in members:
        _join(admin, request.role("owner"), member, journal)


def join_predefined(admin: Session, facts: Facts, request: Request, journal: Journal) -> None:
    """Give monitor and backup the server's own roles for that, where the administrator may."""
    for purpose, predefined in _PREDEFINED.items():
        name = request.role(purpose)
        try:
            _join(admin, predefined, name, journal)
        except psycopg.errors.InsufficientPrivilege:
            journal.reduced.append(
                f"{name} is no member of {predefined}, since the administrator may not grant it; "
                f"it keeps its own narrow rights; as a superuser: GRANT {predefined} TO "
                f"{sql.Identifier(name).as_string(None)}"
            )
    backup = request.role("backup")
    if backup in facts.roles and facts.roles[backup]["bypasses_rls"]:
        journal.unchanged("attribute", backup, "BYPASSRLS")
        return
    if facts.server["can_bypass_rls"]:
        journal.change(
            "attribute",
            backup,
            partial(admin.run, "bypass_rls", role=sql.Identifier(backup)),
            "BYPASSRLS",
        )
    else:
        journal.reduced.append(
            f"{backup} has no BYPASSRLS, since only those who have it may give it; backups of "
            "tables under row-level security would lack rows; as a superuser: ALTER ROLE "
            f"{sql.Identifier(backup).as_string(None)} BYPASSRLS"
        )


def _join(admin: Session, role: str, member: str, journal: Journal) -> None:
    if admin.value("is_member", {"role": role, "member": member}):
        journal.unchanged("membership", f"{member} in {role}")
        return
    journal.create(
        "membership",
        f"{member} in {role}",
        lambda: admin.run(
            "grant_membership", role=sql.Identifier(role), member=sql.Identifier(member)
        ),
    )


def apply_grants(session: Session, request: Request, journal: Journal) -> None:
    """Grant what each role needs, and take back what our own roles have beyond that."""
    owner = request.role("owner")
    wanted = wanted_grants(request)
    kinds, objects, grantees, privileges = zip(*wanted, strict=True)
    exact = [request.role(purpose) for purpose in ROLES if purpose != "owner"]
    differences = session.rows(
        "grants",
        {
            "kinds": list(kinds),
            "objects": list(objects),
            "grantees": list(grantees),
            "privileges": list(privileges),
            "exact": exact,
            "owner": owner,
        },
    )
    for role in dict.fromkeys(grantees):
        rows = [row for row in differences if row["grantee"] == role]
        if not rows:
            journal.unchanged("grants", role)
            continue

        def act(texts: list[LiteralString] = [row["statement"] for row in rows]) -> None:  # noqa: B006
            # A member of the owner grants in its name, and so does a superuser.
            with session.connection.transaction():
                for text in texts:
                    session.run_text(text)

        detail = "; ".join(
            f"{row['verb'].lower()} {row['privileges']} on {row['kind'].lower()} {row['object']}"
            for row in rows
        )
        journal.change("grants", role, act, detail)


def wanted_grants(request: Request) -> list[Grant]:
    """Return every grant that the roles need, owner's own rights aside."""
    database = sql.Identifier(request.database).as_string(None)
    grants: list[Grant] = []

    def grant(purpose: str, kind: str, names: tuple[str, ...], rights: tuple[str, ...]) -> None:
        role = request.role(purpose)
        grants.extend((kind, name, role, right) for name in names for right in rights)

    tables = tuple(f"public.{name}" for name in _TABLES)
    views = tuple(f"public.{name}" for name in _VIEWS)
    ours = (
        "pgrecall.alembic_version", "pgrecall.task_runs", *_CODES, _RECENT, _RECENT_CODES,
        *_STATE_VIEWS,
    )  # fmt: skip
    for purpose in ("app", "readonly", "monitor", "backup"):
        grant(purpose, "SCHEMA", ("public", "pgrecall"), ("USAGE",))
    grant("app", "DATABASE", (database,), ("CONNECT", "TEMPORARY"))
    grant("app", "TABLE", tables, _WRITE)
    grant("app", "TABLE", ("public.schema_version", *views, *ours), _READ)
    grant("app", "FUNCTION", (*_FUNCTIONS, _RECORD_RUN, *_PROBES), ("EXECUTE",))
    grant("app", "TABLE", (_SAMPLES,), ("SELECT", "INSERT"))
    grant("app", "TABLE", (_KEYS,), _READ)  # only the owner makes some
    grant("app", "TABLE", (_ANSWERS, _ITEMS), _WRITE)
    grant("app", "TABLE", (_RECENT,), ("INSERT", "MAINTAIN"))
    grant("app", "TABLE", (_RECENT_CODES,), ("MAINTAIN",))  # who merges tidies up
    grant("app", "TABLES", ("public",), _READ)
    grant("app", "TABLES", ("pgrecall",), _WRITE)
    grant("app", "FUNCTIONS", ("public", "pgrecall"), ("EXECUTE",))
    for purpose in ("readonly", "backup"):
        grant(purpose, "DATABASE", (database,), ("CONNECT",))
        grant(purpose, "TABLE", (*tables, "public.schema_version", *views, *ours, _SAMPLES, _ITEMS),
              _READ)  # fmt: skip
        grant(purpose, "TABLES", ("public", "pgrecall"), _READ)
    grant("backup", "TABLE", (_KEYS, _ANSWERS), _READ)
    grant("backup", "FUNCTION", (_RECORD_RUN,), ("EXECUTE",))
    grant("monitor", "DATABASE", (database,), ("CONNECT",))
    grant("monitor", "TABLE", ("public.v_memory_system_health", _MODELS, *_STATE_VIEWS), _READ)
    grant("monitor", "FUNCTION", _PROBES, ("EXECUTE",))
    for role in request.grant_to:
        grants += _single_user(database, role, (*tables, "public.schema_version", *views))
    return grants


def _single_user(database: str, role: str, relations: tuple[str, ...]) -> list[Grant]:
    """Return what the specification grants its one user."""
    return [
        ("DATABASE", database, role, "ALL"),
        ("SCHEMA", "public", role, "ALL"),
        *(("TABLE", name, role, "ALL") for name in relations),
        *(("FUNCTION", name, role, "EXECUTE") for name in _FUNCTIONS),
        ("TABLES", "public", role, "ALL"),
        ("SEQUENCES", "public", role, "ALL"),
    ]


def apply_settings(session: Session, request: Request, journal: Journal) -> None:
    """Attach the settings to the roles, in this database only, where they carry none yet."""
    held = {(row["role"], row["name"]) for row in session.rows("role_settings")}
    schemas = {row["name"]: row["schema"] for row in session.rows("installed_extensions")}
    if "vector" in schemas and not journal.dry_run:
        session.run("load_vector", schema=sql.Identifier(schemas["vector"]))
    for purpose in _SETTING_ROLES:
        role = request.role(purpose)
        missing = {
            name: value for name, value in RECALL_SETTINGS.items() if (role, name) not in held
        }
        if not missing:
            journal.unchanged("settings", role)
            continue

        def act(role: str = role, missing: dict[str, str] = missing) -> None:
            with session.connection.transaction():
                for name, value in missing.items():
                    session.run(
                        "set_role_setting",
                        role=sql.Identifier(role),
                        database=sql.Identifier(request.database),
                        name=sql.Identifier(*name.split(".")),
                        value=sql.Literal(value),
                    )

        detail = ", ".join(f"{name}={value}" for name, value in missing.items())
        try:
            journal.change("settings", role, act, detail)
        except psycopg.errors.InsufficientPrivilege:
            journal.reduced.append(
                f"{role} carries no settings of its own ({detail}), since the administrator may "
                "not attach them; the client sets what it needs for each query"
            )
