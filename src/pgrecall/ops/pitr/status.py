"""What can be recovered: the backups, and the times that they and the archive cover."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pgrecall.config import Settings
from pgrecall.engine.osuser import ServerUser, server_user, user_name
from pgrecall.errors import PgrecallError
from pgrecall.ops.pitr.place import Base, Place, chain, place_of
from pgrecall.ops.pitr.source import offline_programs, reachable_source, session
from pgrecall.ops.pitr.wal import last_commit, reach
from pgrecall.targets import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The times that can be recovered from one backup on.

    Attributes:
        since: The earliest.
        until: The latest: the last commit that is archived without a gap before it; None if no
            commit was archived since the backup.
        missing: The WAL segment that is missing although later ones are there; None otherwise.
    """

    since: datetime
    until: datetime | None
    missing: str | None

    def __contains__(self, time: datetime) -> bool:
        return self.until is not None and self.since <= time < self.until


@dataclass(frozen=True, slots=True, kw_only=True)
class Archiver:
    """How archiving goes, as the server sees it.

    Attributes:
        archived: Segments archived since its statistics began.
        last_segment: The last one.
        last_time: When.
        failed: Attempts that failed since its statistics began.
        failing: Whether the last attempt failed.
    """

    archived: int
    last_segment: str | None
    last_time: datetime | None
    failed: int
    failing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """What there is.

    Attributes:
        directory: Where WAL and base backups are.
        archiver: How archiving goes; None when the server does not run.
        backups: The base backups, oldest first.
        windows: The times that can be recovered, oldest first; a gap in the archive divides them.
        unfinished: Folders of backups that were interrupted; ``prune`` deletes them.
    """

    directory: Path
    archiver: Archiver | None
    backups: tuple[Base, ...]
    windows: tuple[Window, ...]
    unfinished: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What is needed to look into an archive.

    Attributes:
        place: The archive.
        user: Who its files belong to.
        bin_dir: PostgreSQL's programs.
    """

    place: Place
    user: ServerUser
    bin_dir: Path


def status(
    settings: Settings, *, dsn: str | None = None, at: Path | None = None, progress: Progress
) -> StatusReport:
    """Say what can be recovered; changes nothing.

    Args:
        settings: Where the embedded server is.
        dsn: A superuser of another server on this host; None means the embedded one.
        at: The directory; beside the embedded server's unless given.
        progress: Called with a line of text before each step that takes time.

    Raises:
        OperationRefused: The place was never set up.
        BackupDamaged: What is known of a backup cannot be read.
    """
    place = place_of(settings, at)
    place.require()
    source = reachable_source(settings, dsn, progress=progress)
    archiver = None
    if source is not None:
        with session(source.dsn) as connected:
            row = connected.one("archiver")
        archiver = Archiver(
            archived=row["archived_count"],
            last_segment=row["last_archived_wal"],
            last_time=row["last_archived_time"],
            failed=row["failed_count"],
            failing=row["failing"],
        )
    tools = (
        Tools(place=place, user=source.user, bin_dir=source.bin_dir)
        if source is not None
        else offline_tools(settings, place)
    )
    backups = place.backups()
    progress("reading how far the archive goes")
    return StatusReport(
        directory=place.directory,
        archiver=archiver,
        backups=tuple(backups),
        windows=tuple(windows(tools, backups)),
        unfinished=tuple(place.unfinished()),
    )


def offline_tools(settings: Settings, place: Place) -> Tools:
    """Return what to look into an archive with, where no server can be asked."""
    return Tools(
        place=place,
        user=archive_user(place),
        bin_dir=offline_programs(settings, place.directory / "binaries"),
    )


def archive_user(place: Place) -> ServerUser:
    """Return the user that owns the archive: the server's, whether that runs or not."""
    owner = place.wal.stat()
    ours = server_user() if os.geteuid() != 0 or owner.st_uid == 0 else None
    if ours is not None:
        return ours
    try:
        group = pwd.getpwuid(owner.st_uid).pw_gid
    except KeyError:
        group = owner.st_gid
    return ServerUser(user_name(owner.st_uid), owner.st_uid, group, switch=True)


def windows(tools: Tools, backups: list[Base]) -> list[Window]:
    """Return the times that can be recovered, those of backups without a gap between as one."""
    found: list[Window] = []
    for backup in backups:
        try:
            chain(backups, backup)
        except PgrecallError:
            continue  # nothing to recover from; recovering to such a time says what is missing
        window = window_of(tools, backup)
        before = found[-1] if found else None
        if before is not None and before.until is not None and before.until >= window.since:
            found[-1] = Window(
                since=before.since,
                until=max(before.until, window.until or before.until),
                missing=window.missing,
            )
        else:
            found.append(window)
    return found


def window_of(tools: Tools, backup: Base) -> Window:
    """Return the times that can be recovered from one backup.

    Raises:
        BackupDamaged: A segment of the archive cannot be read.
    """
    found = reach(
        tools.place,
        timeline=backup.timeline,
        segment_bytes=backup.segment_bytes,
        first=backup.stop + 1,
    )
    until = None
    if found.last is not None:
        until = last_commit(
            tools.place,
            tools.user,
            tools.bin_dir,
            timeline=backup.timeline,
            segment_bytes=backup.segment_bytes,
            first=backup.stop + 1,
            last=found.last,
        )
    return Window(since=backup.ended, until=until, missing=found.missing)
