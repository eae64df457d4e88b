"""The WAL segments of an archive: which are there, which are missing, how far in time they go."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pgrecall.engine.files import explained
from pgrecall.engine.osuser import ServerUser
from pgrecall.errors import BackupDamaged
from pgrecall.ops.pitr.place import Place, said

_SEGMENT = re.compile(r"[0-9A-F]{24}")
_TIME = re.compile(
    r"desc: (?:COMMIT|ABORT)(?:_PREPARED)?(?: \d+:)? "
    r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+) UTC"
)


def segment_name(timeline: int, number: int, segment_bytes: int) -> str:
    """Return the file name of a WAL segment.

    Args:
        timeline: Its timeline.
        number: Its number, counted from the beginning of the WAL.
        segment_bytes: Size of a segment.
    """
    per_id = 2**32 // segment_bytes
    return f"{timeline:08X}{number // per_id:08X}{number % per_id:08X}"


def segment_number(name: str, segment_bytes: int) -> int:
    """Return the number of the segment with this file name."""
    return int(name[8:16], 16) * (2**32 // segment_bytes) + int(name[16:24], 16)


def lsn_number(lsn: str) -> int:
    """Return a position in the WAL, such as ``0/3000028``, in bytes."""
    high, low = lsn.split("/")
    return int(high, 16) * 2**32 + int(low, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How far the archive goes from one segment on.

    Attributes:
        last: Number of the last segment in an unbroken row; None when not even the first is there.
        missing: File name of the first that is missing although later ones are there.
    """

    last: int | None
    missing: str | None


def reach(place: Place, *, timeline: int, segment_bytes: int, first: int) -> Reach:
    """Follow the archive from a segment on until one is missing.

    Args:
        place: The archive.
        timeline: The timeline to follow.
        segment_bytes: Size of a segment.
        first: Number of the segment to begin with.
    """
    with explained("look into", place.wal):
        names = [e.name for e in place.wal.iterdir() if _SEGMENT.fullmatch(e.name)]
    there = {
        segment_number(name, segment_bytes)
        for name in names
        if int(name[:8], 16) == timeline and segment_number(name, segment_bytes) >= first
    }
    gap = first
    while gap in there:
        gap += 1
    return Reach(
        last=gap - 1 if gap > first else None,
        missing=segment_name(timeline, gap, segment_bytes) if there and max(there) > gap else None,
    )


def last_commit(
    place: Place,
    user: ServerUser,
    bin_dir: Path,
    *,
    timeline: int,
    segment_bytes: int,
    first: int,
    last: int,
) -> datetime | None:
    """Return the time of the last commit in a row of segments, or None without one.

    PostgreSQL recovers to a time only if it finds a commit after it.

    Raises:
        BackupDamaged: A segment cannot be read.
    """
    for number in range(last, first - 1, -1):
        name = segment_name(timeline, number, segment_bytes)
        times = _TIME.findall(_dump(place, user, bin_dir, name))
        if times:
            found = max(datetime.strptime(t, "%Y-%m-%d %H:%M:%S.%f") for t in times)  # noqa: DTZ007
            return found.replace(tzinfo=UTC)
    return None


def _dump(place: Place, user: ServerUser, bin_dir: Path, name: str) -> str:
    program = bin_dir / "pg_waldump"
    # Only a time that is told as UTC is certain; the environment is not ours to choose.
    command: list[str | Path] = ["/usr/bin/env", "TZ=UTC", program, "--rmgr=Transaction"]
    done = user.run([*command, f"--path={place.wal}", name])
    text = done.stdout.decode("utf-8", errors="replace")
    if done.returncode != 0:
        raise BackupDamaged(
            f"WAL segment {name} in {place.wal} cannot be read: {said(done.stdout)}",
            hint="times up to the segment before it can be recovered; take a new full backup with: "
            "pgrecall backup pitr base --full",
        )
    return text
