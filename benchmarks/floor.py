"""The client against the floor: the same SQL on a raw, prepared psycopg connection.

Run it with ``make bench`` or ``python -m benchmarks.floor [--rows N] [--rounds N] [--save]``. It
starts an embedded server of its own in a temporary directory. Targets: recall at most 1.25 times
the floor, record at most 1.35 times; record_many at least 0.5 of the rate of a binary COPY without
a vector index, and 0.9 with one; recall over 1,000 vectors under 100 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb
from rich.console import Console
from rich.table import Table

from benchmarks.data import World
from benchmarks.measuring import Timing, as_rows, interleave, ratio, save, summarise
from pgrecall import AsyncMemory, Memory
from pgrecall.engine import EmbeddedServer
from pgrecall.sql import statement
from pgrecall.testing import Database, provisioned_template

DIMENSIONS = 1536
LIMIT = 10
COLUMNS = ("project_id", "agent_version", "perception", "reasoning", "action", "embedding")
console = Console(width=100)

PLAIN_RECALL = (
    "SELECT episode_id, 1 - (embedding <=> %(embedding)s) FROM agent_episodes "
    "ORDER BY embedding <=> %(embedding)s LIMIT %(limit)s"
)
RAW_INSERT = (
    "INSERT INTO agent_episodes (project_id, agent_version, perception, reasoning, action, "
    "embedding) VALUES (%s, %s, %s, %s, %s, %s) RETURNING episode_id, timestamp"
)
RAW_COPY = f"COPY agent_episodes ({', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One comparison: the ratio, its spread over the run, and what it should be."""

    what: str
    ratio: float
    lowest: float
    highest: float
    target: str
    met: bool


@contextmanager
def database(dimensions: int) -> Iterator[Database]:
    """Give a provisioned database on a server of its own."""
    with tempfile.TemporaryDirectory(prefix="pgrecall-bench-") as directory:
        Path(directory).chmod(0o755)
        server = EmbeddedServer(Path(directory) / "server")
        server.start()
        try:
            with (
                provisioned_template(
                    server.admin_dsn(), Path(directory) / "config", dimensions
                ) as template,
                template.clone() as cloned,
            ):
                yield cloned
        finally:
            server.destroy()


def raw_connection(dsn: str) -> psycopg.Connection[Any]:
    """Return the fastest connection there is: autocommit, prepared, binary vectors."""
    connection = psycopg.connect(dsn, autocommit=True, prepare_threshold=0)
    register_vector(connection)
    return connection


def bench_recall(base: Database, rows: int, rounds: int) -> tuple[list[Timing], list[Outcome]]:
    world = World(DIMENSIONS)
    queries = world.vectors(256, queries=True)
    text = statement("episodes", "recall")
    fixed = {
        "limit": LIMIT,
        "filter": "{}",
        "min_similarity": -1.0,
        "outcome_weight": 0.15,
        "age_weight": 0.0,
        "half_life": timedelta(days=30),
        "diversity": 0.0,
        "group": True,
        "route": None,
        "text": None,
        "context": True,
        "model": None,
        "explain": False,
    }
    with Memory.open(base.dsn, settings=base.settings) as memory, raw_connection(base.dsn) as raw:
        fill(memory, base, world, rows)

        def same_sql(i: int) -> None:
            parameters = {**fixed, "embedding": queries[i % 256]}
            raw.execute(text, parameters, binary=True).fetchall()

        def plain(i: int) -> None:
            parameters = {"embedding": queries[i % 256], "limit": LIMIT}
            raw.execute(PLAIN_RECALL, parameters, binary=True).fetchall()

        taken = interleave(
            {
                "raw, ids and distance only": plain,
                "raw, the same SQL": same_sql,
                "Memory.episodes.recall": lambda i: memory.episodes.recall(
                    embedding=queries[i % 256], limit=LIMIT
                ),
            },
            rounds,
            warm_up=256,
        )
    taken["AsyncMemory.episodes.recall"] = asyncio.run(async_recall(base, queries, rounds))
    floor, client = taken["raw, the same SQL"], taken["Memory.episodes.recall"]
    value, low, high = ratio(client, floor)
    median = statistics.median(client)
    return [summarise(name, values) for name, values in taken.items()], [
        Outcome(f"recall / same SQL, {rows:,} rows", value, low, high, "≤ 1.25", value <= 1.25),
        Outcome(f"recall p50 in ms, {rows:,} rows", median, *spread(client), "< 100", median < 100),
    ]


async def async_recall(base: Database, queries: Any, rounds: int) -> list[float]:
    taken = []
    async with await AsyncMemory.open(base.dsn, settings=base.settings) as memory:
        for i in range(-50, rounds):
            start = time.perf_counter()
            await memory.episodes.recall(embedding=queries[i % 256], limit=LIMIT)
            if i >= 0:
                taken.append((time.perf_counter() - start) * 1000)
    return taken


def spread(values: Sequence[float]) -> tuple[float, float]:
    quantiles = statistics.quantiles(values, n=20)
    return quantiles[0], quantiles[-1]


def fill(memory: Memory, base: Database, world: World, rows: int) -> None:
    """Load the rows, then build the index and the statistics, as an import would."""
    with psycopg.connect(base.owner_dsn, autocommit=True) as owner:
        (definition,) = owner.execute(
            "SELECT pg_get_indexdef('idx_episodes_embedding'::regclass)"
        ).fetchone() or ("",)
        owner.execute("DROP INDEX idx_episodes_embedding")
        batch = []
        for episode in world.episodes(rows):
            batch.append(episode)
            if len(batch) == 500:
                memory.episodes.record_many(batch)
                batch = []
        memory.episodes.record_many(batch)
        owner.execute("SET maintenance_work_mem = '1GB'")
        owner.execute(definition)
        owner.execute("VACUUM ANALYZE agent_episodes")


def bench_record(base: Database, rounds: int) -> tuple[list[Timing], list[Outcome]]:
    world = World(DIMENSIONS, seed=23)
    episodes = list(world.episodes(rounds + 50))
    with Memory.open(base.dsn, settings=base.settings) as memory, raw_connection(base.dsn) as raw:

        def insert(i: int) -> None:
            raw.execute(RAW_INSERT, as_row(episodes[i]), binary=True).fetchall()

        taken = interleave(
            {
                "raw INSERT": insert,
                "Memory.episodes.record": lambda i: memory.episodes.record(**episodes[i]),
            },
            rounds,
            warm_up=50,
        )
    value, low, high = ratio(taken["Memory.episodes.record"], taken["raw INSERT"])
    return [summarise(name, values) for name, values in taken.items()], [
        Outcome("record / raw INSERT", value, low, high, "≤ 1.35", value <= 1.35)
    ]


def as_row(episode: Any) -> tuple[Any, ...]:
    return tuple(
        Jsonb(episode[name]) if name in ("perception", "reasoning", "action") else episode[name]
        for name in COLUMNS
    )


def bench_many(
    base: Database, batches: int, *, indexed: bool
) -> tuple[list[Timing], list[Outcome]]:
    """Compare rates over the same rows in turns; each turn starts from an empty table."""
    size = 500 if not indexed else 200
    episodes = list(World(DIMENSIONS, seed=31).episodes(size))
    with (
        Memory.open(base.dsn, settings=base.settings) as memory,
        raw_connection(base.dsn) as raw,
        psycopg.connect(base.owner_dsn, autocommit=True) as owner,
    ):
        if not indexed:
            owner.execute("DROP INDEX IF EXISTS idx_episodes_embedding")

        def empty(_: int) -> None:
            owner.execute("TRUNCATE agent_episodes")

        def copy(_: int) -> None:
            with raw.transaction(), raw.cursor().copy(RAW_COPY) as copying:
                copying.set_types(["varchar", "varchar", "jsonb", "jsonb", "jsonb", "vector"])
                for episode in episodes:
                    copying.write_row(as_row(episode))

        calls: dict[str, Callable[[int], object]] = {
            "COPY": copy,
            "record_many": lambda _: memory.episodes.record_many(episodes),
        }
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for i in range(batches + 1):
            for name, call in calls.items():
                empty(i)
                start = time.perf_counter()
                call(i)
                if i:
                    taken[name].append((time.perf_counter() - start) * 1000)
    value, low, high = ratio(taken["COPY"], taken["record_many"], blocks=min(10, batches))
    label = "with" if indexed else "without"
    target = 0.9 if indexed else 0.5
    return [summarise(f"{name}, {size} rows, {label} index", v) for name, v in taken.items()], [
        Outcome(f"record_many rate / COPY rate, {label} vector index", value, low, high,
                f"≥ {target}", value >= target)
    ]  # fmt: skip


def show(timings: Sequence[Timing], outcomes: Sequence[Outcome]) -> None:
    table = Table("call", "p50 ms", "p95 ms", "calls", title="Timings")
    for timing in timings:
        table.add_row(timing.name, f"{timing.p50:.3f}", f"{timing.p95:.3f}", str(timing.calls))
    console.print(table)
    table = Table("comparison", "median", "spread", "target", "met", title="Against the floor")
    for outcome in outcomes:
        table.add_row(
            outcome.what, f"{outcome.ratio:.3f}", f"{outcome.lowest:.2f} to {outcome.highest:.2f}",
            outcome.target, "[green]yes" if outcome.met else "[red]no",
        )  # fmt: skip
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--save", action="store_true", help="write the results beside this file")
    arguments = parser.parse_args()
    batches = max(2, min(10, arguments.rounds // 100))
    timings: list[Timing] = []
    outcomes: list[Outcome] = []
    with database(DIMENSIONS) as base:
        parts: list[Callable[[], tuple[list[Timing], list[Outcome]]]] = [
            lambda: bench_recall(base, arguments.rows, arguments.rounds),
            lambda: bench_record(base, max(20, arguments.rounds // 3)),
            lambda: bench_many(base, batches, indexed=True),
            lambda: bench_many(base, 2 * batches, indexed=False),
        ]
        for part in parts:
            more_timings, more_outcomes = part()
            timings += more_timings
            outcomes += more_outcomes
    show(timings, outcomes)
    if arguments.save:
        rows = [{**{name: getattr(o, name) for name in o.__slots__}} for o in outcomes]
        for row in rows:
            row |= {k: round(v, 3) for k, v in row.items() if isinstance(v, float)}
        console.print("written:", save(f"floor-{arguments.rows}", {
            "rows": arguments.rows, "timings": as_rows(timings), "comparisons": rows,
        }))  # fmt: skip
    return 0 if all(outcome.met for outcome in outcomes) else 1


if __name__ == "__main__":
    raise SystemExit(main())
