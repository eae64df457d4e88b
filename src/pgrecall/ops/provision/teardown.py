"""``destroy``: drops a database of ours and its roles. Whoever calls it has asked first."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from pgrecall.config import Settings
from pgrecall.errors import OperationRefused
from pgrecall.migrations import history
from pgrecall.ops.provision import credentials
from pgrecall.ops.provision.checks import look_at_server
from pgrecall.ops.provision.credentials import ROLES, role_name, service_name
from pgrecall.ops.provision.session import Session, connect, take_lock
from pgrecall.sql import load

_POOLER = load("pooler")


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyReport:
    """What ``destroy`` took away.

    Attributes:
        database: Name of the database.
        dropped: Databases and roles that were dropped, each as ``"role agent_memory_app"``.
        forgotten: Services whose entries were removed from the configuration directory.
    """

    database: str
    dropped: tuple[str, ...]
    forgotten: tuple[str, ...]


def destroy(
    admin_dsn: str, *, database: str, settings: Settings, force: bool = False
) -> DestroyReport:
    """Drop ``database`` with all its rows, its roles, and their stored passwords.

    The role of a pooler, where there is one, loses its lookup in other databases as well.

    Args:
        admin_dsn: Connection string of an administrator, not to the database itself.
        database: Name of the database.
        settings: Where the service and password files lie.
        force: End the sessions of others first.

    Raises:
        OperationRefused: pgrecall did not provision it, it is in use, or a role of ours owns
            something elsewhere; nothing was changed.
        PermissionDenied: The administrator lacks a right.
        Unavailable: The server could not be reached.
    """
    pooler = role_name(database, "pooler")
    names = [*(role_name(database, purpose) for purpose in ROLES), pooler]
    dropped: list[str] = []
    with connect(admin_dsn) as admin:
        server = look_at_server(admin)
        take_lock(admin, database)
        exists = bool(admin.rows("database", {"database": database}))
        found = [row["name"] for row in admin.rows("roles", {"names": names})]
        served = Session(admin.connection, _POOLER).rows(
            "places", {"role": pooler, "database": database}
        )
        lookups = [row["name"] for row in served if server["superuser"] and not row["owns"]]
        _check(admin, admin_dsn, database, names, exists=exists, lookups=lookups)
        if exists:
            statement = "drop_database_force" if force else "drop_database"
            try:
                # PostgreSQL gives others five seconds to leave.
                admin.run(statement, database=sql.Identifier(database))
            except psycopg.errors.ObjectInUse as error:
                raise OperationRefused(
                    f"other sessions use {database!r}; nothing was changed",
                    hint="end them, or use --force",
                ) from error
            dropped.append(f"database {database}")
        for name in lookups:
            _drop_lookup(admin_dsn, name, pooler)
            dropped.append(f"rights of {pooler} in {name}")
        for name in names:
            if name in found:
                admin.run("drop_role", role=sql.Identifier(name))
                dropped.append(f"role {name}")
        way = credentials.carried_parameters(admin_dsn, admin.connection)
    entries = [{**way, "dbname": database, "user": name} for name in names]
    credentials.write_passwords(settings.password_file, [(entry, None) for entry in entries])
    return DestroyReport(
        database=database, dropped=tuple(dropped), forgotten=_forget(settings, entries)
    )


def _drop_lookup(admin_dsn: str, database: str, role: str) -> None:
    """Take from another database what `pooler config` made there, unless others use it as well."""
    with connect(admin_dsn, database) as provision:
        session = Session(provision.connection, _POOLER)
        with session.connection.transaction():
            session.run("drop_owned", role=sql.Identifier(role))
            state = session.one("lookup")
            if state["has_function"] and not session.value("lookup_in_use"):
                session.run("drop_lookup")
                session.run("drop_schema")


def _check(
    admin: Session,
    admin_dsn: str,
    database: str,
    names: list[str],
    *,
    exists: bool,
    lookups: list[str],
) -> None:
    if exists:
        if admin.connection.info.dbname == database:
            raise OperationRefused(
                f"the connection is to {database!r} itself, which cannot be dropped from inside",
                hint="connect to another database, such as postgres",
            )
        with connect(admin_dsn, database) as inside:
            if history.current(inside.connection) is None:
                raise OperationRefused(
                    f"{database!r} was not provisioned by pgrecall, so it is left alone",
                    hint="check the name; DROP DATABASE does it regardless",
                )
    pooler = role_name(database, "pooler")
    elsewhere = [
        row
        for row in admin.rows("held_elsewhere", {"names": names, "database": database})
        if not (row["role"] == pooler and row["place"] in lookups)
    ]
    if elsewhere:
        raise OperationRefused(
            "roles of this database hold something elsewhere: "
            + ", ".join(f"{row['role']} in {row['place']}" for row in elsewhere),
            hint="run there: REASSIGN OWNED and DROP OWNED for that role",
        )


def _forget(settings: Settings, entries: list[dict[str, str]]) -> tuple[str, ...]:
    """Remove the services that lead to the database; those of another one stay."""
    places = [[entry.get(key) for key in ("host", "port", "dbname", "user")] for entry in entries]
    ours = {service_name(purpose) for purpose in ROLES}
    leading = tuple(
        name
        for name, entry in credentials.read_services(settings.service_file).items()
        if name in ours and [entry.get(key) for key in ("host", "port", "dbname", "user")] in places
    )
    credentials.write_services(settings.service_file, {name: {} for name in leading})
    return leading
