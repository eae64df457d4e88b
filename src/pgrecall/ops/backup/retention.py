"""Which backups to keep: the last of each day, week and month (grandfather, father, son)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime


def choose(
    times: Iterable[datetime], *, daily: int, weekly: int, monthly: int
) -> dict[datetime, str]:
    """Return those to keep, each with the reason.

    Args:
        times: When each backup was made.
        daily: Number of days to keep the last backup of, counted over days that have one.
        weekly: Likewise for weeks, which begin on Monday.
        monthly: Likewise for months.

    Returns:
        The newest always, and what the three numbers ask for.
    """
    newest_first = sorted(times, reverse=True)
    kept: dict[datetime, str] = {}
    if newest_first:
        kept[newest_first[0]] = "newest"
    periods: tuple[tuple[str, int, Callable[[datetime], tuple[int, ...]]], ...] = (
        ("daily", daily, lambda time: (time.year, time.month, time.day)),
        ("weekly", weekly, lambda time: time.isocalendar()[:2]),
        ("monthly", monthly, lambda time: (time.year, time.month)),
    )
    for reason, number, period in periods:
        seen: set[tuple[int, ...]] = set()
        for time in newest_first:
            if len(seen) == number:
                break
            if period(time) not in seen:
                seen.add(period(time))
                kept.setdefault(time, reason)
    return kept
