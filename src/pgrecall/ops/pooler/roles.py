"""The pooler's role, and the one function that it may call."""

from __future__ import annotations

from functools import partial

from psycopg import sql

from pgrecall.config import Settings
from pgrecall.driver import Row
from pgrecall.errors import OperationRefused
from pgrecall.ops.pooler.request import PoolerRequest
from pgrecall.ops.provision import credentials
from pgrecall.ops.provision.report import Journal
from pgrecall.ops.provision.session import QUERIES as PROVISION
from pgrecall.ops.provision.session import Session


def check_administrator(server: Row) -> None:
    """Refuse whoever may not read the verifiers of roles.

    Raises:
        OperationRefused: The administrator is no superuser.
    """
    if not server["superuser"]:
        raise OperationRefused(
            f"nothing was changed: {server['admin']!r} is no superuser, and only a superuser can "
            "make the function that looks users up for PgBouncer (it reads pg_authid)",
            hint="let a superuser run this once; where there is none, as on managed servers, use "
            "the provider's own pooler, or connect PGRECALL_DSN straight to the server",
        )


def check_roles(admin: Session, request: PoolerRequest, users: dict[str, Row]) -> None:
    """Refuse what stands against the roles, before anything is changed.

    Raises:
        OperationRefused: The memory is not there, a role is more than it should be, or has no
            verifier to put into the files.
    """
    if request.monitor not in users:
        raise OperationRefused(
            f"nothing was changed: there is no role {request.monitor!r}, so the memory "
            f"{request.database!r} was not provisioned by pgrecall",
            hint="run pgrecall init for it first, or name it with --database",
        )
    if request.role in users and users[request.role]["privileged"]:
        raise OperationRefused(
            f"nothing was changed: the role {request.role!r} is a superuser or may replicate",
            hint="take that away from it, or drop it",
        )
    for name in request.admin_users:
        if name not in users or users[name]["privileged"] or users[name]["verifier"] is None:
            raise OperationRefused(
                f"nothing was changed: {name!r} cannot command the pooler: it must be a role with "
                "a SCRAM password that is no superuser",
                hint="name another with --admin-user, such as "
                f"{credentials.role_name(request.database, 'owner')}",
            )
    found = {row["name"]: row for row in admin.rows("databases", {"names": [*request.databases]})}
    for name in request.databases:
        if name not in found or not found[name]["accepts_connections"]:
            raise OperationRefused(
                f"nothing was changed: there is no database {name!r} that accepts connections",
                hint="check the names given with --database and --also",
            )


def provide_role(
    admin: Session,
    request: PoolerRequest,
    known: Row | None,
    settings: Settings,
    journal: Journal,
) -> str:
    """Create the role, or give it a new password on request, and return its password.

    It is kept in the password file like those of the other roles.

    Raises:
        OperationRefused: The role exists, and its password is not known here.
    """
    file = settings.password_file
    way = credentials.carried_parameters(request.admin_dsn, admin.connection)
    service = {**way, "dbname": request.database, "user": request.role}
    kept = credentials.find_password(file, service)
    if known is not None and kept is None and not request.reset_password:
        raise OperationRefused(
            f"nothing was changed: the role {request.role!r} exists, and its password is not in "
            f"{file}",
            hint="run this where it was made, or give it a new one with --reset-password: other "
            "poolers then need the new userlist.txt",
        )
    fresh = request.reset_password or kept is None
    password = credentials.new_password() if fresh else kept
    assert password is not None  # noqa: S101 - tells the type checker what the line above implies
    if fresh:
        # Written before the role gets it: one that nobody knows would be worse than one not in use.
        journal.change(
            "password",
            str(file),
            lambda: credentials.write_passwords(file, [(service, password)]),
            f"for {request.role}",
        )
    else:
        journal.unchanged("password", str(file))
    _create(admin, request.role, known, password, journal, fresh=fresh)
    return password


def _create(
    admin: Session, name: str, known: Row | None, password: str, journal: Journal, *, fresh: bool
) -> None:
    provision, role = Session(admin.connection, PROVISION), sql.Identifier(name)
    verifier = admin.verifier(name, password)
    if known is None:
        journal.create(
            "role", name, partial(provision.run, "create_role", role=role, verifier=verifier)
        )
        return
    changes = ["a new password"] if fresh else []
    if not known["can_login"]:
        changes.append("may log in")

    def act() -> None:
        if fresh:
            provision.run("set_password", role=role, verifier=verifier)
        provision.run("allow_login", role=role)

    if changes:
        journal.change("role", name, act, ", ".join(changes))
    else:
        journal.unchanged("role", name)


def let_in(session: Session, database: str, role: str, journal: Journal) -> None:
    """Let the role connect to the database of ``session``."""
    if session.value("may_connect", {"role": role}):
        journal.unchanged("access", database, f"{role} may connect")
        return
    names = {"database": sql.Identifier(database), "role": sql.Identifier(role)}
    journal.change(
        "access", database, partial(session.run, "let_in", **names), f"{role} may connect"
    )


def provide_lookup(session: Session, database: str, role: str, journal: Journal) -> None:
    """Make the function in the database of ``session``, for the role alone.

    It has a schema of its own that a superuser owns: whoever owned the schema could put a function
    of theirs in its place, and choose who comes in as whom.
    """
    target, identifier = f"{database}: pgrecall_pooler.lookup", sql.Identifier(role)
    state = session.one("lookup")
    right = (
        state["schema_is_safe"]
        and state["function_is_safe"]
        and state["body"] in session.texts["create_lookup"]
    )

    def make() -> None:
        with session.connection.transaction():
            if state["has_schema"]:
                session.run("drop_lookup")
            if state["has_schema"] and not state["schema_is_safe"]:
                session.run("drop_schema")
            if not state["schema_is_safe"]:
                session.run("create_schema")
            session.run("create_lookup")
            open_()

    def open_() -> None:
        session.run("close_lookup")
        session.run("open_schema", role=identifier)
        session.run("open_lookup", role=identifier)

    if not right:
        act = journal.change if state["has_function"] else journal.create
        act("function", target, make, f"for {role} alone")
        return
    rights = session.one("lookup_rights", {"role": role})
    if rights["open"] and not rights["open_to_all"]:
        journal.unchanged("function", target)
        return

    def mend() -> None:
        with session.connection.transaction():
            open_()

    journal.change("function", target, mend, f"for {role}")
