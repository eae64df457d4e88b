"""What observing costs: recalls with everything off, with metric rows, and with everything on.

Run it with ``python -m benchmarks.observing [--rows N] [--rounds N] [--save]``. It starts an
embedded server of its own. Everything on is: metric rows, Prometheus, and JSON log records of
every operation, written to a file. Calls are made in each of the ways in turns. The metric rows
are written in batches, as the client does in the background; here batches are timed, and every
recall bears its part of one. Target: everything on takes at most 5 % of the throughput.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.data import World
from benchmarks.floor import database, fill
from benchmarks.measuring import interleave, save
from pgrecall import Memory
from pgrecall._sync.metrics import FLUSH_ROWS, MetricStore
from pgrecall.telemetry.json_lines import JsonFormatter
from pgrecall.telemetry.logs import log_operation
from pgrecall.telemetry.operations import Telemetry
from pgrecall.testing import Database

DIMENSIONS = 384
LIMIT = 10
BATCH = FLUSH_ROWS - 1
QUERIES = 256
TARGET = 0.05
OFF, ROWS, COUNTED = "everything off", "metric rows", "metric rows, Prometheus"
ALL = "metric rows, Prometheus, a JSON line each"
OPENINGS = 8
console = Console(width=100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Recalls a second, and the part of those with everything off that is lost.

    ``cost`` is the median of the openings, ``lowest`` and ``highest`` are the extremes among them.
    ``row_ms`` is what the writing
    of one metric row takes.
    """

    name: str
    recalls_per_second: float
    p50_ms: float
    row_ms: float
    cost: float
    lowest: float
    highest: float


@contextmanager
def logging_to(path: Path) -> Iterator[logging.Logger]:
    """Give the logger of operations, writing JSON to a file while it is not ``disabled``."""
    logger = logging.getLogger("pgrecall.operations")
    handler = logging.FileHandler(path)
    handler.setFormatter(JsonFormatter())
    before = (logger.level, logger.propagate)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield logger
    finally:
        logger.disabled = False
        logger.level, logger.propagate = before
        logger.removeHandler(handler)
        handler.close()


def measure(base: Database, rows: int, rounds: int, log: Path) -> list[Rate]:
    """Return the rates of the four ways.

    They share one connection: one process of the server may be a tenth slower than another for as
    long as it lives, which would be more than what is measured. All is opened anew several times.
    """
    settings = base.settings.model_copy(update={"metrics": True, "prometheus": True})
    with Memory.open(base.dsn, embedder="none", settings=base.settings) as memory:
        fill(memory, base, World(DIMENSIONS), rows)
    openings: list[Opening] = []
    each = max(1, rounds // OPENINGS)
    with logging_to(log) as logger:
        for number in range(1, OPENINGS + 1):
            with Memory.open(base.dsn, embedder="none", settings=settings) as memory:
                memories = {
                    OFF: observed(memory, enabled=False),
                    ROWS: observed(memory, enabled=True),
                    COUNTED: memory,
                    ALL: memory,
                }
                openings.append(measure_one(memories, each, logger))
                check_observed(memories, number * (each + QUERIES), log)
    return [summarise(name, openings) for name in (OFF, ROWS, COUNTED, ALL)]


def observed(memory: Memory, *, enabled: bool) -> Memory:
    """Return the same memory, on the same connections, with metric rows alone or with nothing."""
    telemetry = Telemetry(ended=(log_operation,))  # as it stands when nothing is switched on
    metrics = MetricStore(memory._scope.database, telemetry, enabled=enabled)
    metrics._writer = memory.metrics._writer
    return Memory(replace(memory._scope, metrics=metrics, telemetry=telemetry))


@dataclass(frozen=True, slots=True)
class Opening:
    """What was measured while the memories were open: milliseconds of recalls, and of a row."""

    taken: Mapping[str, Sequence[float]]
    row_ms: Mapping[str, float]


def measure_one(memories: Mapping[str, Memory], rounds: int, logger: logging.Logger) -> Opening:
    """Recall in the four ways in turns."""
    queries = World(DIMENSIONS).vectors(QUERIES, queries=True)

    def recall(name: str, offset: int) -> Callable[[int], object]:
        recalled = memories[name].episodes.recall

        def call(i: int) -> object:
            logger.disabled = name != ALL
            return recalled(embedding=queries[(i + offset) % QUERIES], limit=LIMIT)

        return call

    # At different queries at a time, or one would find what it needs in the caches for another.
    calls = {name: recall(name, 64 * i) for i, name in enumerate(memories)}
    interleave(calls, QUERIES, warm_up=0)
    taken: dict[str, list[float]] = {name: [] for name in memories}
    row_ms: list[float] = []
    for done in range(0, rounds, BATCH):
        for name, part in interleave(calls, min(BATCH, rounds - done), warm_up=0).items():
            taken[name] += part
        # A little before the client would do it by itself; a row costs the same in all ways.
        start = time.perf_counter()
        written = memories[ROWS].metrics.flush()
        row_ms.append((time.perf_counter() - start) * 1000 / written)
        memories[ALL].metrics.flush()
    row = statistics.median(row_ms)
    return Opening(taken, {name: 0.0 if name == OFF else row for name in memories})


def check_observed(memories: Mapping[str, Memory], made: int, log: Path) -> None:
    """Make sure that what was to be on was on, and nothing else.

    Raises:
        RuntimeError: Something was not observed as it should have been.
    """
    from prometheus_client import REGISTRY

    count = "pgrecall_operation_duration_seconds_count"
    counted = REGISTRY.get_sample_value(count, {"operation": "recall_similar", "project": ""})
    rows = memories[ALL].metrics.summary(operation_type="recall_similar")["recall_similar"].count
    with log.open() as file:
        lines = sum('"operation":"recall_similar"' in line for line in file)
    if (counted, rows, lines) != (2 * made, 3 * made, made):
        raise RuntimeError(f"of {made} recalls: {counted} counted, {rows} rows, {lines} lines")


def summarise(name: str, openings: Sequence[Opening]) -> Rate:
    """Compare the recalls of a way, each with the writing of its row, with everything off."""
    p50 = [statistics.median(opening.taken[name]) for opening in openings]
    row_ms = [opening.row_ms[name] for opening in openings]
    off = [statistics.median(opening.taken[OFF]) for opening in openings]
    whole = [ms + row for ms, row in zip(p50, row_ms, strict=True)]
    costs = [1 - least / ms for ms, least in zip(whole, off, strict=True)]
    return Rate(
        name=name,
        recalls_per_second=1000
        / statistics.median(a + b for a, b in zip(p50, row_ms, strict=True)),
        p50_ms=statistics.median(p50),
        row_ms=statistics.median(row_ms),
        cost=statistics.median(costs),
        lowest=min(costs),
        highest=max(costs),
    )


def show(rates: Sequence[Rate]) -> None:
    table = Table("with", "p50 ms", "a row, ms", "recalls a second", "cost", "in its openings")
    for rate in rates:
        table.add_row(
            rate.name,
            f"{rate.p50_ms:.3f}",
            f"{rate.row_ms:.4f}",
            f"{rate.recalls_per_second:,.0f}",
            f"{rate.cost:.1%}",
            f"{rate.lowest:.1%} to {rate.highest:.1%}",
        )
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5000)
    parser.add_argument("--save", action="store_true", help="write the results beside this file")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="pgrecall-bench-") as directory,
        database(DIMENSIONS) as base,
    ):
        rates = measure(base, arguments.rows, arguments.rounds, Path(directory) / "operations.log")
    show(rates)
    met = rates[-1].cost <= TARGET
    console.print(f"everything on costs at most {TARGET:.0%}:", "yes" if met else "no")
    if arguments.save:
        console.print("written:", save("observing", {
            "rows": arguments.rows,
            "dimensions": DIMENSIONS,
            "rounds": arguments.rounds,
            "target": TARGET,
            "met": met,
            "rates": [
                {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(rate).items()}
                for rate in rates
            ],
        }))  # fmt: skip
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
