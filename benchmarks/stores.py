"""LangGraph's store here and as its authors keep it in PostgreSQL: what each finds and takes.

Run it with ``python -m benchmarks.stores [--rows N] [--rounds N] [--save]``. Both lie on one server
and hold the same items, in namespaces of very different sizes; vectors are given, so no embedder is
measured. Calls take turns.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from langgraph.store.base import BaseStore, IndexConfig, PutOp, SearchItem
from langgraph.store.postgres import PostgresStore
from numpy.typing import NDArray

from benchmarks.comparing import LIMIT, Measure, Part, figures, middle, take_turns, timed
from benchmarks.data import World
from benchmarks.peers import new_database
from benchmarks.recall import measure_all, show
from benchmarks.stage import Stage, stage
from pgrecall import Memory
from pgrecall.integrations.langgraph import PgrecallStore

DIMENSIONS = 384
SIZES = (100, 1_000, 10_000)
"""Items of the namespaces that are searched; the rest lies in others, a hundred in each."""
QUERIES = 100
BATCH = 500


class Vectors:
    """Embeds a text that is the number of a vector."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self.vectors = vectors

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        return [self.vectors[int(text)].tolist() for text in texts]


def namespaces(rows: int) -> list[tuple[str, ...]]:
    """Return the namespace of each item."""
    named: list[tuple[str, ...]] = [("users", f"of-{size}") for size in SIZES for _ in range(size)]
    return named + [("users", f"other-{i // 100}") for i in range(rows - len(named))]


def fill(store: BaseStore, places: Sequence[tuple[str, ...]]) -> None:
    for begin in range(0, len(places), BATCH):
        store.batch([
            PutOp(place, str(number), {"text": str(number), "note": "x" * 200})
            for number, place in enumerate(places[begin : begin + BATCH], start=begin)
        ])  # fmt: skip


def truth(
    vectors: NDArray[np.float32], rows: int, places: Sequence[tuple[str, ...]]
) -> Mapping[str, list[set[str]]]:
    """Return the keys nearest to each query, by namespace."""
    queries = vectors[rows : rows + QUERIES]
    found = {}
    for size in SIZES:
        own = [i for i, place in enumerate(places) if place[1] == f"of-{size}"]
        alike = queries @ vectors[own].T
        best = np.argsort(-alike, axis=1)[:, :LIMIT]
        found[f"of-{size}"] = [{str(own[i]) for i in row} for row in best]
    return found


def compare(stores: Mapping[str, BaseStore], vectors: NDArray[np.float32], rows: int,
            rounds: int) -> Iterator[Part]:  # fmt: skip
    places = namespaces(rows)
    for store in stores.values():
        fill(store, places)
    right = truth(vectors, rows, places)
    for size in SIZES:
        where = ("users", f"of-{size}")
        calls = {name: partial(_search, store, where, rows) for name, store in stores.items()}
        found = {
            name: statistics.mean(
                len({item.key for item in call(i)} & right[where[1]][i]) / LIMIT
                for i in range(QUERIES)
            )
            for name, call in calls.items()
        }
        taken = take_turns({n: timed(c) for n, c in calls.items()}, rounds, warm_up=20)
        yield Part(
            name=f"search-{size}",
            measures=[
                Measure(name=f"recall@10 in a namespace of {size:,}", value=found["ours"],
                        target=0.99, least=True, note=f"theirs: {found['theirs']:.3f}"),
                middle(f"search in a namespace of {size:,}, ours / theirs: p50", taken["ours"],
                       taken["theirs"], note=f"{statistics.median(taken['ours']):.2f} ms"),
            ],
            facts={name: {"recall": found[name], **figures(taken[name])} for name in stores},
        )  # fmt: skip
    yield _single(stores, rows, rounds)


def _search(store: BaseStore, where: tuple[str, ...], rows: int, i: int) -> list[SearchItem]:
    return store.search(where, query=str(rows + i % QUERIES), limit=LIMIT)


def _single(stores: Mapping[str, BaseStore], rows: int, rounds: int) -> Part:
    """Compare what one item takes."""
    where = ("users", "written")
    taken = {
        what: take_turns({name: timed(call) for name, call in calls.items()}, rounds, warm_up=20)
        for what, calls in (
            ("put", {name: (lambda i, store=store: store.put(
                where, str(i), {"text": str(i % rows), "note": "x" * 200}))
                     for name, store in stores.items()}),
            ("get", {name: (lambda i, store=store: store.get(where, str(i % rounds)))
                     for name, store in stores.items()}),
        )
    }  # fmt: skip
    return Part(
        name="single",
        measures=[
            middle(f"{what}, ours / theirs: p50", times["ours"], times["theirs"],
                   note=f"{statistics.median(times['ours']):.2f} ms")
            for what, times in taken.items()
        ],
        facts={what: {name: figures(some) for name, some in times.items()}
               for what, times in taken.items()},
    )  # fmt: skip


def opened(ground: Stage, rows: int, rounds: int) -> Iterator[Part]:
    vectors = World(DIMENSIONS).vectors(rows + QUERIES)
    index: IndexConfig = {"dims": DIMENSIONS, "embed": Vectors(vectors), "fields": ["text"]}
    theirs = new_database(ground, "LangGraph")
    with (
        ground.template.clone() as base,
        Memory.open(base.dsn, embedder="none", settings=base.settings) as memory,
        PostgresStore.from_conn_string(theirs, index=index, pool_config={"max_size": 4}) as store,  # type: ignore[arg-type]
    ):
        store.setup()
        ours = PgrecallStore(memory.project("stores"), index=index)
        yield from compare({"ours": ours, "theirs": store}, vectors, rows, rounds)


def parts(options: argparse.Namespace) -> Iterator[Part]:
    with stage(options.rows, DIMENSIONS) as ground:
        yield from opened(ground, options.rows, options.rounds)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--save", action="store_true", help="write the results beside this file")
    options: Any = parser.parse_args()
    options.dimensions = DIMENSIONS
    measures = measure_all("stores", parts(options), options)
    show(measures)
    return 0 if all(measure.met is not False for measure in measures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
