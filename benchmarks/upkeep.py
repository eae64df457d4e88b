"""What rows that change cost: outcomes, the bloat they leave, and a day of it in miniature.

Run it with ``python -m benchmarks.upkeep [--rows N] [--rounds N] [--seconds N] [--save]``. It
starts an embedded server of its own. ``--seconds`` is for how long writers, outcomes and deletes
go on at once.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg

from benchmarks.comparing import Measure, Part, figures, middle, p95, take_turns, timed
from benchmarks.recall import measure_all
from benchmarks.recall import show as show_measures
from benchmarks.stage import DIMENSIONS, Stored, accuracy, asking, stage
from pgrecall.sql import load

QUERIES = 200
IN_A_BLOCK = 50
"""Updates in one transaction, with the index or without it."""
CHANGED_AGAIN = 5
"""How often the outcome of each of some rows is changed."""
OUTCOME = {"done": True, "note": "as planned"}


def outcomes(stored: Stored, rounds: int) -> Part:
    """Compare ``record_outcome`` with the same raw statement, and tell the vector index's share."""
    texts = load("episodes")
    text = texts["record_outcome"].replace("/* filters */", "")
    text = text.replace("/* include: columns */", texts["columns"])
    order = np.random.default_rng(7).permutation(len(stored.ids))
    half = len(order) // 2
    document = json.dumps(OUTCOME)
    with stored.client() as memory, stored.raw() as raw:

        def by_raw(i: int) -> object:
            values = {"outcome": document, "quality": 0.5,
                      "episode_id": stored.ids[order[half + i % half]]}  # fmt: skip
            return raw.execute(text.encode(), values, binary=True).fetchone()

        def by_client(i: int) -> object:
            return memory.episodes.record_outcome(stored.ids[order[i % half]], OUTCOME, 0.5)

        taken = take_turns(
            {"client": timed(by_client), "raw": timed(by_raw)}, rounds, warm_up=min(rounds, 100)
        )
    blocks = _blocks(stored, max(rounds // IN_A_BLOCK, 4))
    shares = [1 - without / with_ for with_, without in zip(*blocks.values(), strict=True)]
    return Part(
        name="outcomes",
        measures=[
            middle("record_outcome / raw UPDATE: p50", taken["client"], taken["raw"], 1.1),
            Measure(name="the vector index's share of an outcome",
                    value=statistics.median(shares), lowest=min(shares), highest=max(shares),
                    note=f"{statistics.median(blocks['with']):.2f} ms a row, "
                    f"{statistics.median(blocks['without']):.2f} without it, commits left out"),
        ],
        facts={**{name: figures(times) for name, times in taken.items()}, "blocks": blocks},
    )  # fmt: skip


def _blocks(stored: Stored, count: int) -> dict[str, list[float]]:
    """Change outcomes in transactions that are rolled back, with the vector index and without."""
    taken: dict[str, list[float]] = {"with": [], "without": []}
    chance = random.Random(8)
    with psycopg.connect(stored.base.owner_dsn) as owner:
        for number in range(2 * count):
            name = ("with", "without")[number % 2]
            some = chance.sample(range(len(stored.ids)), min(IN_A_BLOCK, len(stored.ids)))
            if name == "without":
                owner.execute("DROP INDEX idx_episodes_embedding")
            begun = time.perf_counter()
            for i in some:
                owner.execute("UPDATE agent_episodes SET outcome = '{}', outcome_quality = 0.4, "
                              "outcome_recorded_at = now() WHERE episode_id = %s",
                              [stored.ids[i]], prepare=True)  # fmt: skip
            taken[name].append((time.perf_counter() - begun) * 1000 / len(some))
            owner.rollback()
    return taken


def bloat(stored: Stored) -> Part:
    """Change the outcome of a tenth of the rows again and again; vacuum in between."""
    tenth = stored.ids[: max(len(stored.ids) // 10, 1)]
    sizes = [_sizes(stored)]
    with psycopg.connect(stored.base.owner_dsn, autocommit=True) as owner:
        for number in range(CHANGED_AGAIN):
            owner.execute(
                "UPDATE agent_episodes SET outcome_quality = %s WHERE episode_id = ANY(%s)",
                [number / 10, list(tenth)],
            )
            owner.execute("VACUUM agent_episodes")
            sizes.append(_sizes(stored))
    names = ("vector index", "table", "other indexes")
    return Part(
        name="bloat",
        measures=[
            Measure(name=f"size after {CHANGED_AGAIN} changes of a tenth: {name}",
                    value=sizes[-1][i] / sizes[0][i], target=1.15)
            for i, name in enumerate(names)
        ],
        facts={name: [size[i] for size in sizes] for i, name in enumerate(names)},
    )  # fmt: skip


def _sizes(stored: Stored) -> tuple[int, int, int]:
    with psycopg.connect(stored.base.owner_dsn) as owner:
        row = owner.execute(
            "SELECT pg_relation_size('idx_episodes_embedding'), pg_table_size('agent_episodes'), "
            "pg_indexes_size('agent_episodes') - pg_relation_size('idx_episodes_embedding')"
        ).fetchone()
    assert row is not None
    return row


def churn(stored: Stored, seconds: float) -> Part:
    """Write, tell outcomes and delete for a while, as many as come; compare before and after."""
    queries = stored.world.vectors(QUERIES, queries=True)
    before, sizes = _state(stored, queries), _sizes(stored)
    done = _change(stored, seconds)
    with psycopg.connect(stored.base.owner_dsn, autocommit=True) as owner:
        owner.execute("VACUUM agent_episodes")
    after, grown = _state(stored, queries), _sizes(stored)
    note = ", ".join(f"{count:,} {name}" for name, count in done.items())
    changed = sum(done.values()) / len(stored.ids)
    return Part(
        name="churn",
        measures=[
            Measure(name="recall after churn / before", value=after["recall"] / before["recall"],
                    target=0.9, least=True, note=f"{note}; {changed:.0%} of the rows"),
            Measure(name="recall p95 after churn / before", value=after["p95"] / before["p95"],
                    target=1.1, note=f"{before['p95']:.1f} ms before"),
            Measure(name="vector index after churn / before", value=grown[0] / sizes[0],
                    target=1.0 + changed),
            Measure(name="table after churn / before", value=grown[1] / sizes[1],
                    target=1.1 + changed),
        ],
        facts={"before": before, "after": after, "done": done, "sizes": [sizes, grown],
               "seconds": seconds},
    )  # fmt: skip


def _state(stored: Stored, queries: Any) -> dict[str, float]:
    """Return recall against the truth as it is now, and the times of recalls."""
    with stored.client() as memory, psycopg.connect(stored.base.owner_dsn) as owner:
        owner.execute("SET enable_indexscan = off")
        truth = [
            {row[0] for row in owner.execute(
                "SELECT episode_id FROM agent_episodes ORDER BY embedding <=> %s::vector LIMIT 10",
                [str(list(map(float, query)))],
            )}
            for query in queries[:50]
        ]  # fmt: skip
        found = accuracy(asking(memory, queries[:50]), truth)
        ask = timed(asking(memory, queries))
        taken = [ask(i) for i in range(2 * QUERIES)][QUERIES:]
    return {"recall": found.recall, "p50": statistics.median(taken), "p95": p95(taken)}


def _change(stored: Stored, seconds: float) -> dict[str, int]:
    """Let a writer, outcomes and deletes go on at once; as much is deleted as is written."""
    stop = time.monotonic() + seconds
    done = {"records": 0, "outcomes": 0, "deletes": 0}
    made: list[Any] = []
    lock = threading.Lock()
    fresh = stored.world.vectors(4096)

    def repeat(name: str, call: Callable[[Any, random.Random], int]) -> None:
        chance = random.Random(name)
        with stored.client() as memory:
            while time.monotonic() < stop:
                done[name] += call(memory, chance)

    def record(memory: Any, chance: random.Random) -> int:
        episode = memory.episodes.record(
            project_id="churn", agent_version="1", perception={"n": done["records"]}, reasoning={},
            action={}, embedding=fresh[chance.randrange(len(fresh))],
        )  # fmt: skip
        with lock:
            made.append(episode.episode_id)
        return 1

    def tell(memory: Any, chance: random.Random) -> int:
        ids = stored.ids
        memory.episodes.record_outcome(ids[chance.randrange(len(ids) // 2, len(ids))],
                                       OUTCOME, chance.random())  # fmt: skip
        return 1

    def delete(memory: Any, chance: random.Random) -> int:
        with lock:
            some = made.pop(chance.randrange(len(made))) if len(made) > 1 else None
        if some is None:
            time.sleep(0.01)
            return 0
        return int(memory.episodes.delete(some))

    with ThreadPoolExecutor(3) as pool:
        for work in [
            pool.submit(repeat, "records", record),
            pool.submit(repeat, "outcomes", tell),
            pool.submit(repeat, "deletes", delete),
        ]:
            work.result()
    return done


def parts(options: argparse.Namespace) -> Iterator[Part]:
    with stage(options.rows, options.dimensions) as ground:
        with ground.filled(options.rows) as stored:
            yield outcomes(stored, options.rounds)
            yield bloat(stored)
        with ground.filled(options.rows) as stored:
            yield churn(stored, options.seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--dimensions", type=int, default=DIMENSIONS)
    parser.add_argument("--save", action="store_true", help="write the results beside this file")
    options = parser.parse_args()
    measures = measure_all("upkeep", parts(options), options)
    show_measures(measures)
    return 0 if all(measure.met is not False for measure in measures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
