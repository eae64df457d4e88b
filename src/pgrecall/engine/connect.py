"""What a started server tells the rest of pgrecall."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from psycopg.conninfo import make_conninfo

from pgrecall.engine.addresses import HOST
from pgrecall.engine.cluster import SUPERUSER
from pgrecall.engine.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """Where a running server is reached.

    Attributes:
        host: Always ``127.0.0.1``.
        port: TCP port; it stays the same unless another program took it while the server was down.
        socket_dir: Directory of the Unix socket, for the server's user and root only.
        data_dir: The data directory.
        version: Version of the server, such as ``"18.6"``.
        started: Whether this call started it.
    """

    host: str
    port: int
    socket_dir: Path
    data_dir: Path
    version: str
    started: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """The state of a server, running or not.

    Attributes:
        running: Whether it runs and accepts connections.
        data_dir: The data directory.
        created: Whether a cluster exists there.
        phase: ``ready``, ``starting``, ``stopping``, or ``stopped``.
        pid: Process id of its main process; None when stopped.
        port: Its TCP port; None before the first start.
        version: Version of the server last started; None before the first start.
        since: When it started; None when stopped.
        connections: Clients connected now; None when it cannot be asked.
    """

    running: bool
    data_dir: Path
    created: bool
    phase: str
    pid: int | None
    port: int | None
    version: str | None
    since: datetime | None
    connections: int | None


def admin_dsn(state: State, dbname: str = "postgres") -> str:
    """Return the administrator's connection string; it holds the password.

    Args:
        state: The server's state.
        dbname: Database to connect to.
    """
    return make_conninfo(
        host=HOST,
        port=state.port,
        user=SUPERUSER,
        password=state.admin_password,
        dbname=dbname,
        # This build has no TLS; a PGSSLMODE meant for other servers must not break the loopback.
        sslmode="disable",
    )
