"""Deleting what is not needed any more: whole chains, and the WAL before the first one kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pgrecall.config import Settings
from pgrecall.engine.files import explained
from pgrecall.errors import BackupError
from pgrecall.ops.pitr.place import Base, chains, delete, place_of, said
from pgrecall.ops.pitr.status import Tools, offline_tools
from pgrecall.ops.pitr.wal import segment_name
from pgrecall.targets import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneReport:
    """What was deleted, or would be.

    Attributes:
        deleted: Base backups.
        unfinished: Remains of interrupted ones.
        kept: Base backups that stay.
        segments: Number of WAL segments deleted.
        dry_run: Whether nothing was deleted.
    """

    deleted: tuple[str, ...]
    unfinished: tuple[str, ...]
    kept: tuple[str, ...]
    segments: int
    dry_run: bool


def prune(
    settings: Settings,
    *,
    at: Path | None = None,
    keep: int,
    dry_run: bool = False,
    progress: Progress,
) -> PruneReport:
    """Delete all chains but the newest, and the WAL that none of those needs.

    A chain is a full base backup with the incremental ones that build on it: it goes as a whole.

    Args:
        settings: Where the embedded server is.
        at: The directory; beside the embedded server's unless given.
        keep: How many chains to keep, at least 1.
        dry_run: Only say what would be deleted.
        progress: Called with a line of text before each step that takes time.

    Raises:
        OperationRefused: The place was never set up, or another process is at work there.
        BackupError: Something cannot be deleted.
    """
    place = place_of(settings, at)
    place.require()
    tools = offline_tools(settings, place)
    with place.held():
        groups = chains(place.backups())
        gone = [b for group in groups[: max(0, len(groups) - keep)] for b in group]
        kept = [b for group in groups[max(0, len(groups) - keep) :] for b in group]
        unfinished = place.unfinished()
        if not dry_run:
            # The newest first: what is left of a chain after an interruption can be recovered.
            for backup in reversed(gone):
                progress(f"deleting {backup.name}")
                place.forget(backup)
                delete(place, tools.user, backup.name)
            for name in unfinished:
                delete(place, tools.user, name)
        segments = _clean(tools, kept, dry_run=dry_run) if kept else 0
    return PruneReport(
        deleted=tuple(backup.name for backup in gone),
        unfinished=tuple(unfinished),
        kept=tuple(backup.name for backup in kept),
        segments=segments,
        dry_run=dry_run,
    )


def _clean(tools: Tools, kept: list[Base], *, dry_run: bool) -> int:
    """Delete the WAL that no kept backup needs, and return of how many files."""
    first, wal = min(kept, key=lambda backup: backup.start), tools.place.wal
    oldest = segment_name(first.timeline, first.start, first.segment_bytes)
    command: list[str | Path] = [tools.bin_dir / "pg_archivecleanup", "--clean-backup-history"]
    before = _files(wal)
    done = tools.user.run([*command, *(["--dry-run"] if dry_run else []), wal, oldest])
    if done.returncode != 0:
        raise BackupError(f"cannot clean {wal}: {said(done.stdout)}")
    # The server goes on archiving meanwhile, so this may be a few less than were deleted.
    return len(done.stdout.split()) if dry_run else max(0, before - _files(wal))


def _files(directory: Path) -> int:
    with explained("look into", directory):
        return sum(1 for _ in directory.iterdir())
