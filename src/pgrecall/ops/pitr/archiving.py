"""Switching WAL archiving on, and seeing that it works."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pgrecall.config import Settings
from pgrecall.engine import EmbeddedServer
from pgrecall.engine.files import explained
from pgrecall.engine.osuser import ServerUser, user_name
from pgrecall.errors import BackupError, InvalidInput, OperationRefused
from pgrecall.ops import embedded
from pgrecall.ops.pitr.place import Place, place_of
from pgrecall.ops.pitr.source import Session, Source, find_source, session
from pgrecall.targets import Progress

ARCHIVE_TIMEOUT = 300
"""Seconds after which a segment that is not full is archived: the most that can be lost."""

_LIBRARY = "basic_archive"
_ARRIVAL_SECONDS = 60.0
_OWN_SECONDS = 3.0
_SEGMENT = re.compile(r"[0-9A-F]{24}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupReport:
    """What setting up did.

    Attributes:
        directory: Where WAL and base backups go.
        changed: Settings of the server that were changed.
        restarted: Whether the server was restarted.
        restart_with: The command that restarts it, where that is left to its operator; until then
            nothing is archived.
        segment: The WAL segment that was archived for trial; None if a restart is needed.
        archive_timeout: Seconds of work that can be lost with the server.
    """

    directory: Path
    changed: tuple[str, ...]
    restarted: bool
    restart_with: str | None
    segment: str | None
    archive_timeout: int


def setup(
    settings: Settings,
    *,
    dsn: str | None = None,
    at: Path | None = None,
    archive_timeout: int = ARCHIVE_TIMEOUT,
    force: bool = False,
    progress: Progress,
) -> SetupReport:
    """Let a server archive its WAL into a directory of its host, and see a segment arrive.

    It can be repeated. The embedded server is restarted if that is needed; another is not.

    Args:
        settings: Where the embedded server is.
        dsn: A superuser of another server on this host; None means the embedded one.
        at: The directory; beside the embedded server's unless given.
        archive_timeout: Seconds after which a segment is archived though it is not full.
        force: Restart the embedded server even though clients are connected.
        progress: Called with a line of text before each step that takes time.

    Raises:
        OperationRefused: Something else archives already, the directory is not to be had, or a
            restart would cut clients off.
        BackupError: No segment arrives.
        PgrecallError: The server cannot be started or reached.
    """
    if dsn is not None and at is None:
        raise InvalidInput(
            "no directory is named for the archive of that server",
            hint="name one on the server's host, on another disk, with --at",
        )
    source = find_source(settings, dsn, progress=progress)
    place = place_of(settings, at)
    with session(source.dsn) as connected:
        now = connected.one("settings")
    _refuse_other_archiving(now)
    wanted = _wanted(now, place, archive_timeout)
    restart = now["archive_mode"] == "off" or now["wal_level"] == "minimal"
    if restart and source.server is not None and not force:
        _refuse_to_cut_off(source.server)
    make_place(place, source)
    with session(source.dsn) as connected:
        for name, value in wanted.items():
            connected.set_system(name, value)
        connected.run("reload")
    waits = restart and source.server is None
    if restart and source.server is not None:
        source = _restarted(settings, source.server, force=force, progress=progress)
    return SetupReport(
        directory=place.directory,
        changed=tuple(wanted),
        restarted=restart and not waits,
        restart_with=_restart_command(source) if waits else None,
        segment=None if waits else _see_arrival(source, place, progress),
        archive_timeout=archive_timeout,
    )


def _see_arrival(source: Source, place: Place, progress: Progress) -> str:
    progress("waiting for a WAL segment to arrive")
    with session(source.dsn) as connected:
        return push(connected, place)[0]


def push(connected: Session, place: Place) -> tuple[str, datetime]:
    """Let the server archive all that was written until now, and wait until it is there.

    Returns:
        The segment, and the time by the server's clock before which everything is archived.

    Raises:
        BackupError: It does not arrive.
    """
    connected.one("mark")
    row = connected.one("current_segment")
    # A commit after that time: without one PostgreSQL could not recover up to it.
    connected.one("mark")
    segment = str(row["segment"])
    connected.rows("switch")
    failed_before = connected.one("archiver")["failed_count"]
    deadline = time.monotonic() + _ARRIVAL_SECONDS
    while not _arrived(place, segment):
        archiver = connected.one("archiver")
        if archiver["failed_count"] > failed_before + 1 or time.monotonic() > deadline:
            failed = archiver["last_failed_wal"]
            raise BackupError(
                f"WAL segment {segment} did not arrive in {place.wal}"
                + (f"; the server failed to archive {failed}" if archiver["failing"] else ""),
                hint="the server's log says why (pgrecall logs); usual are a full disk, and a "
                "directory that its user may not write to",
            )
        time.sleep(0.05)
    return segment, row["now"]


def _arrived(place: Place, segment: str) -> bool:
    with explained("look into", place.wal):
        names = [entry.name for entry in place.wal.iterdir() if _SEGMENT.fullmatch(entry.name)]
    return any(name[:8] == segment[:8] and name >= segment for name in names)


def require_archiving(connected: Session, place: Place) -> None:
    """Refuse a server that does not archive into this place.

    Raises:
        OperationRefused: It does not.
    """
    now = connected.one("settings")
    place.require()
    if now["archive_mode"] == "off" or now["archive_library"] != _LIBRARY:
        raise OperationRefused(
            "the server does not archive its WAL",
            hint="switch it on with: pgrecall backup pitr setup; after it, another server than the "
            "embedded one has to be restarted",
        )
    if Path(now["archive_directory"]) != place.wal:
        raise OperationRefused(
            f"the server archives into {now['archive_directory']}, not into {place.wal}",
            hint="name the directory that it was set up with, by --at; or set it up anew",
        )


def make_place(place: Place, source: Source) -> None:
    """Make the directory, or accept our own.

    Raises:
        OperationRefused: It holds something else, or another server's archive, or the server's
            user cannot reach it.
    """
    directory, user = place.directory, source.user
    if "\n" in str(directory):
        raise InvalidInput("the directory's name holds a line break")
    with explained("create", directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = {"wal", "base", "catalog", "binaries", "pitr.lock", "lost+found"}
        foreign = sorted(entry.name for entry in directory.iterdir() if entry.name not in known)
        owner = directory.stat().st_uid
    if foreign or owner != os.geteuid():
        what = f"holds {', '.join(foreign[:3])}" if foreign else f"belongs to {user_name(owner)}"
        raise OperationRefused(
            f"{directory} {what}", hint="choose a directory that is new or empty with --at"
        )
    with explained("create", directory):
        # The server's user must pass through, and see nothing else.
        directory.chmod(0o711 if user.switch else 0o700)
        place.catalog.mkdir(mode=0o700, exist_ok=True)
    for part in (place.wal, place.base):
        _make_for(user, part)
    if blocked := user.blocking_directory(place.wal):
        raise OperationRefused(
            f"the server's user {user.name} may not enter {blocked}, on the way to {place.wal}",
            hint="choose a directory that it can reach with --at, such as /var/lib/pgrecall-pitr",
        )
    others = {b.system_identifier for b in place.backups()} - {source.system_identifier}
    if others:
        raise OperationRefused(
            f"{directory} holds the backups of another server",
            hint="choose a directory of its own for this one with --at",
        )


def _make_for(user: ServerUser, path: Path) -> None:
    with explained("create", path):
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            if path.stat().st_uid != user.uid:
                raise OperationRefused(
                    f"{path} does not belong to {user.name}, who runs the server",
                    hint=f"give it to that user, with mode 0700: chown -R {user.name} "
                    + shlex.quote(str(path)),
                ) from None
        else:
            user.own(path)


def _refuse_other_archiving(now: Mapping[str, Any]) -> None:
    library, command = now["archive_library"], now["archive_command"]
    if command or library not in ("", _LIBRARY):
        raise OperationRefused(
            f"the server archives its WAL already, by archive_"
            f"{'command' if command else 'library'} {command or library!r}",
            hint="recover to a point in time with the tool that this belongs to; or take that "
            "setting back first",
        )


def _wanted(now: Mapping[str, Any], place: Place, archive_timeout: int) -> dict[str, str]:
    """Return the settings to change, with their new values."""
    wanted = {
        "archive_library": _LIBRARY,
        "basic_archive.archive_directory": str(place.wal),
        "summarize_wal": "on",
        "archive_timeout": str(archive_timeout),
    }
    short = {"basic_archive.archive_directory": "archive_directory"}
    changed = {k: v for k, v in wanted.items() if str(now[short.get(k, k)]) != v}
    if now["archive_mode"] == "off":
        changed["archive_mode"] = "on"
    if now["wal_level"] == "minimal":
        changed["wal_level"] = "replica"
    return changed


def _restarted(
    settings: Settings, server: EmbeddedServer, *, force: bool, progress: Progress
) -> Source:
    """Restart the embedded server, and look at it anew: its port may be another."""
    if not force:
        _refuse_to_cut_off(server)
    progress("restarting the server, which switching archiving on needs")
    server.stop(force=force)
    embedded.start(settings, progress=progress)
    return find_source(settings, None, progress=progress)


def _refuse_to_cut_off(server: EmbeddedServer) -> None:
    # The server takes a moment to notice that our own connection was closed.
    deadline = time.monotonic() + _OWN_SECONDS
    while (connections := server.status().connections) != 0:
        if time.monotonic() > deadline:
            many = "clients are" if connections is None else f"{connections} client(s) are"
            raise OperationRefused(
                f"switching archiving on needs a restart of the server, and {many} connected",
                hint="close them, or cut them off with --force; `pgrecall stop` names them",
            )
        time.sleep(0.05)


def _restart_command(source: Source) -> str:
    with session(source.dsn) as connected:
        directory = str(connected.value("data_directory"))
    return f"{shlex.quote(str(source.bin_dir / 'pg_ctl'))} restart -D {shlex.quote(directory)}"
