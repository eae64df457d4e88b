"""``backup prune``: deletes backups that the retention no longer asks for, and old remains."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pgrecall.ops.backup import retention, stored
from pgrecall.ops.backup.storage import open_storage

_REMAINS_AGE = timedelta(days=1)
"""Younger remains may be a backup that is being made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What becomes of one backup.

    Attributes:
        name: Its name.
        kept: Whether it stays.
        reason: Why.
    """

    name: str
    kept: bool
    reason: str


def prune(
    location: str, *, daily: int, weekly: int, monthly: int, dry_run: bool = False
) -> list[Pruned]:
    """Delete what need not be kept; for each memory by itself, and never its newest.

    Args:
        location: Where the backups are.
        daily: Days to keep the last backup of.
        weekly: Weeks, likewise.
        monthly: Months, likewise.
        dry_run: Only say what would be done.

    Raises:
        BackupError: The storage failed.
    """
    storage = open_storage(location)
    found = stored.list_backups(storage)
    by_memory: dict[str, dict[datetime, str]] = {}
    fates = {}
    for entry in found:
        if entry.manifest is not None and entry.problem is None:
            times = by_memory.setdefault(entry.manifest.memory.name, {})
            times[entry.manifest.started_at] = entry.name
        elif entry.manifest is not None:
            fates[entry.name] = Pruned(
                name=entry.name, kept=True, reason=f"damaged, look at it: {entry.problem}"
            )
        else:
            old = datetime.now(UTC) - storage.changed(entry.name) > _REMAINS_AGE
            reason = entry.problem or ""
            interrupted = reason.startswith("incomplete")
            fates[entry.name] = Pruned(
                name=entry.name, kept=not (old and interrupted), reason=reason
            )
    for times in by_memory.values():
        kept = retention.choose(times, daily=daily, weekly=weekly, monthly=monthly)
        for time, name in times.items():
            reason = kept.get(time, "older than what is kept")
            fates[name] = Pruned(name=name, kept=time in kept, reason=reason)
    if not dry_run:
        for fate in fates.values():
            if not fate.kept:
                storage.delete(fate.name)
    return [fates[entry.name] for entry in found]
