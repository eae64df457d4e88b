"""The sampler: rows about the memory as a whole, and real recalls compared with the truth."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import psycopg

from pgrecall.driver import Statements
from pgrecall.errors import PgrecallError
from pgrecall.ops.monitor.exposition import FAILURES, Troubles, logger
from pgrecall.ops.monitor.host import Host
from pgrecall.ops.monitor.link import ANSWER_SECONDS, Link

EXACT_SECONDS_A_ROW = 13e-6
"""What an exact search takes for each row, where vectors are stored out of line."""

PROBES = 3
"""Recalls that a probe makes at most."""
PROBED_RESULTS = 10
"""Results that each of them asks for."""

SAMPLER, PROBE = "sampler", "probe"
"""What they are called among the collectors."""


@dataclass(slots=True, kw_only=True)
class Sampler:
    """Writes a sample and, less often, probes recall.

    Attributes:
        link: The connection it works on.
        host: What the server uses of its machine.
        troubles: Where failures are told.
        interval_seconds: Between samples.
        probe_interval_seconds: Between probes; 0 makes none.
        probe_budget_seconds: How long the exact searches of a probe may take. Where the table's
            size says that one would take longer, none is made.
    """

    link: Link
    host: Host
    troubles: Troubles
    interval_seconds: float
    probe_interval_seconds: float
    probe_budget_seconds: float
    _next_probe: float = field(default=0.0, init=False)
    _left_out: set[str] = field(default_factory=set, init=False)

    def run(self, stop: threading.Event) -> None:
        """Sample until ``stop`` is set."""
        while True:
            self.sample()
            if self.probe_interval_seconds and time.monotonic() >= self._next_probe:
                self._next_probe = time.monotonic() + self.probe_interval_seconds
                self.probe()
            if stop.wait(self.interval_seconds):
                return

    def sample(self) -> bool:
        """Write a row of ``agent_memory_metrics``; returns whether all is well.

        A standby accepts none, and gets those of its primary.
        """
        try:
            with self.link.transaction() as statements:
                if statements.value("in_recovery"):
                    self._leave_out(SAMPLER, "the server is a standby, which takes no samples")
                    return True
                usage = self.host.measure(statements)
                memory, ratio = usage.memory_bytes, usage.cpu_ratio
                statements.one(
                    "record_sample",
                    {
                        "memory_usage_mb": None if memory is None else memory / 2**20,
                        "cpu_percent": None if ratio is None else ratio * 100,
                    },
                )
        except FAILURES as error:
            self._ended(SAMPLER, error)
            return False
        self._ended(SAMPLER, None)
        return True

    def probe(self) -> int:
        """Recall stored vectors by the index and exactly; returns how many were recalled."""
        try:
            # One search may begin just before the budget is spent; the rest is quick.
            seconds = 2 * self.probe_budget_seconds + ANSWER_SECONDS
            with self.link.transaction(timeout_seconds=seconds) as statements:
                if self._is_too_much(statements):
                    return 0
                count = self._probe(statements)
        except FAILURES as error:
            self._ended(PROBE, error)
            return 0
        self._ended(PROBE, None)
        return count

    def _is_too_much(self, statements: Statements) -> bool:
        if statements.value("in_recovery"):
            self._leave_out(PROBE, "the server is a standby, where nothing is probed")
            return True
        rows = statements.value("rows_estimated")
        expected = rows * EXACT_SECONDS_A_ROW
        if expected <= self.probe_budget_seconds:
            return False
        self._leave_out(
            PROBE,
            f"recall is not probed: an exact search of {rows} rows would take about "
            f"{expected:.1f} s, more than the budget of {self.probe_budget_seconds:g} s",
        )
        return True

    def _probe(self, statements: Statements) -> int:
        budget_ms = self.probe_budget_seconds * 1000
        probes = statements.rows(
            "probe_recall", {"queries": PROBES, "limit": PROBED_RESULTS, "budget_ms": budget_ms}
        )
        return len(probes)

    def _leave_out(self, what: str, reason: str) -> None:
        """Say once that something is not done for a good reason; that is no failure."""
        self.troubles.background.pop(what, None)
        if what not in self._left_out:
            self._left_out.add(what)
            logger.warning(reason)

    def _ended(self, what: str, trouble: psycopg.Error | PgrecallError | OSError | None) -> None:
        self._left_out.discard(what)
        self.troubles.background[what] = trouble is None
        self.troubles.tell(what, trouble)
