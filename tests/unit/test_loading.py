"""Whether a load keeps the vector index or puts it off: by sizes, and by what was measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pgrecall.core.loading import (
    Load,
    build_memory,
    deferring_ms,
    keeping_ms,
    row_ms,
    worth_measuring,
)


def defers(**sizes: Any) -> bool:
    load = Load(dimensions=1536, **{"processes": 2, **sizes})
    return deferring_ms(load) < keeping_ms(load)


def break_even(present: int, connections: int) -> float:
    """Return the smallest part of the rows that are there from which on building is faster."""
    parts = (part / 1000 for part in range(1, 2000))
    return next(
        part for part in parts
        if defers(rows=round(part * present), present=present, connections=connections)
    )  # fmt: skip


@pytest.mark.parametrize(("connections", "measured"), [(1, 0.13), (2, 0.23)])
def test_the_choice_turns_where_it_was_measured_to(connections: int, measured: float) -> None:
    assert break_even(100_000, connections) == pytest.approx(measured, rel=0.25)


def test_many_rows_into_nothing_are_indexed_at_the_end_and_a_few_at_once() -> None:
    assert defers(rows=20_000, present=0, connections=2)
    assert not defers(rows=300, present=0, connections=2)
    assert not defers(rows=1000, present=100_000, connections=2)


def test_more_connections_speak_for_keeping_and_more_processes_for_building() -> None:
    load = Load(rows=10_000, present=100_000, dimensions=1536)
    assert keeping_ms(replace(load, connections=2)) < keeping_ms(load)
    assert deferring_ms(replace(load, processes=3)) < deferring_ms(load)


def test_what_was_measured_changes_the_choice() -> None:
    close = {"rows": 25_000, "present": 100_000, "connections": 2}
    assert defers(**close)
    assert not defers(**close, building=2.0)
    assert not defers(**close, upkeep=0.5)


def test_a_row_costs_more_the_more_there_are_and_the_longer_its_vector() -> None:
    costs = [row_ms(rows, 1536) for rows in (0, 1000, 10_000, 100_000)]
    assert costs == sorted(costs)
    assert costs[0] > 0
    assert row_ms(10_000, 384) == pytest.approx(row_ms(10_000, 1536) / 4)


def test_a_server_is_measured_only_where_it_matters() -> None:
    load = Load(rows=10_000, present=100_000, dimensions=1536)
    assert worth_measuring(load)
    assert not worth_measuring(replace(load, present=500))
    assert not worth_measuring(replace(load, rows=500))
    assert not worth_measuring(replace(load, rows=300_000, present=5000))


def test_a_graph_of_a_hundred_thousand_gets_nearly_a_gigabyte() -> None:
    assert 0.7e9 < build_memory(100_000, 1536) < 1.1e9
