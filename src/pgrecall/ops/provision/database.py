"""Creates the database, its extensions and the schema that holds what is ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgrecall.driver import Row
from pgrecall.migrations import REVISIONS
from pgrecall.ops.provision.checks import Facts, Request
from pgrecall.ops.provision.report import Journal
from pgrecall.ops.provision.session import Session


def create_database(admin: Session, facts: Facts, request: Request, journal: Journal) -> None:
    """Create the database where it doesn't exist: UTF-8, from ``template0``."""
    locale = facts.locale
    if facts.database is not None or locale is None:
        kept = "" if facts.database is None else f"locale {facts.database['locale']}"
        journal.unchanged("database", request.database, kept)
        if facts.database is not None and request.locale not in (None, facts.database["locale"]):
            journal.notes.append(
                f"the locale of {request.database!r} stays {facts.database['locale']}, not "
                f"{request.locale}: it can only be chosen for a new database"
            )
        return
    parts: dict[str, sql.Composable] = {
        "database": sql.Identifier(request.database),
        "owner": sql.Identifier(request.role("owner")),
        "locale": sql.Literal(locale.name),
    }
    if locale.provider == "builtin":
        parts["libc"] = sql.Literal(locale.libc)
    journal.create(
        "database",
        request.database,
        lambda: admin.run(f"create_database_{locale.provider}", **parts),
        f"UTF8, locale {locale.name} ({locale.provider})",
    )


def dsn_of(request: Request) -> str:
    """Return the administrator's connection string for the database itself."""
    return make_conninfo(request.admin_dsn, dbname=request.database)


def foretell(facts: Facts, request: Request, journal: Journal) -> None:
    """Note what would follow in a database that a dry run leaves uncreated."""

    def nothing() -> None:
        raise AssertionError("a dry run carries nothing out")

    _create_extensions({}, facts, journal, lambda _: nothing())
    journal.create("schema", "pgrecall", nothing)
    for revision in REVISIONS:
        detail = f"{facts.dimensions} dimensions" if revision == REVISIONS[0] else ""
        journal.create("revision", revision, nothing, detail)
    for role in (*request.roles[1:], *request.grant_to):
        journal.change("grants", role, nothing)


def close_to_public(session: Session, facts: Facts, request: Request, journal: Journal) -> None:
    """Let only those in who were granted it, in a database that nobody uses yet.

    Others may rely on an older database being open to everyone; there it stays so.
    """
    if not session.value("public_may_connect"):
        journal.unchanged("access", "PUBLIC", "may not connect")
    elif facts.database is None or (
        facts.schema is not None and facts.schema.empty and facts.database["default_privileges"]
    ):
        journal.change(
            "access",
            "PUBLIC",
            lambda: session.run("close_database", database=sql.Identifier(request.database)),
            "may no longer connect",
        )
    else:
        journal.unchanged("access", "PUBLIC", "may connect, as before")
        journal.notes.append(
            f"every role of the server may connect to {request.database!r}, as before; to end "
            f"that: REVOKE ALL ON DATABASE "
            f"{sql.Identifier(request.database).as_string(None)} FROM PUBLIC"
        )


def create_extensions(session: Session, facts: Facts, journal: Journal) -> None:
    """Create the extensions: vector is needed, the others come where the server has them."""
    installed = {row["name"]: row for row in session.rows("installed_extensions")}

    def create(name: str) -> None:
        session.run("create_extension", extension=sql.Identifier(name))

    _create_extensions(installed, facts, journal, create)


def _create_extensions(
    installed: dict[str, Row], facts: Facts, journal: Journal, create: Callable[[str], None]
) -> None:
    for name in ("vector", "pg_trgm", "uuid-ossp"):
        available = facts.extensions.get(name)
        if name in installed:
            row = installed[name]
            journal.unchanged("extension", name, f"{row['version']} in schema {row['schema']}")
        elif available is None:
            journal.reduced.append(
                f"extension {name} is left out, since this server doesn't have it; nothing in "
                "the schema uses it; PostgreSQL's contrib package brings it"
            )
        elif name != "vector" and not available["trusted"] and not facts.server["superuser"]:
            journal.reduced.append(
                f"extension {name} is left out, since only a superuser may create it; nothing "
                f'in the schema uses it; to have it: CREATE EXTENSION "{name}"'
            )
        else:
            version = str(available["default_version"])
            journal.create("extension", name, partial(create, name), version)


def create_schema(session: Session, owner: str, journal: Journal) -> None:
    """Create the schema ``pgrecall``, owned by the owner role, who may also create in public."""
    # Usually the database's owner owns "public"; databases from before PostgreSQL 15 differ.
    if not session.value("may_create_in_public", {"owner": owner}):
        journal.change(
            "schema",
            "public",
            lambda: session.run("open_public", owner=sql.Identifier(owner)),
            f"{owner} may create in it",
        )
    if session.value("schema_exists"):
        journal.unchanged("schema", "pgrecall")
    else:
        journal.create(
            "schema",
            "pgrecall",
            lambda: session.run("create_schema", owner=sql.Identifier(owner)),
        )


def widen_search_path(session: Session, request: Request, journal: Journal) -> None:
    """Make the vector type visible to every session where it lies in a schema of its own."""
    schemas = {row["name"]: row["schema"] for row in session.rows("installed_extensions")}
    schema = schemas.get("vector", "public")
    if schema in {"public", "pg_catalog"}:
        return
    if session.value("database_search_path"):
        journal.unchanged("search_path", request.database)
        return
    journal.change(
        "search_path",
        request.database,
        lambda: session.run(
            "set_database_search_path",
            database=sql.Identifier(request.database),
            schema=sql.Identifier(schema),
        ),
        f"schema {schema} added, where extension vector lies",
    )
