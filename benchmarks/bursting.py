"""What a burst writes beside the vector index, and what recalls take meanwhile.

Run it with ``python -m benchmarks.bursting [--rows N] [--burst N] [--save]``. It starts an embedded
server of its own. Plain and burst writes take turns on one memory, and so do recalls of it and of a
twin that nobody writes to: both feel the same machine. Words are counted in between turns, so that
neither pays for the other; recalls are by vectors, the ten nearest of all.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from rich.console import Console
from rich.table import Table

from benchmarks.comparing import Measure, p95, take_turns
from benchmarks.measuring import save
from benchmarks.stage import Stored, recalling, stage
from pgrecall import Memory

QUERIES = 256
BATCH = 100
console = Console(width=110)


@dataclass(frozen=True, slots=True)
class Writing:
    """Rows a second of each turn, of both kinds."""

    plain: Sequence[float]
    burst: Sequence[float]


@contextmanager
def twin(stored: Stored) -> Iterator[Stored]:
    """Give a copy of a filled database, and drop it afterwards."""
    name = f"{stored.base.name}_twin"
    base = stored.base
    with psycopg.connect(
        make_conninfo(base.admin_dsn, dbname="postgres"), autocommit=True
    ) as admin:
        copied = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
        admin.execute(copied.format(sql.Identifier(name), sql.Identifier(base.name)))
        try:
            yield replace(
                stored,
                base=replace(
                    base,
                    name=name,
                    dsn=make_conninfo(base.dsn, dbname=name),
                    owner_dsn=make_conninfo(base.owner_dsn, dbname=name),
                    admin_dsn=make_conninfo(base.admin_dsn, dbname=name),
                ),
            )
        finally:
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
            admin.execute(drop.format(sql.Identifier(name)))


def count_in(stored: Stored) -> None:
    """Count words in, as whoever merges does."""
    with psycopg.connect(stored.base.owner_dsn, autocommit=True) as owner:
        while owner.execute("SELECT pgrecall.fold_words()").fetchone() not in ((0,), (None,)):
            pass


def write(stored: Stored, episodes: Iterator[Mapping[str, Any]], count: int) -> Writing:
    """Write so many in bursts, and in between some plainly."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    with stored.client() as memory:
        for _ in range(max(count // (5 * BATCH), 1)):
            for burst, rows in ((False, BATCH // 2), (True, min(5 * BATCH, count))):
                given = list(itertools.islice(episodes, rows))
                start = time.perf_counter()
                for begin in range(0, rows, BATCH):
                    memory.episodes.record_many(given[begin : begin + BATCH], burst=burst)
                rates[burst].append(rows / (time.perf_counter() - start))
            count_in(stored)
    return Writing(rates[False], rates[True])


def write_all(stored: Stored, episodes: Sequence[Mapping[str, Any]], burst: bool) -> None:
    """Write them; in a process of its own, as agents do."""
    with stored.client() as memory:
        for begin in range(0, len(episodes), BATCH):
            memory.episodes.record_many(episodes[begin : begin + BATCH], burst=burst)


def keep_merging(stored: Stored) -> None:
    """Merge for as long as this process lives."""
    from pgrecall.ops.merging import Merge, merge

    merge(stored.base.dsn, Merge(loop=True))


@contextmanager
def beside(target: Any, *arguments: Any) -> Iterator[multiprocessing.process.BaseProcess]:
    """Let a process run meanwhile, and end it."""
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    try:
        yield process
        if process.exitcode:
            raise RuntimeError(f"{target.__name__} failed with {process.exitcode}")
    finally:
        process.kill()
        process.join()


def recalls(
    written: Memory, quiet: Memory, queries: Any, rounds: int,
    during: multiprocessing.process.BaseProcess | None = None,
) -> dict[str, list[float]]:  # fmt: skip
    """Time recalls of the memory that is written to and of its twin, in turns.

    While a process runs, only as long as it does.
    """
    calls = {"written": recalling(written, queries), "quiet": recalling(quiet, queries)}
    if during is None:
        return take_turns(calls, rounds, warm_up=min(rounds, 100))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds):
        for name, call in calls.items():
            taken[name].append(call(i))
        if not during.is_alive() and i > 1:
            break
    return taken


def measures(writing: Writing, timings: Mapping[str, Mapping[str, list[float]]]) -> list[Measure]:
    """Return the table."""
    plain, burst = statistics.median(writing.plain), statistics.median(writing.burst)
    found = [
        Measure(name="rows a second, plain", value=plain, lowest=min(writing.plain),
                highest=max(writing.plain)),
        Measure(name="rows a second, burst", value=burst, lowest=min(writing.burst),
                highest=max(writing.burst)),
        Measure(name="burst / plain", value=burst / plain, target=5.0, least=True),
    ]  # fmt: skip
    for name, taken in timings.items():
        one, other = taken["written"], taken["quiet"]
        found += [
            Measure(name=f"recall p50, {name} / twin",
                    value=statistics.median(one) / statistics.median(other),
                    note=f"{statistics.median(one):.2f} / {statistics.median(other):.2f} ms"),
            Measure(name=f"recall p95, {name} / twin", value=p95(one) / p95(other), target=2.0,
                    note=f"{p95(one):.2f} / {p95(other):.2f} ms"),
        ]  # fmt: skip
    return found


def run(rows: int, burst: int, rounds: int) -> list[Measure]:
    """Fill two memories, write to one, and recall of both."""
    with stage(rows) as place, place.filled(rows) as stored, twin(stored) as other:
        return compare(stored, other, burst, rounds)


def compare(stored: Stored, other: Stored, burst: int, rounds: int) -> list[Measure]:
    """Write to one of two filled memories, and recall of both."""
    timings = {}
    queries = stored.world.vectors(3 * QUERIES // 2, queries=True)
    # As many as come in bursts twice over, and what comes plainly.
    episodes = list(stored.world.episodes(2 * burst + burst // 5 + 1000, start=len(stored.ids)))
    with stored.client() as written, other.client() as quiet:
        timings["nothing recent"] = recalls(written, quiet, queries, rounds)
        with beside(write_all, stored, episodes[-1000:], False) as writer:
            timings["plain writes"] = recalls(written, quiet, queries, 10_000, writer)
        count_in(stored)
        with beside(write_all, stored, episodes[-burst - 1000 : -1000], True) as writer:
            timings["burst under way"] = recalls(written, quiet, queries, 10_000, writer)
        count_in(stored)
        forget(stored)
        writing = write(stored, iter(episodes), burst)
        timings[f"{burst:,} recent"] = recalls(written, quiet, queries, rounds)
        not_found = missed(written, stored)
        with beside(keep_merging, stored) as merger:
            timings["merging"] = recalls(written, quiet, queries, rounds, merger)
        console.print(f"{not_found} of 100 recent rows were not found by their vectors")
    return measures(writing, timings)


def forget(stored: Stored) -> None:
    """Delete what is recent, so that the next part begins with none."""
    with psycopg.connect(stored.base.owner_dsn, autocommit=True) as owner:
        owner.execute("DELETE FROM pgrecall.recent_episodes")
        owner.execute("VACUUM (ANALYZE) pgrecall.recent_episodes, pgrecall.recent_codes")


def missed(memory: Memory, stored: Stored) -> int:
    """Return how many recent rows are not the first hit of their own vectors."""
    with psycopg.connect(stored.base.owner_dsn) as owner:
        rows = owner.execute(
            "SELECT episode_id, embedding::text FROM pgrecall.recent_episodes LIMIT 100"
        ).fetchall()
    wrong = 0
    for id_, vector in rows:
        numbers = np.array(json.loads(vector), dtype=np.float32)
        hits = memory.episodes.recall(embedding=numbers, limit=1, outcome_weight=0)
        wrong += not hits or hits[0].episode.episode_id != id_
    return wrong


def show(found: Sequence[Measure]) -> None:
    table = Table("measure", "value", "target", "note")
    for one in found:
        target = "" if one.target is None else f"{'≥' if one.least else '≤'} {one.target:g}"
        spread = "" if one.lowest is None else f"{one.lowest:,.0f} to {one.highest:,.0f}"
        table.add_row(one.name, f"{one.value:,.2f}", target, one.note or spread)
    console.print(table)


def main() -> None:
    """Measure, and show a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="episodes in the index")
    parser.add_argument("--burst", type=int, default=10_000, help="episodes of the burst")
    parser.add_argument("--rounds", type=int, default=400, help="recalls of each part")
    parser.add_argument("--save", action="store_true", help="keep the result beside the others")
    options = parser.parse_args()
    found = run(options.rows, options.burst, options.rounds)
    show(found)
    if options.save:
        save("bursting", {"rows": options.rows, "burst": options.burst,
                          "measures": [asdict(one) for one in found]})  # fmt: skip
    sys.stdout.flush()


if __name__ == "__main__":
    main()
