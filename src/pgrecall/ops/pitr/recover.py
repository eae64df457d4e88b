"""Recovering a moment into a directory of its own, which then is an embedded server's."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pgrecall.config import Settings
from pgrecall.engine import EmbeddedServer, binaries
from pgrecall.engine.files import explained, remove_tree
from pgrecall.engine.layout import Layout, prepare
from pgrecall.engine.startup import SHARED_BINARIES
from pgrecall.engine.view import View, opened
from pgrecall.errors import BackupDamaged, BackupError, InvalidInput, NotFound, OperationRefused
from pgrecall.ops.pitr.archiving import push, require_archiving
from pgrecall.ops.pitr.base import check
from pgrecall.ops.pitr.place import Base, Place, chain, place_of, said
from pgrecall.ops.pitr.replay import Replay
from pgrecall.ops.pitr.source import reachable_source, session
from pgrecall.ops.pitr.status import Tools, Window, archive_user, window_of, windows
from pgrecall.targets import Progress

__all__ = ["Found", "RecoverReport", "recover"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A database that was recovered.

    Attributes:
        name: Its name.
        bytes: Its size.
        rows: Rows of its tables, the memory's first, by name.
    """

    name: str
    bytes: int
    rows: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverReport:
    """What was recovered.

    Attributes:
        directory: A data directory of an embedded server, which runs.
        time: The time that was asked for.
        last_commit: The last commit that is in it; None if there was none since the base backup.
        backups: The base backups that it was combined from.
        port: Where it listens on 127.0.0.1.
        databases: What is there.
        duration_seconds: How long it took.
    """

    directory: Path
    time: datetime
    last_commit: datetime | None
    backups: tuple[str, ...]
    port: int
    databases: tuple[Found, ...]
    duration_seconds: float


def recover(
    settings: Settings,
    *,
    time_: datetime,
    into: Path,
    dsn: str | None = None,
    at: Path | None = None,
    databases: Sequence[str] = (),
    progress: Progress,
) -> RecoverReport:
    """Make a server that holds what was committed before a moment. The original is not touched.

    If the archive does not go far enough and the original runs, it first archives what it has.

    Args:
        settings: Where the embedded server is.
        time_: The moment, with a time zone.
        into: A new or empty directory, which becomes an embedded server's.
        dsn: A superuser of another server on this host; None means the embedded one.
        at: Where its archive is; beside the embedded server's unless given.
        databases: Whose tables to count; the memory's database unless given.
        progress: Called with a line of text before each step that takes time.

    Raises:
        InvalidInput: The time is outside of what can be recovered.
        BackupDamaged: A base backup is damaged, or WAL is missing; it is named.
        OperationRefused: The directory holds something.
        BackupError: Recovery failed; as after all errors nothing is left in the directory.
    """
    started = time.monotonic()
    (place := place_of(settings, at)).require()
    layout = Layout(into.expanduser().resolve())
    _require_empty(layout.data_dir)
    with place.held():
        backups = place.backups()
        last = _newest_before(backups, time_)
        offered, user = _fitting_programs(settings, last), archive_user(place)
        prepare(layout, user)
        with _unless_finished(layout), opened(layout, user) as view:
            # The programs are copied there anyway when the server starts.
            programs = binaries.copy(offered, layout.binaries if view.direct else SHARED_BINARIES)
            tools = Tools(place=place, user=user, bin_dir=programs.bin_dir)
            progress("reading how far the archive goes")
            if time_ not in window_of(tools, last):
                _push(settings, dsn, place, progress)
                _require_covered(tools, backups, last, time_)
            parts = chain(backups, last)
            cluster = _combined(tools, parts, view, layout, progress)
            replay = Replay(layout, view, cluster, user, programs, place, last, progress)
            last_commit = replay.run(time_)
    server = EmbeddedServer(layout.data_dir, pg_bin=settings.pg_bin)
    return RecoverReport(
        directory=layout.data_dir,
        time=time_,
        last_commit=last_commit,
        backups=tuple(part.name for part in parts),
        port=server.start(progress=progress).port,
        databases=tuple(_look(server, databases or [settings.database])),
        duration_seconds=time.monotonic() - started,
    )


def _fitting_programs(settings: Settings, backup: Base) -> binaries.Binaries:
    offered = binaries.find(settings.pg_bin)
    if offered.major == backup.major:
        return offered
    raise OperationRefused(
        f"the backups are of PostgreSQL {backup.major}, and the one installed is {offered.version}",
        hint=f"point PGRECALL_PG_BIN at a PostgreSQL {backup.major} with pgvector",
    )


def _require_empty(directory: Path) -> None:
    with explained("look into", directory):
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise OperationRefused(
                f"{directory} holds something already",
                hint="name a directory that is new or empty with --into",
            )


def _push(settings: Settings, dsn: str | None, place: Place, progress: Progress) -> None:
    """Let a server that runs archive what it has, so that the last minutes can be recovered."""
    source = reachable_source(settings, dsn, progress=progress)
    if source is None:
        return
    with session(source.dsn) as connected:
        try:
            require_archiving(connected, place)
        except OperationRefused:
            return  # it archives elsewhere, or no more; what is in the archive still serves
        progress("letting the server archive what it has")
        push(connected, place)


def _newest_before(backups: list[Base], time_: datetime) -> Base:
    if not backups:
        raise NotFound("there is no base backup", hint="take one with: pgrecall backup pitr base")
    before = [backup for backup in backups if backup.ended <= time_]
    if not before:
        raise InvalidInput(
            f"{_shown(time_)} is before the first base backup, which ended at "
            f"{_shown(backups[0].ended)}",
            hint="choose a time after it; see: pgrecall backup pitr status",
        )
    return before[-1]


def _require_covered(tools: Tools, backups: list[Base], last: Base, time_: datetime) -> None:
    window = window_of(tools, last)
    if time_ in window:
        return
    if window.missing is not None:
        raise BackupDamaged(
            f"WAL segment {window.missing} is missing in {tools.place.wal}: from base backup "
            f"{last.name} on, " + _reachable(window),
            hint="put the segment back, or choose another time; a new base backup makes later "
            "times recoverable again",
        )
    covered = "; ".join(
        f"{_shown(one.since)} to {_shown(one.until)}"
        for one in windows(tools, backups)
        if one.until is not None
    )
    raise InvalidInput(
        f"{_shown(time_)} is after what is archived, {_reachable(window)}",
        hint=f"what can be recovered: {covered or 'nothing yet'}",
    )


def _reachable(window: Window) -> str:
    if window.until is None:
        return "nothing can be recovered"
    return f"what can be recovered ends before {_shown(window.until)}"


def _shown(moment: datetime) -> str:
    return moment.astimezone().isoformat(sep=" ", timespec="milliseconds")


@contextmanager
def _unless_finished(layout: Layout) -> Iterator[None]:
    """Leave nothing behind if the block fails."""
    try:
        yield
    except BaseException:
        # Without a state file it is no server of ours yet, so there is nothing to stop.
        ours = layout.created_mark.exists()
        layout.state.unlink(missing_ok=True)
        for entry in layout.own_entries():
            remove_tree(entry)
        if ours and not any(layout.data_dir.iterdir()):
            layout.data_dir.rmdir()
        raise


def _combined(
    tools: Tools, parts: Sequence[Base], view: View, layout: Layout, progress: Progress
) -> Path:
    """Check the backups of a chain, make one whole cluster of them, and return its directory."""
    for part in parts:
        progress(f"checking {part.name}")
        check(tools.place, tools.user, tools.bin_dir, part.name)
    progress(f"combining {len(parts)} base backups" if len(parts) > 1 else "copying the backup")
    target = layout.data_dir / f"cluster.{secrets.token_hex(4)}"
    with explained("create", target):
        target.mkdir(mode=0o700)
        tools.user.own(target)
    done = tools.user.run(
        [
            tools.bin_dir / "pg_combinebackup",
            f"--output={view.layout.data_dir / target.name}",
            *(tools.place.backup(part.name) for part in parts),
        ],
        pass_fds=view.descriptors,
    )
    if done.returncode != 0:
        words = said(done.stdout)
        raise BackupError(
            f"could not combine {', '.join(part.name for part in parts)}: {words}",
            hint="free some space" if "No space left" in words else None,
        )
    return target


def _look(server: EmbeddedServer, wanted: Sequence[str]) -> Iterator[Found]:
    """Say what is in the databases; rows of those that are wanted."""
    dsn = server.admin_dsn()
    with session(dsn) as connected:
        there = connected.rows("databases")
    for row in there:
        name = str(row["name"])
        rows: dict[str, int] = {}
        if name in wanted:
            with session(dsn, name) as connected:
                for table in connected.rows("tables"):
                    counted = connected.connection.execute(table["statement"]).fetchone()
                    rows[str(table["name"])] = int(counted["rows"]) if counted else 0
        yield Found(name=name, bytes=int(row["bytes"]), rows=rows)
