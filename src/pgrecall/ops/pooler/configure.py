"""``pooler config``: the order of the steps."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pgrecall.config import Settings
from pgrecall.driver import Row
from pgrecall.ops.pooler import files, roles
from pgrecall.ops.pooler.place import (
    Place,
    check_reachable,
    check_same_server,
    place_of,
    tls_settings,
)
from pgrecall.ops.pooler.rendering import render_configuration, render_users
from pgrecall.ops.pooler.request import PoolerRequest
from pgrecall.ops.pooler.version import (
    AUTH_DBNAME,
    OLDEST,
    PREPARED_STATEMENTS,
    Version,
    as_text,
    find_version,
)
from pgrecall.ops.provision.checks import look_at_server
from pgrecall.ops.provision.credentials import role_name
from pgrecall.ops.provision.report import Journal, Progress, Step
from pgrecall.ops.provision.session import Session, connect, take_lock
from pgrecall.sql import load

_QUERIES = load("pooler")
_LOOPBACK = "127.0.0.1"
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - as specified; loopback where the server is local
_PREPARED_STATEMENTS = "200"
_OPEN, _SECRET = 0o644, 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolerReport:
    """What ``pooler config`` did, and what comes next.

    Attributes:
        database: The memory's database.
        role: The pooler's role.
        pgbouncer_version: What the files are written for; None when it is not known, and they fit
            all versions from 1.18 on.
        configuration: ``pgbouncer.ini``, without a secret.
        users: ``userlist.txt``, a secret.
        steps: Everything looked at, in order.
        notes: What deserves a look, each with its remedy.
        start: The command that starts the pooler.
        dsn: ``PGRECALL_DSN`` for clients, without the password; ``POOLER_HOST`` stands for the
            machine of a pooler that others reach.
    """

    database: str
    role: str
    pgbouncer_version: str | None
    configuration: Path
    users: Path
    steps: tuple[Step, ...]
    notes: tuple[str, ...]
    start: str
    dsn: str

    @property
    def changed(self) -> bool:
        """Whether anything was changed."""
        return any(step.state != "unchanged" for step in self.steps)


def configure(
    request: PoolerRequest, *, settings: Settings, progress: Progress | None = None
) -> PoolerReport:
    """Make the pooler's role and lookup on the server, and write PgBouncer's two files.

    It can be repeated: what is there already is left as it is.

    Args:
        request: What the pooler is to be like.
        settings: Where the password file lies.
        progress: Called with a line for each step.

    Raises:
        InvalidInput: A value cannot be.
        OperationRefused: Something stands against it. Nothing was changed, unless the message says
            that the files alone were not written.
        Unavailable: The server could not be reached.
    """
    version = find_version(request.pgbouncer_version)
    directory = request.directory.expanduser().absolute()
    configuration, users_file = directory / "pgbouncer.ini", directory / "userlist.txt"
    for path in (configuration, users_file):
        files.check_ours(path)
    journal = Journal(dry_run=False, progress=progress)
    with connect(request.admin_dsn) as provision:
        server = look_at_server(provision)
        roles.check_administrator(server)
        admin = Session(provision.connection, _QUERIES)
        names = [request.role, request.monitor, *request.admin_users]
        found = {row["name"]: row for row in admin.rows("verifiers", {"names": names})}
        roles.check_roles(admin, request, found)
        place = place_of(admin, request)
        tls, lost = tls_settings(place, request)
        if not request.unchecked:
            check_reachable(place)
        take_lock(provision, request.database)
        password = roles.provide_role(admin, request, found.get(request.role), settings, journal)
        _provide_databases(request, place, password, version, journal)
        room = admin.value("room")
    values = _values(request, place, tls, version, found, users_file)
    files.write(
        configuration,
        render_configuration(request.databases, place, values),
        _OPEN,
        request.owner,
        journal,
    )
    users = _users(request, password, found)
    files.write(users_file, render_users(users), _SECRET, request.owner, journal)
    journal.notes += _notes(request, version, lost, found, room)
    return PoolerReport(
        database=request.database,
        role=request.role,
        pgbouncer_version=None if version is None else as_text(version),
        configuration=configuration,
        users=users_file,
        steps=tuple(journal.steps),
        notes=tuple(journal.notes),
        start=_start(configuration, request.owner),
        dsn=_client_dsn(request, values),
    )


def _provide_databases(
    request: PoolerRequest,
    place: Place,
    password: str,
    version: Version | None,
    journal: Journal,
) -> None:
    # A pooler that can look all users up in the memory's database leaves the others untouched.
    names = (request.database,) if _has(version, AUTH_DBNAME) else request.databases
    for name in names:
        with connect(request.admin_dsn, name) as provision:
            session = Session(provision.connection, _QUERIES)
            session.run("lock_timeout")
            roles.let_in(session, name, request.role, journal)
            roles.provide_lookup(session, name, request.role, journal)
            if not request.unchecked:
                identity = session.one("identity")
                check_same_server(place, name, request.role, password, identity)


def _values(
    request: PoolerRequest,
    place: Place,
    tls: dict[str, str],
    version: Version | None,
    found: dict[str, Row],
    users_file: Path,
) -> dict[str, str]:
    """Return everything of section ``[pgbouncer]``."""
    values = {
        "listen_addr": request.listen_addr or (_LOOPBACK if place.is_local else _EVERYWHERE),
        "listen_port": str(request.listen_port),
        # No socket, no log and no pid file: it then needs no place to write to.
        "unix_socket_dir": "",
        "pool_mode": "transaction",
        "max_client_conn": str(request.max_client_conn),
        "default_pool_size": str(request.default_pool_size),
        "auth_type": "scram-sha-256",
        "auth_file": str(users_file),
        "auth_user": request.role,
        "auth_query": _one_line(_QUERIES["auth_query"]),
    }
    if _has(version, AUTH_DBNAME):
        values["auth_dbname"] = request.database
    if _has(version, PREPARED_STATEMENTS):
        values["max_prepared_statements"] = _PREPARED_STATEMENTS
    if found[request.monitor]["verifier"] is not None:
        values["stats_users"] = request.monitor
    if request.admin_users:
        values["admin_users"] = ", ".join(request.admin_users)
    values |= tls
    # Drivers send it at connecting, exporters among them.
    values["ignore_startup_parameters"] = "extra_float_digits"
    return {**values, **request.settings}


def _one_line(statement: str) -> str:
    lines = (line for line in statement.splitlines() if not line.startswith("--"))
    return " ".join(" ".join(lines).split())


def _users(request: PoolerRequest, password: str, found: dict[str, Row]) -> dict[str, str]:
    """Return the users that PgBouncer must know by itself: its own role and those of its console.

    It cannot log in with a verifier of its own role; of the others the verifier is enough.
    """
    users = {request.role: password}
    for name in (request.monitor, *request.admin_users):
        if found[name]["verifier"] is not None:
            users[name] = found[name]["verifier"]
    return users


def _notes(
    request: PoolerRequest,
    version: Version | None,
    lost: list[str],
    found: dict[str, Row],
    room: int,
) -> list[str]:
    notes = []
    if version is None:
        notes.append(
            "PgBouncer was not found here, so the files use only what every version from "
            f"{as_text(OLDEST)} on knows; for a newer one name it with --pgbouncer-version"
        )
    elif version < OLDEST:
        notes.append(
            f"PgBouncer {as_text(version)} is older than {as_text(OLDEST)}, the oldest that these "
            "files were tested with; take a newer one"
        )
    if request.also and not _has(version, AUTH_DBNAME):
        notes.append(
            f"before {as_text(AUTH_DBNAME)}, PgBouncer looks users up in the database that they "
            f"want, so schema pgrecall_pooler was made in {', '.join(request.also)} too"
        )
    if lost:
        notes.append(f"PgBouncer has no setting for {', '.join(lost)}; its own way goes without")
    if found[request.monitor]["verifier"] is None:
        notes.append(
            f"{request.monitor} has no SCRAM password, so nobody may read the pooler's statistics; "
            "run pgrecall init --reset-passwords, then this again"
        )
    most = request.default_pool_size * len(request.databases)
    if most > room:
        notes.append(
            f"one role a database alone may take {most} server connections, but the server has "
            f"{room} for roles without special rights; lower --default-pool-size, or raise "
            "max_connections"
        )
    return notes


def _has(version: Version | None, since: Version) -> bool:
    return version is not None and version >= since


def _start(configuration: Path, owner: str | None) -> str:
    words = ["pgbouncer", "-q", str(configuration)]
    if owner is not None or os.geteuid() == 0:
        # It refuses to run as root.
        words[2:2] = ["-u", owner or "postgres"]
    return shlex.join(words)


def _client_dsn(request: PoolerRequest, values: dict[str, str]) -> str:
    address = values["listen_addr"].split(",")[0].strip()
    host = "POOLER_HOST" if address in ("*", _EVERYWHERE, "::") else address
    place = f"[{host}]" if ":" in host else quote(host, safe="")
    user = quote(role_name(request.database, "app"), safe="")
    return f"postgresql://{user}@{place}:{values['listen_port']}/{quote(request.database, safe='')}"
