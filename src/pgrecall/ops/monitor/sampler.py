"""The sampler: rows about the memory as a whole, and real recalls compared with the truth."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from pgrecall.driver.facts import missing_settings
from pgrecall.driver.settings import RECALL_SETTINGS
from pgrecall.ops.monitor.exposition import FAILURES, Troubles, logger
from pgrecall.ops.monitor.host import Host
from pgrecall.ops.monitor.link import Link
from pgrecall.sql import load

EXACT_SECONDS_A_ROW = 13e-6
"""What an exact search takes for each row, where vectors are stored out of line."""

PROBES = 3
"""Recalls that a probe makes at most."""
PROBED_RESULTS = 10
"""Results that each of them asks for."""


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
        """Write a row of ``agent_memory_metrics``; returns whether it is written."""
        try:
            with self.link.transaction() as statements:
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
            self.troubles.tell("the sampler", error)
            return False
        self.troubles.tell("the sampler", None)
        return True

    def probe(self) -> int:
        """Recall stored vectors by the index and exactly; returns how many were recalled."""
        try:
            return self._probe()
        except FAILURES as error:
            self.troubles.tell("the probe of recall", error)
            return 0

    def _probe(self) -> int:
        budget = self.probe_budget_seconds
        # One search may begin just before the budget is spent.
        with self.link.transaction(timeout_seconds=2 * budget) as statements:
            rows = statements.value("rows_estimated")
            expected = rows * EXACT_SECONDS_A_ROW
            if expected > budget:
                raise TimeoutError(
                    f"an exact search of {rows} rows would take about {expected:.1f} s, more than "
                    f"the budget of {budget:g} s"
                )
            names = {"names": [*RECALL_SETTINGS]}
            known = statements.connection.execute(load("connection")["settings"], names)
            wanted = missing_settings({row["name"]: row["source"] for row in known})
            if wanted:
                # Until the end of this transaction, as a client does where the role has none.
                statements.connection.execute(
                    load("connection")["local_settings"],
                    {"names": [*wanted], "values": [*wanted.values()]},
                )
            probes = statements.rows(
                "probe_recall",
                {"queries": PROBES, "limit": PROBED_RESULTS, "budget_ms": budget * 1000},
            )
        self.troubles.tell("the probe of recall", None)
        if probes:
            accuracy = sum(probe["recall_accuracy"] for probe in probes) / len(probes)
            logger.debug("%d probes found %.3f of the truth", len(probes), accuracy)
        return len(probes)
