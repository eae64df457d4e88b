"""A standby of an embedded server: a real one, made by pg_basebackup, that streams from it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.chaos.place import PATIENCE, wait_for
from tests.pgbouncer import free_port

from pgrecall.engine import EmbeddedServer


@dataclass(frozen=True, slots=True)
class Standby:
    """A server that replays what another writes."""

    port: int
    process: subprocess.Popen[bytes]

    def at(self, dsn: str) -> str:
        """Return a connection string of the primary as one of the standby."""
        return make_conninfo(dsn, port=self.port)

    def kill(self) -> None:
        """End it like a crash."""
        self.process.kill()
        self.process.wait(PATIENCE)


@contextmanager
def standby(server: EmbeddedServer, directory: Path, *, hot: bool = True) -> Iterator[Standby]:
    """Give a standby of a server, in a directory that the server's user can enter.

    Args:
        server: The primary, which runs.
        directory: Where the standby's own directory is made, and deleted again.
        hot: Whether it answers queries.
    """
    # The cluster includes a file that lies beside it.
    data, port = directory / "standby" / "cluster", free_port()
    cluster = server.data_dir / "cluster"
    owner = cluster.stat().st_uid
    as_user: dict[str, int] = {"user": owner, "group": owner} if os.geteuid() == 0 else {}
    _let_replicate(server, cluster)
    data.mkdir(mode=0o700, parents=True)
    data.parent.chmod(0o755)
    beside = Path(shutil.copy(cluster.parent / "pgrecall.conf", data.parent))
    os.chown(beside, owner, -1)
    os.chown(data, owner, -1)
    _copy(server, data, as_user)
    with (data / "postgresql.auto.conf").open("a") as file:
        file.write(f"\nport = {port}\nhot_standby = {'on' if hot else 'off'}\n")
        file.write(f"listen_addresses = '127.0.0.1'\nunix_socket_directories = '{data}'\n")
    said = directory / "standby.log"
    with said.open("wb") as log:
        process = subprocess.Popen(
            [server.bin_dir() / "postgres", "-D", data], stdout=log, stderr=log, **as_user  # type: ignore[call-overload]
        )  # fmt: skip
    try:
        at = make_conninfo(server.admin_dsn(), port=port)
        wait_for(lambda: _answers(at, hot=hot) or process.poll() is not None, "the standby")
        if process.poll() is not None:
            raise RuntimeError(f"the standby ended:\n{said.read_text()}")
        yield Standby(port, process)
    finally:
        process.send_signal(signal.SIGINT)  # does not wait for clients
        process.wait(PATIENCE)
        shutil.rmtree(data.parent)


def _copy(server: EmbeddedServer, data: Path, as_user: dict[str, int]) -> None:
    admin: dict[str, Any] = conninfo_to_dict(server.admin_dsn())
    environment = {**os.environ, "PGPASSWORD": str(admin.pop("password"))}
    admin.pop("dbname", None)
    subprocess.run(
        [server.bin_dir() / "pg_basebackup", "-D", data, "-R", "-c", "fast", "-d",
         make_conninfo("", **admin)],
        env=environment, check=True, capture_output=True, **as_user,  # type: ignore[call-overload]
    )  # fmt: skip


def _let_replicate(server: EmbeddedServer, cluster: Path) -> None:
    rules = cluster / "pg_hba.conf"
    line = "host replication all 127.0.0.1/32 scram-sha-256\n"
    if line not in rules.read_text():
        with rules.open("a") as file:
            file.write(line)
    with psycopg.connect(server.admin_dsn(), autocommit=True) as admin:
        admin.execute("SELECT pg_reload_conf()")


def _answers(dsn: str, *, hot: bool) -> bool:
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError as error:
        return not hot and "not accepting connections" in str(error)
    return hot
