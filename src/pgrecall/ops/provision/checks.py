"""What must be true before anything is created; all reasons to refuse are given at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from pgrecall.driver import Row, require_session
from pgrecall.errors import InvalidInput, OperationRefused
from pgrecall.migrations import HEAD, REVISIONS
from pgrecall.ops.provision.adopt import SchemaFacts, inspect
from pgrecall.ops.provision.credentials import ROLES, role_name
from pgrecall.ops.provision.session import Session, connect

DEFAULT_DIMENSIONS = 1536
MAX_DIMENSIONS = 2000
"""Most dimensions that an HNSW index on type ``vector`` takes."""
MIN_SERVER = 170000
MIN_PGVECTOR = (0, 8)
_LONGEST_NAME = 63  # bytes of an identifier
_PREFERRED_LOCALE = "en_US.UTF-8"
_BUILTIN_LOCALES = ("C.UTF-8", "C", "PG_UNICODE_FAST")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the caller asks for."""

    admin_dsn: str
    database: str
    dimensions: int | None
    grant_to: tuple[str, ...]
    locale: str | None
    reset_passwords: bool

    def role(self, purpose: str) -> str:
        """Return the PostgreSQL role for one of the five purposes."""
        return role_name(self.database, purpose)

    @property
    def roles(self) -> tuple[str, ...]:
        """The five roles of the database."""
        return tuple(self.role(purpose) for purpose in ROLES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Locale:
    """A locale that the server has, as CREATE DATABASE takes it."""

    provider: str
    name: str
    libc: str = "C"


@dataclass(slots=True, kw_only=True)
class Facts:
    """What was found on the server."""

    server: Row
    extensions: dict[str, Row]
    database: Row | None
    roles: dict[str, Row]
    schema: SchemaFacts | None = None
    locale: Locale | None = None
    dimensions: int = DEFAULT_DIMENSIONS
    problems: list[tuple[str, str]] = field(default_factory=list)

    def refuse(self, problem: str, remedy: str) -> None:
        """Note a reason for refusing, and what to do about it."""
        self.problems.append((problem, remedy))


def validate(request: Request) -> None:
    """Check what needs no server.

    Raises:
        InvalidInput: The name or the dimensions cannot be.
    """
    name = request.database
    longest = max(len(role.encode()) for role in request.roles)
    if not name or name != name.strip() or not name.isprintable():
        raise InvalidInput(
            f"{name!r} cannot be the name of the database",
            hint="use printable characters, without spaces at the ends",
        )
    if longest > _LONGEST_NAME:
        raise InvalidInput(
            f"the name {name!r} is too long: its roles would have {longest} bytes, "
            f"PostgreSQL takes {_LONGEST_NAME}",
            hint=f"shorten it by {longest - _LONGEST_NAME} bytes",
        )
    if name in {"template0", "template1", "postgres"}:
        raise InvalidInput(
            f"{name!r} belongs to the server itself", hint="choose a name such as agent_memory"
        )
    own = set(request.grant_to) & set(request.roles)
    if own:
        raise InvalidInput(
            f"{', '.join(sorted(own))} cannot be granted the owner's rights: it is a role of the "
            "database itself",
            hint="name a role of your own",
        )
    check_dimensions(request.dimensions)


def check_dimensions(dimensions: int | None) -> None:
    """Refuse dimensions that cannot be indexed.

    Raises:
        InvalidInput: Not between 1 and 2000.
    """
    if dimensions is not None and not 1 <= dimensions <= MAX_DIMENSIONS:
        raise InvalidInput(
            f"{dimensions} dimensions cannot be indexed: an HNSW index on type vector takes 1 to "
            f"{MAX_DIMENSIONS}",
            hint="choose a model, or a shortened form of its output, within that",
        )


def check_version(number: int, text: str) -> None:
    """Refuse a server that is too old.

    Args:
        number: ``server_version_num``, such as 170006.
        text: ``server_version``, for the message.

    Raises:
        OperationRefused: Older than PostgreSQL 17.
    """
    if number < MIN_SERVER:
        raise OperationRefused(
            f"the server is PostgreSQL {text}, pgrecall needs 17 or newer",
            hint="use a newer server, or the embedded one (leave out --dsn)",
        )


def look_at_server(admin: Session) -> Row:
    """Return what the server and the administrator are.

    Raises:
        OperationRefused: The server is too old, a standby, or behind a pooler.
    """
    server = admin.one("server")
    check_version(server["version_number"], server["version"])
    require_session(admin.connection, server["backend_pid"])
    if server["standby"]:
        raise OperationRefused(
            "the server is a standby and accepts no changes", hint="connect to the primary"
        )
    return server


def examine(admin: Session, server: Row, request: Request) -> Facts:
    """Look at what is there and decide whether everything can be done, changing nothing.

    Raises:
        OperationRefused: It cannot; the message names every reason.
    """
    names = [*request.roles, *request.grant_to]
    databases = admin.rows("database", {"database": request.database})
    facts = Facts(
        server=server,
        extensions={row["name"]: row for row in admin.rows("available_extensions")},
        database=databases[0] if databases else None,
        roles={row["name"]: row for row in admin.rows("roles", {"names": names})},
    )
    _check_roles(facts, request)
    if facts.database is None:
        _check_new_database(facts, request, admin)
    elif _check_existing_database(facts, request):
        with connect(request.admin_dsn, request.database) as session:
            facts.schema = inspect(session, request.role("owner"))
        _check_schema(facts, facts.schema, request)
    _check_vector(facts)
    _settle_dimensions(facts, request)
    if facts.problems:
        raise OperationRefused(
            "nothing was changed: " + "; ".join(problem for problem, _ in facts.problems),
            hint="; ".join(remedy for _, remedy in facts.problems),
        )
    return facts


def _check_roles(facts: Facts, request: Request) -> None:
    admin = facts.server["admin"]
    for name in request.grant_to:
        if name not in facts.roles:
            facts.refuse(
                f"role {name!r}, which is to be granted rights, does not exist",
                f"create it first: CREATE ROLE {_quoted(name)} LOGIN",
            )
    missing = [name for name in request.roles if name not in facts.roles]
    if missing and not facts.server["can_create_roles"]:
        facts.refuse(
            f"{admin!r} may not create roles ({', '.join(missing)})",
            f"connect as another role, or: ALTER ROLE {_quoted(admin)} CREATEROLE",
        )
    for name in request.roles:
        role = facts.roles.get(name)
        if role is not None and not role["may_administer"]:
            facts.refuse(
                f"{admin!r} may not administer the existing role {name!r}",
                f"GRANT {_quoted(name)} TO {_quoted(admin)} WITH ADMIN OPTION",
            )


def _check_new_database(facts: Facts, request: Request, admin: Session) -> None:
    if not facts.server["can_create_databases"]:
        name = facts.server["admin"]
        facts.refuse(
            f"{name!r} may not create the database {request.database!r}",
            f"connect as another role, or: ALTER ROLE {_quoted(name)} CREATEDB",
        )
    facts.locale = _choose_locale(admin, request.locale)
    if facts.locale is None:
        facts.refuse(
            f"the server has no locale {request.locale!r}",
            "install it on the server's host, or choose another, such as --locale C.UTF-8",
        )


def _choose_locale(admin: Session, wanted: str | None) -> Locale | None:
    if wanted in _BUILTIN_LOCALES:
        assert wanted is not None  # noqa: S101 - tells the type checker what "in" implies
        return Locale(provider="builtin", name=wanted, libc=_libc_beside(admin))
    if has_locale(admin, wanted or _PREFERRED_LOCALE):
        return Locale(provider="libc", name=wanted or _PREFERRED_LOCALE)
    if wanted is not None:
        return None
    return Locale(provider="builtin", name="C.UTF-8", libc=_libc_beside(admin))


def _libc_beside(admin: Session) -> str:
    """Return what character classes outside of the builtin locale follow."""
    return "C.UTF-8" if has_locale(admin, "C.UTF-8") else "C"


def has_locale(admin: Session, name: str) -> bool:
    """Ask the server whether its C library has a locale for UTF-8; leaves nothing behind."""
    try:
        with admin.connection.transaction(force_rollback=True):
            admin.run("probe_locale", locale=sql.Literal(name))
    except (psycopg.errors.InvalidParameterValue, psycopg.errors.InvalidObjectDefinition):
        return False
    except psycopg.errors.UndefinedObject:
        return False
    return True


def _check_existing_database(facts: Facts, request: Request) -> bool:
    """Check what can be seen from outside; return whether it is worth connecting."""
    found = facts.database
    if found is None:
        return False
    if found["encoding"] != "UTF8":
        facts.refuse(
            f"database {request.database!r} has encoding {found['encoding']}, not UTF8",
            "choose another name with --database, or move its content into a UTF8 database",
        )
    if found["is_template"] or not found["accepts_connections"]:
        facts.refuse(
            f"database {request.database!r} is a template or accepts no connections",
            "choose another name with --database",
        )
        return False
    if not found["may_act_as_owner"]:
        admin = facts.server["admin"]
        facts.refuse(
            f"{admin!r} may not take over database {request.database!r} of {found['owner']!r}",
            f"GRANT {_quoted(found['owner'])} TO {_quoted(admin)}, or connect as a superuser",
        )
    if found["owner"] != request.role("owner") and not facts.server["can_create_databases"]:
        admin = facts.server["admin"]
        facts.refuse(
            f"{admin!r} may not change the owner of database {request.database!r}",
            f"connect as another role, or: ALTER ROLE {_quoted(admin)} CREATEDB",
        )
    return True


def _check_schema(facts: Facts, schema: SchemaFacts, request: Request) -> None:
    where = f"database {request.database!r}"
    if schema.revision is not None and schema.revision not in REVISIONS:
        facts.refuse(
            f"{where} is at revision {schema.revision}, this version knows none after {HEAD}",
            "upgrade pgrecall here to the version that migrated the database",
        )
    if schema.in_the_way or schema.unlike:
        facts.refuse(
            f"{where} holds something else under the names of the schema: "
            + ", ".join([*schema.in_the_way, *schema.unlike]),
            "choose another database with --database, or rename what is there",
        )
    elif schema.partial:
        facts.refuse(
            f"{where} holds part of the schema; missing are {', '.join(schema.missing)}",
            "run the SQL file that made it once more, since that adds what is missing, or drop "
            "what is there",
        )
    for item in schema.not_takeable:
        facts.refuse(
            f"{facts.server['admin']!r} may not take over {item}",
            "connect as its owner's member or as a superuser",
        )


def _check_vector(facts: Facts) -> None:
    installed = facts.schema.extensions.get("vector") if facts.schema is not None else None
    available = facts.extensions.get("vector")
    if installed is not None:
        version, remedy = installed["version"], "ALTER EXTENSION vector UPDATE"
    elif available is None:
        facts.refuse(
            "the server has no pgvector (extension vector)",
            "install pgvector 0.8 or newer for this PostgreSQL, on its host",
        )
        return
    else:
        version, remedy = available["default_version"], "install pgvector 0.8 or newer"
        trusted = available["trusted"] or facts.server["managed_admin"]
        if not facts.server["superuser"] and not trusted:
            facts.refuse(
                f"{facts.server['admin']!r} may not create the extension vector",
                "let a superuser create the database and run in it: CREATE EXTENSION vector",
            )
    if parse_version(version) < MIN_PGVECTOR:
        facts.refuse(f"pgvector is {version}, pgrecall needs 0.8 or newer", remedy)


def parse_version(text: str) -> tuple[int, ...]:
    """Return the numbers of a dotted version: (0, 8, 1) for ``"0.8.1"``."""
    return tuple(int(number) for number in re.findall(r"\d+", text))


def _settle_dimensions(facts: Facts, request: Request) -> None:
    existing = facts.schema.dimensions if facts.schema is not None else {}
    found = set(existing.values())
    if not found:
        facts.dimensions = request.dimensions or DEFAULT_DIMENSIONS
        return
    if len(found) > 1 or min(found) < 1:
        facts.refuse(
            "the embeddings of the existing tables have no common dimension: "
            + ", ".join(
                f"{table} {size if size > 0 else 'any'}" for table, size in sorted(existing.items())
            ),
            "give both columns the same: ALTER TABLE ... ALTER COLUMN embedding TYPE vector(N)",
        )
        return
    facts.dimensions = found.pop()
    if request.dimensions not in (None, facts.dimensions):
        facts.refuse(
            f"the embeddings have {facts.dimensions} dimensions, not {request.dimensions}",
            f"leave out --dimensions or give {facts.dimensions}; another model's vectors need "
            "a database of their own: export the episodes and import them there",
        )


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string(None)


def as_request(
    admin_dsn: str,
    *,
    database: str,
    dimensions: int | None,
    grant_to: Sequence[str],
    locale: str | None,
    reset_passwords: bool,
) -> Request:
    """Put the caller's wishes together and check what needs no server."""
    request = Request(
        admin_dsn=admin_dsn,
        database=database,
        dimensions=dimensions,
        grant_to=tuple(dict.fromkeys(grant_to)),
        locale=locale,
        reset_passwords=reset_passwords,
    )
    validate(request)
    return request
