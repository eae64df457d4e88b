"""The server whose moments are kept: the embedded one, or another on this host."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from pgrecall.config import Settings
from pgrecall.driver import Commands, translate
from pgrecall.driver.sessions import connect_session
from pgrecall.engine import EmbeddedServer, binaries
from pgrecall.engine.files import explained
from pgrecall.engine.layout import Layout
from pgrecall.engine.osuser import ServerUser, server_user, user_name
from pgrecall.errors import ConfigurationError, OperationRefused, PermissionDenied, Unavailable
from pgrecall.ops import embedded
from pgrecall.ops.local import is_local
from pgrecall.sql import load
from pgrecall.targets import Progress

QUERIES = load("pitr")
_PROGRAMS = ("pg_basebackup", "pg_combinebackup", "pg_verifybackup", "pg_archivecleanup")


class Session(Commands):
    """One connection in autocommit, with the statements of ``pitr.sql``."""

    __slots__ = ()

    def set_system(self, name: str, value: str) -> None:
        """Change a setting of the server for good."""
        self.run("set_system", name=sql.Identifier(*name.split(".")), value=sql.Literal(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The server.

    Attributes:
        dsn: Connection string of a superuser; it holds a password.
        server: The embedded server; None for another.
        user: The operating system's user that it runs as.
        bin_dir: Directory of its programs.
        database: The database of the memory, where runs are recorded.
        system_identifier: Which cluster it is.
        major: Its major version.
        bootstrap_role: The superuser that every cluster has.
    """

    dsn: str = field(repr=False)
    server: EmbeddedServer | None
    user: ServerUser
    bin_dir: Path
    database: str
    system_identifier: str
    major: int
    bootstrap_role: str


@contextmanager
def session(dsn: str, database: str | None = None) -> Iterator[Session]:
    """Connect; errors of the driver in the block become ours.

    Raises:
        PgrecallError: What ``connect_session`` raises.
        PermissionDenied: The role lacks a right.
        DatabaseError: PostgreSQL refused a statement.
    """
    with connect_session(dsn, purpose="pitr", database=database) as connection:
        try:
            yield Session(connection, QUERIES)
        except psycopg.Error as error:
            raise translate(error) from error


def find_source(settings: Settings, dsn: str | None, *, progress: Progress) -> Source:
    """Look at the server that is meant; the embedded one is started if it does not run.

    Args:
        settings: Where the embedded server is.
        dsn: Connection string of a superuser of another server; None means the embedded one.
        progress: Called with a line of text before each step that takes time.

    Raises:
        OperationRefused: There is no such server here, or it cannot be archived.
        PermissionDenied: The role is no superuser.
        PgrecallError: It cannot be started or reached.
    """
    server = None
    if dsn is None:
        server = embedded.require_embedded(settings)
        require_owner(server.data_dir)
        embedded.start(settings, progress=progress)
        dsn = server.admin_dsn()
    with session(dsn) as connected:
        seen = connected.one("server")
        _check(seen, connected.connection.info.user)
        user, bin_dir = (
            (server_user(), server.bin_dir())
            if server is not None
            else _process(connected.connection, seen)
        )
    missing = [name for name in _PROGRAMS if not (bin_dir / name).is_file()]
    if missing:
        raise ConfigurationError(
            f"{bin_dir} lacks {', '.join(missing)}",
            hint="install the client programs of the same PostgreSQL version there",
        )
    return Source(
        dsn=dsn,
        server=server,
        user=user,
        bin_dir=bin_dir,
        database=settings.database,
        system_identifier=str(seen["system_identifier"]),
        major=int(seen["major"]),
        bootstrap_role=str(seen["bootstrap_role"]),
    )


def reachable_source(settings: Settings, dsn: str | None, *, progress: Progress) -> Source | None:
    """Return the server if it runs; None where it does not, since then its archive is enough.

    Raises:
        PgrecallError: It runs, but cannot be used.
    """
    if dsn is None and not embedded.server_of(settings).status().running:
        return None
    try:
        return find_source(settings, dsn, progress=progress)
    except Unavailable:
        return None


def offline_programs(settings: Settings, copies: Path | None = None) -> Path:
    """Return the programs to use where no server can be asked.

    Args:
        settings: Where to look.
        copies: Where programs that the server's user cannot reach are copied to.
    """
    server = embedded.server_of(settings)
    if server.status().created:
        return server.bin_dir()
    found = binaries.find(settings.pg_bin)
    return binaries.copy(found, copies).bin_dir if copies is not None else found.bin_dir


def require_owner(directory: Path) -> None:
    """Refuse to touch the embedded server of another user.

    Raises:
        OperationRefused: It belongs to somebody else.
    """
    owner = Layout(directory).owner_uid()
    if owner is not None and owner != os.geteuid():
        raise OperationRefused(
            f"the embedded server in {directory} belongs to {user_name(owner)}",
            hint=f"run this as {user_name(owner)}",
        )


def _check(seen: Any, role: str) -> None:
    if not seen["superuser"]:
        raise PermissionDenied(
            f"{role} is no superuser, which archiving and base backups of a whole server need",
            hint="connect as one, such as postgres; managed servers recover to a point in time by "
            "their provider's own means",
        )
    if seen["major"] < binaries.OLDEST_MAJOR:
        raise OperationRefused(
            f"the server is PostgreSQL {seen['version']}, and incremental base backups need 17",
            hint="use pgBackRest or Barman there, or upgrade",
        )
    if seen["in_recovery"]:
        raise OperationRefused("this server is a standby", hint="connect to the primary")
    if seen["has_tablespaces"]:
        raise OperationRefused(
            "the server has tablespaces of its own, which are not supported here",
            hint="use pgBackRest or Barman there",
        )


def _process(connection: psycopg.Connection[Any], seen: Any) -> tuple[ServerUser, Path]:
    """Return the user and the programs of another server, by its process on this host."""
    pid = seen["backend_pid"]
    process = Path(f"/proc/{pid}")
    if not is_local(connection.info.host or "", pid):
        raise OperationRefused(
            f"the server at {connection.info.host}:{connection.info.port} does not run on this "
            "host, and its archive is a directory there",
            hint="run this on the server's host",
        )
    with explained("look at the process", process):
        owner = process.stat().st_uid
    if os.geteuid() not in (0, owner) or owner == 0:
        raise OperationRefused(
            f"the server runs as {user_name(owner)}, who is to own its archive",
            hint=f"run this as {user_name(owner)} or root",
        )
    with explained("look at the process", process):
        bin_dir = (process / "exe").readlink().parent
    entry = pwd.getpwuid(owner)
    user = ServerUser(entry.pw_name, owner, entry.pw_gid, switch=os.geteuid() == 0)
    return user, bin_dir
