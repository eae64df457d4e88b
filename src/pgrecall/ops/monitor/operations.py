"""A histogram of what agents recorded in ``agent_memory_metrics`` since the monitor started.

Rows are counted once, a period at a time: from where the last look ended to a little before now,
since clients write theirs every few seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily

from pgrecall.driver import Statements
from pgrecall.telemetry.catalogue import BUCKETS, METRICS
from pgrecall.telemetry.families import Family, counter

MOST_OPERATIONS = 50
"""Operations that get a label of their own; rows written by hand may name any."""
OTHER = "other"

LONGEST_PERIOD = timedelta(hours=1)
"""Rows that are older when nobody has scraped for long are not counted any more."""

_DURATION = "pgrecall_recorded_operation_duration_seconds"
_RESULTS = "pgrecall_recorded_operation_results_total"


class Operations:
    """Counts rows as they come.

    Args:
        lag_seconds: How old a row must be to be counted; one that is written later is missed.
    """

    def __init__(self, *, lag_seconds: float) -> None:
        self._lag = lag_seconds
        self._after: datetime | None = None
        self._counts: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}
        self._results: dict[str, float] = {}

    def collect(self, statements: Statements) -> Iterator[Family]:
        """Count what has come since the last look, and return all that was counted."""
        until = statements.value("operations_until", {"lag": self._lag})
        after = until if self._after is None else max(self._after, until - LONGEST_PERIOD)
        bounds = [bound * 1000 for bound in BUCKETS]
        period = {"after": after, "until": until, "bounds": bounds}
        for row in statements.rows("operations", period):
            name = self._name(row["operation_type"])
            self._counts[name][row["bucket"]] += row["count"]
            self._seconds[name] += row["milliseconds"] / 1000
            self._results[name] += row["results"]
        self._after = max(after, until)  # clocks are put back now and then
        yield from self._families()

    def _name(self, operation: str) -> str:
        known = operation in self._counts or len(self._counts) < MOST_OPERATIONS
        name = operation if known else OTHER
        if name not in self._counts:
            self._counts[name] = [0] * (len(BUCKETS) + 1)
            self._seconds[name] = self._results[name] = 0.0
        return name

    def _families(self) -> Iterator[Family]:
        metric = METRICS[_DURATION]
        durations = HistogramMetricFamily(_DURATION, metric.help, labels=metric.labels)
        bounds = [*(str(bound) for bound in BUCKETS), "+Inf"]
        for name, counts in self._counts.items():
            buckets = [*zip(bounds, accumulate(counts), strict=True)]
            durations.add_metric([name], buckets, self._seconds[name])
        yield durations
        yield counter(_RESULTS, [((name,), count) for name, count in self._results.items()])
