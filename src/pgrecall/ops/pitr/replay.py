"""Replaying archived WAL in a combined cluster, up to a time, and making it an embedded server's.

Meanwhile the server listens on a socket only that its user and we can reach, and knows us by our
user id: nobody else gets in before it is done, and the original's password need not be known.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgrecall.engine import addresses
from pgrecall.engine.binaries import Binaries
from pgrecall.engine.cluster import SUPERUSER
from pgrecall.engine.files import explained, sync_directory, write_atomically
from pgrecall.engine.layout import Layout
from pgrecall.engine.memory import plan, this_machine
from pgrecall.engine.osuser import ServerUser, user_name
from pgrecall.engine.settings import INCLUDE, render
from pgrecall.engine.state import new_state, write_state
from pgrecall.engine.view import View
from pgrecall.errors import BackupError, Unavailable
from pgrecall.ops.pitr.place import Base, Place, said
from pgrecall.ops.pitr.source import session
from pgrecall.targets import Progress

_PORT = 5432
"""Only a name of the socket: nothing listens on TCP."""

_START_SECONDS = 600
_POLL_SECONDS = 0.1
# The original's archive is not for its copy to write to.
_NOT_TAKEN = re.compile(r"\s*(archive_\w+|basic_archive\.\w+|restore_command|recovery_\w+)\s*=")
_CONTROL = re.compile(r"^(max_\w+) setting:\s*(\d+)$", re.MULTILINE)
_GRAVE = r"FATAL|PANIC|ERROR|HINT|DETAIL|LOG:  (unrecognized|invalid|could not)"
_HBA = "local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n"


@dataclass(frozen=True, slots=True)
class Replay:
    """One recovery.

    Attributes:
        layout: The data directory that it becomes.
        view: The same as the server's user sees it.
        cluster: The combined cluster in it, not yet at its place.
        user: Who runs it.
        binaries: What runs it.
        place: The archive.
        backup: The last base backup in it.
        tell: Called with a line of text for each step.
    """

    layout: Layout
    view: View
    cluster: Path
    user: ServerUser
    binaries: Binaries
    place: Place
    backup: Base
    tell: Progress

    def run(self, time_: datetime) -> datetime | None:
        """Replay until ``time_``, give the cluster an administrator, and put it into its place.

        Returns:
            The time of the last commit that is in it; None if none was replayed.

        Raises:
            BackupError: Recovery failed; the message ends with what the server said.
        """
        self._configure(time_)
        state = new_state(addresses.choose_port())
        with self._started() as (sockets, log):
            last_commit = self._await_promotion(sockets, log)
            with session(self._dsn(sockets)) as connected:
                verifier = connected.verifier(SUPERUSER, state.admin_password)
                role = sql.Identifier(SUPERUSER)
                if not connected.value("role_exists", {"role": SUPERUSER}):
                    connected.run("create_administrator", role=role)
                connected.run("set_administrator", role=role, verifier=verifier)
                for name in _RECOVERY:
                    connected.run("reset_system", name=sql.Identifier(name))
        with explained("finish", self.layout.cluster):
            write_state(
                self.layout.state,
                dataclasses.replace(state, server_version=self.binaries.version),
            )
            self.cluster.rename(self.layout.cluster)
            sync_directory(self.layout.data_dir)
        return last_commit

    def _configure(self, time_: datetime) -> None:
        """Write the configuration of a copy: ours, without the original's archiving."""
        write_atomically(
            self.layout.settings,
            render(plan(this_machine()), self.binaries),
            0o644 if self.user.switch else 0o600,
        )
        automatic = self.cluster / "postgresql.auto.conf"
        with explained("read", automatic):
            lines = automatic.read_text(encoding="utf-8").splitlines() if automatic.exists() else []
        if not self.backup.embedded:
            # Of a server that we know nothing of, only what recovery demands is taken.
            lines = []
            needed = "".join(f"{n} = {v}\n" for n, v in self._demanded().items())
            self._write("postgresql.conf", INCLUDE + needed)
            self._write("pg_hba.conf", _HBA)
            self._write("pg_ident.conf", "")
        kept = [line for line in lines if not _NOT_TAKEN.match(line)]
        # Local time may be ambiguous, and the server's zone is another's choice.
        target = time_.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00")
        archived = shlex.quote(str(self.place.wal)).replace("%", "%%")
        recovery = dict(
            zip(
                _RECOVERY,
                (f'cp -- {archived}/%f "%p"', target, "promote", str(self.backup.timeline)),
                strict=True,
            )
        )
        kept += [f"{n} = '{v.replace(chr(39), chr(39) * 2)}'" for n, v in recovery.items()]
        self._write(automatic.name, "\n".join([*kept, ""]))
        self._write("recovery.signal", "")

    def _write(self, name: str, text: str) -> None:
        path = self.cluster / name
        write_atomically(path, text, 0o600)
        self.user.own(path)

    def _demanded(self) -> dict[str, str]:
        """Return settings that recovery refuses to run with less of."""
        done = self.user.run(
            [self.binaries.bin_dir / "pg_controldata", self._seen(self.cluster)],
            pass_fds=self.view.descriptors,
        )
        found = _CONTROL.findall(done.stdout.decode("utf-8", errors="replace"))
        # It says "xact" where the settings say "transaction".
        return {name.replace("xact", "transaction"): value for name, value in found}

    def _seen(self, path: Path) -> Path:
        return self.view.layout.data_dir / path.name

    @contextmanager
    def _started(self) -> Iterator[tuple[Path, Path]]:
        """Run the server while the block does; give its sockets' directory and its log."""
        with tempfile.TemporaryDirectory(prefix="pgr-") as folder:
            sockets = Path(folder)
            self.user.own(sockets)
            us = user_name(os.geteuid())
            with tempfile.TemporaryDirectory(prefix="pgr-") as other:
                hba, ident = self._ways_in(Path(other), us)
                log = Path(other) / "recovery.log"
                options = {
                    "port": _PORT,
                    "listen_addresses": "",
                    "unix_socket_directories": sockets,
                    "unix_socket_permissions": "0700",
                    "hba_file": hba,
                    "ident_file": ident,
                    "hot_standby": "on",
                    "archive_mode": "off",
                    "log_checkpoints": "off",
                }
                try:
                    self._start(options, log)
                    yield sockets, log
                finally:
                    self._stop()

    def _ways_in(self, folder: Path, us: str) -> tuple[Path, Path]:
        # PostgreSQL's user must be able to pass through; nothing in it is secret.
        folder.chmod(0o711)
        hba, ident = folder / "hba.conf", folder / "ident.conf"
        hba.write_text("local all all peer map=recovery\n", encoding="utf-8")
        ident.write_text(f"recovery {us} all\n", encoding="utf-8")
        for path in (hba, ident):
            path.chmod(0o644)
        return hba, ident

    def _start(self, options: dict[str, object], log: Path) -> None:
        self.tell("replaying the archived WAL")
        with log.open("wb") as stream:
            done = self.user.run(
                [
                    self.binaries.bin_dir / "pg_ctl",
                    "start",
                    "--wait",
                    "--silent",
                    f"--timeout={_START_SECONDS}",
                    f"--pgdata={self._seen(self.cluster)}",
                    "--options",
                    " ".join(shlex.quote(f"--{name}={value}") for name, value in options.items()),
                ],
                pass_fds=self.view.descriptors,
                output=stream,
            )
        if done.returncode != 0:
            raise _failed(log)

    def _stop(self) -> None:
        if not (self.cluster / "postmaster.pid").exists():
            return
        done = self.user.run(
            [
                self.binaries.bin_dir / "pg_ctl",
                "stop",
                "--wait",
                "--mode=fast",
                f"--pgdata={self._seen(self.cluster)}",
            ],
            pass_fds=self.view.descriptors,
        )
        if done.returncode != 0 and (self.cluster / "postmaster.pid").exists():
            raise BackupError(f"the recovered server did not stop: {said(done.stdout)}")

    def _dsn(self, sockets: Path) -> str:
        return make_conninfo(
            host=str(sockets), port=_PORT, user=self.backup.bootstrap_role, dbname="postgres"
        )

    def _await_promotion(self, sockets: Path, log: Path) -> datetime | None:
        while True:
            try:
                with session(self._dsn(sockets)) as connected:
                    while (row := connected.one("recovery"))["in_recovery"]:
                        self._tell_progress(row["last_commit"])
                        time.sleep(_POLL_SECONDS)
                    found: datetime | None = row["last_commit"]
                    return found
            except Unavailable:
                # It ended by itself, as it does when WAL runs out before the time is reached.
                if not (self.cluster / "postmaster.pid").exists():
                    raise _failed(log) from None
                time.sleep(_POLL_SECONDS)

    def _tell_progress(self, last_commit: datetime | None) -> None:
        if last_commit is not None:
            self.tell(f"replayed until {last_commit.astimezone().isoformat(sep=' ')}")


_RECOVERY = (
    "restore_command",
    "recovery_target_time",
    "recovery_target_action",
    "recovery_target_timeline",
)


def _failed(log: Path) -> BackupError:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    grave = [line for line in lines if re.search(_GRAVE, line)]
    words = "; ".join(line.strip() for line in (grave or lines)[-8:])
    hint = None
    if "before configured recovery target was reached" in words:
        hint = "the archive does not reach that time; see: pgrecall backup pitr status"
    return BackupError(f"recovery failed: {words or 'the server said nothing'}", hint=hint)
