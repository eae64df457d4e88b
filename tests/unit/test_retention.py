from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from pgrecall.ops.backup.retention import choose

NOON = datetime(2026, 5, 20, 12, tzinfo=UTC)  # a Wednesday
times = st.lists(
    st.integers(0, 7 * 365 * 24).map(lambda hours: NOON - timedelta(hours=hours)),
    unique=True,
)
numbers = st.integers(0, 10)


def days(*ago: float) -> list[datetime]:
    return [NOON - timedelta(days=number) for number in ago]


def test_the_newest_always() -> None:
    assert choose(days(3, 1, 2), daily=0, weekly=0, monthly=0) == {days(1)[0]: "newest"}


def test_the_last_of_each_day() -> None:
    kept = choose(days(0, 0.1, 0.2, 1, 1.1, 2), daily=2, weekly=0, monthly=0)
    assert list(kept) == days(0, 1)


def test_days_without_a_backup_do_not_count() -> None:
    assert list(choose(days(0, 40, 80, 120), daily=3, weekly=0, monthly=0)) == days(0, 40, 80)


def test_weeks_begin_on_monday() -> None:
    kept = choose(days(0, 2, 3, 10), daily=0, weekly=3, monthly=0)
    assert list(kept) == days(0, 3, 10)  # today; Sunday, of the week before; and the one before


def test_three_generations() -> None:
    daily_for_a_year = days(*range(365))
    kept = choose(daily_for_a_year, daily=7, weekly=4, monthly=12)
    assert len(kept) <= 7 + 4 + 12
    assert min(kept) < NOON - timedelta(days=300)


@given(times, numbers, numbers, numbers)
def test_what_holds_for_any(made: list[datetime], daily: int, weekly: int, monthly: int) -> None:
    kept = choose(made, daily=daily, weekly=weekly, monthly=monthly)
    assert set(kept) <= set(made)
    assert bool(kept) == bool(made)
    if made:
        assert max(made) in kept
    assert len(kept) <= max(1, daily + weekly + monthly)
    # A day later nothing comes back that was given up.
    again = choose(kept, daily=daily, weekly=weekly, monthly=monthly)
    assert set(again) == set(kept)
