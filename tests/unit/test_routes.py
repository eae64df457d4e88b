"""The choice of a route, by table."""

from __future__ import annotations

import pytest

from pgrecall.core.routes import ROUTES, Situation, choose, costs, to_account
from pgrecall.models import Route


def situation(
    rows: float, matching: float, wanted: int = 30, dimensions: int = 1536, joined: int = 0
) -> Situation:
    return Situation(
        rows=rows,
        matching=matching,
        wanted=wanted,
        dimensions=dimensions,
        filtered=int(matching < rows),
        joined=joined,
    )


@pytest.mark.parametrize(
    ("given", "route"),
    [
        # No filter: exactly or by codes while there is little, then by the index.
        (situation(1, 1), "exact"),
        (situation(50, 50), "exact"),
        (situation(3_000, 3_000, dimensions=384), "codes"),
        (situation(10_000, 10_000), "index"),
        (situation(100_000, 100_000), "index"),
        (situation(1_000_000, 1_000_000, dimensions=384), "index"),
        # A project: exactly, then by codes; by the index where it is a large part of a large table.
        (situation(100_000, 10), "exact"),
        (situation(100_000, 100), "exact"),
        (situation(100_000, 1_000), "codes"),
        (situation(100_000, 6_600), "codes"),
        (situation(100_000, 13_400), "codes"),
        (situation(100_000, 60_000), "index"),
        (situation(1_000_000, 50_000), "codes"),
        (situation(1_000_000, 200_000), "index"),
        # Filters that have nothing to do with what rows are about: codes cost a join.
        (situation(100_000, 50, joined=1), "exact"),
        (situation(100_000, 1_000, joined=1), "exact"),
        (situation(100_000, 20_000, joined=1), "index"),
        (situation(1_000_000, 300_000, joined=1), "index"),
        # Many are wanted: the index would have to visit more than it can.
        (situation(100_000, 100_000, wanted=1_000), "index"),
        (situation(100_000, 90_000, wanted=500), "codes"),
        (situation(2_000, 2_000, wanted=2_000), "exact"),
    ],
)
def test_choice(given: Situation, route: Route) -> None:
    assert choose(given) == route, costs(given)


@pytest.mark.parametrize(
    ("indexed", "coded", "route"),
    [
        (True, True, "index"),
        (False, True, "codes"),
        (True, False, "index"),
        (False, False, "exact"),
    ],
)
def test_what_is_not_there_is_not_chosen(indexed: bool, coded: bool, route: Route) -> None:
    given = Situation(
        rows=1e5, matching=1e5, wanted=10, dimensions=1536, indexed=indexed, coded=coded
    )
    assert choose(given) == route
    assert "exact" in costs(given)


@pytest.mark.parametrize("dimensions", [1, 384, 1536, 16_000])
@pytest.mark.parametrize("rows", [1.0, 1e3, 1e6, 1e9])
@pytest.mark.parametrize("share", [1e-9, 1e-3, 0.3, 1.0])
def test_costs_are_numbers_and_grow(dimensions: int, rows: float, share: float) -> None:
    given = situation(rows, max(1.0, rows * share), dimensions=dimensions)
    more = situation(rows * 10, max(1.0, rows * share) * 10, dimensions=dimensions)
    for route, expected in costs(given).items():
        assert 0 < expected < 1e12
        assert costs(more)[route] >= expected, route


def test_an_account_says_why() -> None:
    account = to_account(
        {
            "route": "codes", "tried": ["index", "codes"], "wanted": 30, "rows": 100_000,
            "matching": 30_000, "considered": 30_120, "indexed": True, "coded": True, "words": None,
            "expected_ms": {"exact": 281.3, "codes": 11.2, "index": 1.2}, "choose_ms": 0.1,
            "search_ms": 9.0, "plan": [{"step": "Index Only Scan", "on": "episode_codes",
            "index": "episode_codes_pkey", "rows": 30_000, "removed": 0, "milliseconds": 8.0}],
        },
        embed_ms=2.0, total_ms=12.0,
    )  # fmt: skip
    assert account.why == (
        "about 30,000 of 100,000 rows match; codes about 11.2 ms; exact about 281.3 ms; "
        "index about 1.2 ms; index did not settle it, hence codes"
    )
    assert account.plan[0].index == "episode_codes_pkey"
    assert set(account.expected_ms) == set(ROUTES)
