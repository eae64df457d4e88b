"""What a report of measured recalls says of them together."""

from __future__ import annotations

from typing import Any

import pytest

from pgrecall.errors import InvalidInput
from pgrecall.ops.recall_check import Measured, Report, Tried, check_ef_search


def one(right: int, *, there: int = 10, found: int = 10, **more: Any) -> Measured:
    values: dict[str, Any] = {
        "kind": "episodes", "posed": True, "filter": {}, "project_id": None, "route": "index",
        "milliseconds": 2.0, "exact_ms": 50.0, **more,
    }  # fmt: skip
    recall = right / there if there else None
    precision = right / found if found else None
    return Measured(
        there=there, found=found, right=right, recall=recall, precision=precision, **values
    )


def tried(ef_search: int, right: int, milliseconds: float = 1.0) -> Tried:
    return Tried(ef_search=ef_search, found=10, right=right, recall=right / 10,
                 milliseconds=milliseconds)  # fmt: skip


def report(*measured: Measured) -> Report:
    return Report(measured=measured, wanted=20, cut_short=False, recorded=True, ef_search=100)


def test_together() -> None:
    total = report(one(10), one(0), one(5, found=5, milliseconds=9.0)).total
    assert total.queries == 3
    assert total.recall == pytest.approx(0.5)
    assert total.precision == pytest.approx(2 / 3)
    assert total.nothing_right == 1
    assert total.median_ms == 2.0


def test_a_query_that_nothing_matches_counts_for_nothing() -> None:
    total = report(one(10), one(0, there=0, found=0)).total
    assert (total.queries, total.recall, total.nothing_right) == (1, 1.0, 0)
    empty = report(one(0, there=0, found=0)).total
    assert (empty.queries, empty.recall, empty.median_ms) == (0, None, None)


def test_finding_nothing_where_something_is_counts() -> None:
    total = report(one(0, found=0)).total
    assert (total.recall, total.precision, total.nothing_right) == (0.0, 0.0, 1)


def test_by_route() -> None:
    shares = report(one(10), one(8, route="codes"), one(6)).routes
    assert [(share.name, share.queries, share.recall) for share in shares] == [
        ("codes", 1, 0.8),
        ("index", 2, 0.8),
    ]


def test_the_smallest_setting_that_is_enough() -> None:
    measured = report(
        one(5, tried=(tried(400, 10, 4.0), tried(100, 9), tried(200, 10, 2.0))),
        one(5, tried=(tried(100, 10), tried(200, 10, 3.0), tried(400, 10, 5.0))),
    )
    assert [share.name for share in measured.settings] == ["100", "200", "400"]
    assert measured.enough is not None
    assert (measured.enough.name, measured.enough.median_ms) == ("200", 2.5)
    assert report(one(5, tried=(tried(400, 9),))).enough is None
    assert report(one(5)).enough is None


def test_values_of_ef_search() -> None:
    assert check_ef_search([400, 100, 400]) == (100, 400)
    for value in (0, 40, 1001):
        with pytest.raises(InvalidInput) as caught:
            check_ef_search([100, value])
        assert str(value) in caught.value.message
        assert caught.value.hint
