"""Unfiltered recalls against what is below them, beside them, and in the same process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from psycopg import sql

from benchmarks.comparing import (
    LIMIT,
    Measure,
    Part,
    figures,
    left_out,
    middle,
    tail,
    take_turns,
    timed,
)
from benchmarks.peers import BURST, Left, Peer, found_by
from benchmarks.stage import Stage, Stored, accuracy, asking, asking_raw, recalling
from pgrecall import Memory

QUERIES = 256
CANDIDATES = 3 * LIMIT
"""Rows that a recall weighs by their outcomes, for each ten that it returns."""


def floor(stored: Stored, rounds: int) -> Part:
    """Compare with the fastest raw statement that returns the same columns, at equal recall."""
    queries = stored.world.vectors(QUERIES, queries=True)
    truth = stored.nearest(queries)
    with stored.client() as memory, stored.raw() as raw:
        plain = {
            "client": recalling(memory, queries),
            "raw": timed(asking_raw(raw, queries)),
        }
        equal = [
            accuracy(ask, truth) for ask in (asking(memory, queries), asking_raw(raw, queries))
        ]
        first = take_turns(plain, rounds, warm_up=QUERIES)
        steady = take_turns(plain, rounds, warm_up=QUERIES, burst=BURST)
        weighed = {
            "client": recalling(memory, queries, outcome_weight=0.15),
            "raw": timed(asking_raw(raw, queries, CANDIDATES)),
        }
        second = take_turns(weighed, rounds, warm_up=QUERIES)
    note = f"recall {equal[0].recall:.4f} and {equal[1].recall:.4f}"
    return Part(
        name="floor",
        measures=[
            middle("recall / raw statement: p50", first["client"], first["raw"], 1.15, note),
            tail("recall / raw statement: p95", first["client"], first["raw"], 1.25),
            middle(f"the same in bursts of {BURST}: p50", steady["client"], steady["raw"]),
            tail(f"the same in bursts of {BURST}: p95", steady["client"], steady["raw"]),
            middle("recall weighing outcomes / raw LIMIT 30: p50", second["client"], second["raw"]),
            tail("recall weighing outcomes / raw LIMIT 30: p95", second["client"], second["raw"]),
        ],
        facts={
            "by similarity": {name: figures(taken) for name, taken in first.items()},
            "in bursts": {name: figures(taken) for name, taken in steady.items()},
            "weighing outcomes": {name: figures(taken) for name, taken in second.items()},
            "recall": {"client": equal[0].recall, "raw": equal[1].recall},
        },
    )


@contextmanager
def pooling(stage: Stage) -> Iterator[Pooling | None]:
    """Start PgBouncer, as ``pgrecall pooler config`` sets it up, for databases made afterwards.

    None where it is not installed.
    """
    from tests import pgbouncer  # it brings pytest along

    if pgbouncer.PROGRAM is None:
        yield None
        return
    template = stage.template
    with pgbouncer.public_directory() as folder:
        report = pgbouncer.generate(template.admin_dsn, template.settings, folder)
        pgbouncer.add_fallback(report.configuration, template.admin_dsn)
        with pgbouncer.running(report.configuration) as running:
            yield Pooling(running.through)


@dataclass(frozen=True, slots=True)
class Pooling:
    """A PgBouncer that runs; ``through`` leads a connection string through it."""

    through: Callable[[str], str]


def pooled(stage: Stage, stored: Stored, rounds: int, pooling: Pooling | None) -> Part:
    """Compare recalls through PgBouncer with direct ones."""
    name = "through PgBouncer / direct: p50"
    if pooling is None:
        return Part(name="pooler", measures=[left_out(name, "PgBouncer is not installed")])
    queries = stored.world.vectors(QUERIES, queries=True)
    with psycopg.connect(stage.template.admin_dsn, autocommit=True) as admin:
        admin.execute(
            sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(
                sql.Identifier(stored.base.name), sql.Identifier(f"{stage.template.name}_pooler")
            )
        )
    pooled_dsn = pooling.through(stored.base.dsn)
    with (
        Memory.open(pooled_dsn, embedder="none", settings=stored.base.settings) as through,
        stored.client() as direct,
    ):
        calls = {"pooled": recalling(through, queries), "direct": recalling(direct, queries)}
        taken = take_turns(calls, rounds, warm_up=QUERIES)
    return Part(
        name="pooler",
        measures=[middle(name, taken["pooled"], taken["direct"], 1.3)],
        facts={which: figures(values) for which, values in taken.items()},
    )


def growth(stage: Stage, stored: Stored, rounds: int) -> Part:
    """Compare the full database with ones of a hundredth and a tenth of its episodes."""
    rows = len(stored.ids)
    measures: list[Measure] = []
    facts: dict[str, Any] = {}
    for weight, label in ((0.0, ""), (0.15, ", weighing outcomes")):
        for size in (max(20, rows // 100), max(20, rows // 10)):
            with stage.filled(size) as small:
                queries = stored.world.vectors(QUERIES, queries=True)
                with small.client() as less, stored.client() as more:
                    calls = {
                        "less": recalling(less, queries, outcome_weight=weight),
                        "more": recalling(more, queries, outcome_weight=weight),
                    }
                    taken = take_turns(calls, rounds, warm_up=QUERIES)
            goal = size == max(20, rows // 100) and not weight
            measures.append(
                middle(f"{size:,} → {rows:,} episodes{label}: p50", taken["more"], taken["less"],
                       2.2 if goal else None)
            )  # fmt: skip
            if not weight:
                facts[str(size)] = figures(taken["less"])
                facts[str(rows)] = figures(taken["more"])
    return Part(name="growth", measures=measures, facts=facts)


def in_process(stored: Stored, rounds: int, python: Path, folder: Path) -> Part:
    """Compare with faiss, an HNSW index in the memory of the process that asks."""
    name = "recall / faiss HNSW in process: p50"
    queries = stored.world.vectors(QUERIES, queries=True)
    truth = stored.nearest(queries)
    place = folder / "faiss"
    place.mkdir()
    np.save(place / "vectors.npy", stored.vectors)
    np.save(place / "queries.npy", queries)
    try:
        with Peer(python, "faiss", place) as peer, stored.client() as memory:
            ours = accuracy(asking(memory, queries), truth)
            for width in (10, 16, 24, 32, 48, 64, 80, 100, 120, 150, 200, 300, 400):
                peer.ask("width", ef=width)
                theirs = found_by(peer, stored.ids, truth)
                if theirs.recall >= ours.recall:
                    break
            taken = take_turns(
                {"ours": recalling(memory, queries), "faiss": peer.recall},
                rounds, warm_up=QUERIES, burst=BURST,
            )  # fmt: skip
    except Left as reason:
        return Part(name="faiss", measures=[left_out(name, str(reason))])
    finally:
        for file in place.iterdir():
            file.unlink()
    note = f"recall {ours.recall:.4f} and {theirs.recall:.4f} at efSearch {width}"
    return Part(
        name="faiss",
        measures=[middle(name, taken["ours"], taken["faiss"], 5.5, note)],
        facts={
            "ours": {**figures(taken["ours"]), "recall": ours.recall},
            "faiss": {**figures(taken["faiss"]), "recall": theirs.recall, "efSearch": width},
        },
    )
