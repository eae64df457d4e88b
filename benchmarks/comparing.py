"""Comparisons in turns: every call beside the one it is compared with, in one loop."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.measuring import ratio

LIMIT = 10
Call = Callable[[int], float]
"""Makes the call of a round and returns its milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One row of the table: a value with the lowest and highest of parts of the run.

    ``least`` says that the target is the least that is good enough instead of the most.
    """

    name: str
    value: float
    lowest: float | None = None
    highest: float | None = None
    target: float | None = None
    least: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether it is as good as its target; None without one, or where it was left out."""
        if self.target is None or math.isnan(self.value):
            return None
        return self.value >= self.target if self.least else self.value <= self.target


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one part of the benchmark found; ``facts`` are what a plot is made from."""

    name: str
    measures: Sequence[Measure]
    facts: Any = field(default_factory=dict)


def timed(call: Callable[[int], object]) -> Call:
    """Return the same call, timed from outside."""

    def milliseconds(i: int) -> float:
        start = time.perf_counter()
        call(i)
        return (time.perf_counter() - start) * 1000

    return milliseconds


def take_turns(
    calls: Mapping[str, Call],
    rounds: int,
    *,
    warm_up: int,
    seconds: float = float("inf"),
    burst: int = 1,
) -> dict[str, list[float]]:
    """Make the calls ``rounds`` times in turns after a warm-up, and return their milliseconds.

    The order is drawn anew in each round, so that none always profits from what the one before it
    brought into the caches.

    Args:
        calls: By name.
        rounds: How often at most.
        warm_up: Rounds before, of which nothing is kept.
        seconds: After these no further turn is begun, once there are 100 rounds.
        burst: Rounds that one makes in a turn. Where each is another process, the first call of a
            turn would show how long it takes to wake up.
    """
    order = random.Random(0)
    names = list(calls)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for i in range(warm_up):
        for name in order.sample(names, len(names)):
            calls[name](i)
    end = time.perf_counter() + seconds
    for begin in range(0, rounds, burst):
        for name in order.sample(names, len(names)):
            turn = range(begin, min(begin + burst, rounds))
            taken[name] += [calls[name](i) for i in turn]
        if begin >= 100 and time.perf_counter() > end:
            break
    return taken


def p95(taken: Sequence[float]) -> float:
    """Return the 95th percentile."""
    return statistics.quantiles(taken, n=20)[-1]


def middle(
    name: str,
    taken: Sequence[float],
    other: Sequence[float],
    target: float | None = None,
    note: str = "",
) -> Measure:
    """Compare medians."""
    value, low, high = ratio(taken, other)
    return Measure(name=name, value=value, lowest=low, highest=high, target=target, note=note)


def tail(
    name: str,
    taken: Sequence[float],
    other: Sequence[float],
    target: float | None = None,
    note: str = "",
    blocks: int = 4,
) -> Measure:
    """Compare 95th percentiles; the spread is that of quarters of the run."""
    size = max(2, len(taken) // blocks)
    parts = [
        p95(taken[i : i + size]) / p95(other[i : i + size])
        for i in range(0, size * blocks, size)
        if len(taken[i : i + size]) > 1
    ]
    value = p95(taken) / p95(other)
    return Measure(
        name=name, value=value, lowest=min(parts), highest=max(parts), target=target, note=note
    )


def figures(taken: Sequence[float]) -> dict[str, float | int]:
    """Return the median and the 95th percentile, in milliseconds, for the saved results."""
    return {
        "p50": round(statistics.median(taken), 3),
        "p95": round(p95(taken), 3),
        "calls": len(taken),
    }


def left_out(name: str, reason: str) -> Measure:
    """Return a row that says why there is no value."""
    return Measure(name=name, value=float("nan"), note=f"left out: {reason}")
