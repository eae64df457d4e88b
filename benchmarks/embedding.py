"""What managed embeddings cost: a worker beside its embedder, recording later, filling a column.

Run it with ``python -m benchmarks.embedding [--texts N] [--rounds N] [--save]``. It starts an
embedded server of its own, and uses the builtin embedder. The worker takes texts from the queue and
stores their vectors, beside a vector index; alone, the embedder makes vectors of the same texts in
batches of the same size. They take turns. How a second column of vectors is filled is seen where
vectors are copied into another storage, as no embedder's time is in it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import psycopg

from benchmarks.comparing import Measure, Part, figures, middle, take_turns, timed
from benchmarks.planted import LENGTH, language
from benchmarks.recall import measure_all
from benchmarks.recall import show as show_measures
from benchmarks.stage import stage
from pgrecall import Memory
from pgrecall.core.text import render_episode
from pgrecall.embedding import get_embedder
from pgrecall.ops.embeddings import Backfill, Switch, backfill
from pgrecall.ops.embeddings.worker import BATCH
from pgrecall.testing import Database

DIMENSIONS = 384


def working(base: Database, texts: int, rounds: int) -> Part:
    """Compare a worker with its embedder alone."""
    embedder = get_embedder("builtin")
    speech = language().texts(texts * rounds, LENGTH, np.random.default_rng(3))
    rates: dict[str, list[float]] = {"worker": [], "embedder": []}
    with _client(base) as memory:
        for number in range(rounds):
            said = speech[number * texts : (number + 1) * texts]
            memory.episodes.record_many(
                [{"project_id": "p", "agent_version": "1", "perception": {"text": text},
                  "reasoning": {}, "action": {}} for text in said],
                embed="later",
            )  # fmt: skip
            rendered = [render_episode({"text": text}, {}, {}) for text in said]

            def alone(rendered: list[str] = rendered) -> int:
                for start in range(0, texts, BATCH):
                    embedder.embed(rendered[start : start + BATCH])
                return texts

            def work() -> int:
                return backfill(base.dsn, Backfill(settings=base.settings)).stored

            turns = [("worker", work), ("embedder", alone)]
            for name, call in turns if number % 2 else reversed(turns):
                begun = time.perf_counter()
                done = call()
                rates[name].append(done / (time.perf_counter() - begun))
    shares = [w / e for w, e in zip(rates["worker"], rates["embedder"], strict=True)]
    return Part(
        name="working",
        measures=[
            Measure(name="rate of a worker / of its embedder alone", value=float(np.median(shares)),
                    lowest=min(shares), highest=max(shares), target=0.9, least=True,
                    note=f"{np.median(rates['worker']):.1f} texts a second"),
        ],
        facts=rates,
    )  # fmt: skip


def recording(base: Database, rounds: int) -> Part:
    """Compare recording later, now, and with the vector given."""
    rng = np.random.default_rng(4)
    texts = language().texts(rounds, LENGTH, rng)
    with _client(base) as one, _client(base) as two, _client(base) as three:

        def record(memory: Memory, options: Any, i: int) -> object:
            return memory.episodes.record(
                project_id="p", agent_version="1", reasoning={}, action={"done": i},
                perception={"text": texts[i % rounds]}, **options(),
            )  # fmt: skip

        calls = {
            "later": timed(partial(record, one, lambda: {"embed": "later"})),
            "now": timed(partial(record, two, dict)),
            "given": timed(partial(record, three, lambda: {"embedding": rng.normal(size=384)})),
        }
        taken = take_turns(calls, rounds, warm_up=min(rounds, 20))
    return Part(
        name="recording",
        measures=[
            middle("record later / now", taken["later"], taken["now"]),
            middle("record later / with the vector given", taken["later"], taken["given"]),
        ],
        facts={name: figures(times) for name, times in taken.items()},
    )


def filling(base: Database) -> Part:
    """Copy all vectors into half precision, and see how many rows stayed in their page."""
    said: list[tuple[float, str]] = []
    switch = Switch(dsn=base.owner_dsn, settings=base.settings,
                    say=lambda step: said.append((time.perf_counter(), step)))  # fmt: skip
    before = _updates(base)
    compared = switch.prepare(storage="halfvec", queries=100).comparison
    hot, changed, rows = (now - then for now, then in zip(_updates(base), before, strict=True))
    begun, queued, filled = (
        next(at for at, step in said if part in step) for part in ("beginning", "rows to", "copied")
    )
    assert compared is not None
    switch.abort()
    return Part(
        name="filling",
        measures=[
            Measure(name="rows that stayed in their page while a column was filled",
                    value=hot / changed, lowest=hot / changed, highest=hot / changed,
                    note=f"{changed:,} rows, {changed / (filled - queued):,.0f} a second"),
        ],
        facts={"updates": changed, "hot": hot, "table_growth": rows,
               "queue_seconds": queued - begun, "fill_seconds": filled - queued,
               "recall_of_halves": compared.recall, "overlap_with_wholes": compared.overlap},
    )  # fmt: skip


def _updates(base: Database) -> tuple[int, int, int]:
    """Return updates of episodes within their page, all updates, and bytes of the table."""
    with psycopg.connect(base.admin_dsn) as connection:
        row = connection.execute(
            "SELECT n_tup_hot_upd, n_tup_upd, pg_relation_size(relid) "
            "FROM pg_stat_user_tables WHERE relid = 'agent_episodes'::regclass"
        ).fetchone()
    assert row is not None
    return row


def _client(base: Database) -> Memory:
    return Memory.open(base.dsn, embedder="builtin", settings=base.settings)


def parts(options: argparse.Namespace) -> Iterator[Part]:
    with stage(options.rows, DIMENSIONS) as ground, ground.template.clone() as base:
        with psycopg.connect(base.owner_dsn, autocommit=True) as owner:
            owner.execute(
                "INSERT INTO agent_episodes (project_id, agent_version, perception, reasoning, "
                "action, embedding) SELECT 'q', '1', '{}', '{}', '{}', "
                "ARRAY(SELECT random() - 0.5 + i * 0 FROM generate_series(1, 384))::vector "
                "FROM generate_series(1, %s) AS i",
                [options.rows],
            )
        yield filling(base)
        yield working(base, options.texts, options.rounds)
        yield recording(base, options.texts)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000, help="with vectors, beforehand")
    parser.add_argument("--texts", type=int, default=256, help="in each round")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--save", action="store_true", help="write the results beside this file")
    options = parser.parse_args()
    options.dimensions = DIMENSIONS
    measures = measure_all("embedding", parts(options), options)
    show_measures(measures)
    return 0 if all(measure.met is not False for measure in measures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
