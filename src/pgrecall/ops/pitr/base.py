"""Base backups: whole, or what changed since the last; each is checked before it counts."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from psycopg.conninfo import make_conninfo

from pgrecall.config import Settings
from pgrecall.engine.files import explained
from pgrecall.engine.osuser import ServerUser
from pgrecall.errors import BackupDamaged, BackupError, PgrecallError
from pgrecall.ops.backup.create import record_run
from pgrecall.ops.pace import Pace
from pgrecall.ops.pitr.archiving import push, require_archiving
from pgrecall.ops.pitr.place import Base, Kind, Place, delete, place_of, said
from pgrecall.ops.pitr.source import Session, Source, find_source, session
from pgrecall.ops.pitr.wal import lsn_number
from pgrecall.targets import Progress

TASK = "base_backup"
_LEFT_OUT = {
    "password", "sslpassword", "passfile", "service", "options", "application_name", "dbname",
    "client_encoding",
}  # fmt: skip
_POLL_SECONDS = 0.2
_DAMAGE = re.compile(r"^pg_verifybackup: error: (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseReport:
    """A base backup that was made.

    Attributes:
        backup: The backup.
        note: Why it is a full one although none was asked for; None otherwise.
        duration_seconds: How long it took, its check included.
        recorded: Whether the run was recorded in the memory's database.
    """

    backup: Base
    note: str | None
    duration_seconds: float
    recorded: bool


def base_backup(
    settings: Settings,
    *,
    dsn: str | None = None,
    at: Path | None = None,
    full: bool = False,
    progress: Progress,
) -> BaseReport:
    """Take a base backup beside the others: what changed since the last, or everything.

    Its files are compared with its manifest before it counts. The run is recorded in the memory.

    Args:
        settings: Where the embedded server is, and the memory's database.
        dsn: A superuser of another server on this host; None means the embedded one.
        at: The directory; beside the embedded server's unless given.
        full: Take everything, the beginning of a new chain.
        progress: Called with a line of text before each step, and how far it is.

    Raises:
        OperationRefused: The server does not archive there.
        BackupError: It failed; nothing is left of it.
        BackupDamaged: Its files are not what the server sent.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    source = find_source(settings, dsn, progress=progress)
    place = place_of(settings, at)
    try:
        with session(source.dsn) as connected:
            require_archiving(connected, place)
            with place.held():
                backup, note = _Maker(source, place, connected, progress).make(full=full)
    except PgrecallError as error:
        _record(source, started, error=error)
        raise
    return BaseReport(
        backup=backup,
        note=note,
        duration_seconds=time.monotonic() - clock,
        recorded=_record(source, started, backup=backup),
    )


class _Maker:
    """Makes one base backup."""

    def __init__(
        self, source: Source, place: Place, connected: Session, progress: Progress
    ) -> None:
        self._source = source
        self._place = place
        self._connected = connected
        self._tell = progress

    def make(self, *, full: bool) -> tuple[Base, str | None]:
        """Make, check and enter it; return it with a note on its kind."""
        line = self._connected.one("timeline")
        parent, note = (None, None) if full else self._parent(int(line["timeline"]))
        began: datetime = self._connected.one("server")["now"]
        name = self._name(began, "incremental" if parent else "full")
        try:
            self._run(name, parent)
            self._tell(f"checking {name}")
            check(self._place, self._source.user, self._source.bin_dir, name)
            # What a recovery to the next moment needs is archived before the backup counts.
            self._tell("waiting for the WAL of the backup to arrive")
            ended = push(self._connected, self._place)[1]
            backup = self._described(name, parent, began, ended, line)
            self._place.write(backup)
        except BaseException:
            delete(self._place, self._source.user, name)
            raise
        return backup, note

    def _parent(self, timeline: int) -> tuple[Base | None, str | None]:
        """Return the backup to build on, or None and why there is none."""
        backups = self._place.backups()
        if not backups:
            return None, "it is the first"
        last = backups[-1]
        if last.timeline != timeline:
            return None, f"the server was recovered: its timeline is {timeline} now"
        if last.major != self._source.major:
            return None, f"the server is PostgreSQL {self._source.major} now"
        return last, None

    def _name(self, began: datetime, kind: Kind) -> str:
        stamp = began.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        candidates = (f"{stamp}{f'-{n}' if n > 1 else ''}-{kind}" for n in count(1))
        taken = {path.name for path in self._place.base.iterdir()}
        return next(name for name in candidates if name not in taken)

    def _run(self, name: str, parent: Base | None) -> None:
        arguments: list[str | Path] = [
            self._source.bin_dir / "pg_basebackup",
            f"--pgdata={self._place.backup(name)}",
            "--format=plain",
            "--wal-method=stream",
            "--checkpoint=fast",
            "--no-password",
            "--label=pgrecall",
        ]
        if parent is not None:
            manifest = self._place.backup(parent.name) / "backup_manifest"
            arguments.append(f"--incremental={manifest}")
        self._tell(f"copying the cluster to {name}")
        with _way(self._connected, self._source.user) as (conninfo, passwords):
            done = self._watched([*arguments, f"--dbname={conninfo}"], passwords)
        if done.returncode != 0:
            words = said(done.stdout)
            raise BackupError(
                f"could not make base backup {name}: pg_basebackup: {words}", hint=_hint(words)
            )

    def _watched(self, command: Sequence[str | Path], passwords: int) -> CompletedProcess[bytes]:
        """Run pg_basebackup, telling how far it is."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            running: Future[CompletedProcess[bytes]] = pool.submit(
                self._source.user.run, command, pass_fds=[passwords]
            )
            pace: Pace | None = None
            while not running.done():
                for row in self._connected.rows("progress"):
                    if pace is None and row["total"]:
                        pace = Pace(row["total"])
                    how_far = f": {pace.at(row['done'])}" if pace else ""
                    self._tell(f"{row['phase']}{how_far}")
                time.sleep(_POLL_SECONDS)
            return running.result()

    def _described(
        self, name: str, parent: Base | None, began: datetime, ended: datetime, line: Any
    ) -> Base:
        folder = self._place.backup(name)
        with explained("read the manifest of", folder):
            manifest = json.loads((folder / "backup_manifest").read_text(encoding="utf-8"))
        ranges = [r for r in manifest["WAL-Ranges"] if r["Timeline"] == line["timeline"]]
        segment = int(line["segment_bytes"])
        with explained("look into", folder):
            size = sum(p.lstat().st_size for p in folder.rglob("*") if not p.is_dir())
        return Base(
            name=name,
            kind="full" if parent is None else "incremental",
            parent=parent.name if parent else None,
            began=began,
            ended=ended,
            bytes=size,
            timeline=int(line["timeline"]),
            segment_bytes=segment,
            start=min(lsn_number(r["Start-LSN"]) for r in ranges) // segment,
            stop=(max(lsn_number(r["End-LSN"]) for r in ranges) - 1) // segment,
            system_identifier=self._source.system_identifier,
            major=self._source.major,
            bootstrap_role=self._source.bootstrap_role,
            embedded=self._source.server is not None,
        )


def check(place: Place, user: ServerUser, bin_dir: Path, name: str) -> None:
    """Compare a base backup's files with its manifest, and read its WAL.

    Raises:
        BackupDamaged: Something differs; the message names the files.
    """
    done = user.run([bin_dir / "pg_verifybackup", "--quiet", place.backup(name)])
    if done.returncode == 0:
        return
    text = done.stdout.decode("utf-8", errors="replace")
    found = _DAMAGE.findall(text) or [said(done.stdout)]
    raise BackupDamaged(
        f"base backup {name} is damaged: {'; '.join(found[:8])}",
        hint="recover from an older chain (a time before it), and take a new full one with: "
        "pgrecall backup pitr base --full",
    )


@contextmanager
def _way(connected: Session, user: ServerUser) -> Iterator[tuple[str, int]]:
    """Give a connection string without the password, and the descriptor that holds it.

    The password stands in memory only, in a file without a name that the program inherits.
    """
    info = connected.connection.info
    parameters = {k: v for k, v in info.get_parameters().items() if k not in _LEFT_OUT}
    parameters |= {"host": info.host, "port": str(info.port), "user": info.user}
    secret = os.memfd_create("passwords", 0)
    try:
        password = info.password.replace("\\", "\\\\").replace(":", "\\:")
        os.write(secret, f"*:*:*:*:{password}\n".encode())
        os.fchmod(secret, 0o400)
        if user.switch:
            os.fchown(secret, user.uid, user.gid)
        yield make_conninfo("", **parameters, passfile=f"/proc/self/fd/{secret}"), secret
    finally:
        os.close(secret)


def _record(
    source: Source,
    started: datetime,
    *,
    backup: Base | None = None,
    error: PgrecallError | None = None,
) -> bool:
    """Record the run in the memory's database, if the server has it."""
    try:
        with session(source.dsn) as connected:
            there = {str(row["name"]) for row in connected.rows("databases")}
        if source.database not in there:
            return False
        with session(source.dsn, source.database) as connected:
            return record_run(
                connected.connection,
                TASK,
                started,
                bytes_=backup.bytes if backup else None,
                detail={"name": backup.name, "kind": backup.kind} if backup else None,
                error=error,
            )
    except PgrecallError:
        if error is None:
            raise
        return False  # the error that is being recorded is on its way to the caller


def _hint(words: str) -> str | None:
    if "summaries" in words or "incremental" in words:
        return "the server no longer knows what changed since; take a new full one with --full"
    if "No space left" in words:
        return "free some space, or delete old chains with: pgrecall backup pitr prune"
    if "no pg_hba.conf entry for replication" in words:
        return "allow the role replication connections in pg_hba.conf"
    return None
