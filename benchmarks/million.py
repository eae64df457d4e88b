"""A million episodes on a small machine: loading, indexing, recall beside a tenth of them.

Run it with ``python -m benchmarks.million [--rows N] [--dimensions N] [--storage vector|halfvec]
[--save]``; a million take about an hour and a half on two cores. It starts an embedded server of
its own, loads a tenth of the rows, keeps a copy of that database, loads the rest, and compares the
two in turns. No vector is kept here: the truth of every query is brought up to date as rows go by.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing import get_context
from typing import Any
from uuid import UUID

import numpy as np
import psutil
import psycopg
from numpy.typing import NDArray
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.types.json import Jsonb

from benchmarks.bursting import twin
from benchmarks.comparing import LIMIT, Measure, Part, figures, middle, p95, take_turns, timed
from benchmarks.data import TOPICS_OF_A_PROJECT, World
from benchmarks.measuring import wait_until_quiet
from benchmarks.recall import measure_all
from benchmarks.recall import show as show_measures
from benchmarks.stage import BEGIN, COPY, DIMENSIONS, TYPES, Stage, Stored, stage
from benchmarks.texts import text
from pgrecall.ops.sizing import measure, ways
from pgrecall.ops.sizing.plan import FULL

PROCESSES = 2
QUERIES = 96
OF_A_PROJECT = 32
PROJECTS = (0, 1, 12, 130, 900)
"""Projects with about 13, 6.6, 1, 0.1 and 0.015 % of the episodes."""
WIDTHS = (100, 150, 200, 300, 400, 600, 1000)
ENOUGH = 0.95
"""Of the truth, that recalls among all shall find; the search is as wide as that needs."""
_EMPTY: NDArray[Any] = np.empty(0)
Vectors = NDArray[np.float32]


@dataclass(slots=True)
class Truth:
    """The nearest of the rows that went by, for some queries.

    Attributes:
        queries: What is asked, unit vectors.
        project: Whose rows count; None for all.
        likeness: Of the nearest so far, for each query.
        ids: Their identifiers.
    """

    queries: Vectors
    project: int | None
    likeness: NDArray[np.float32] = field(default_factory=lambda: _EMPTY)
    ids: NDArray[Any] = field(default_factory=lambda: _EMPTY)
    rows: int = 0

    def __post_init__(self) -> None:
        self.likeness = np.full((len(self.queries), LIMIT), -2, dtype=np.float32)
        self.ids = np.zeros((len(self.queries), LIMIT), dtype="S16")

    def see(self, vectors: Vectors, ids: NDArray[Any], projects: NDArray[np.int64]) -> None:
        """Look at some rows."""
        if self.project is not None:
            mine = projects == self.project
            vectors, ids = vectors[mine], ids[mine]
        self.rows += len(ids)
        if len(ids):
            self._merge(
                self.queries @ vectors.T, np.broadcast_to(ids, (len(self.queries), len(ids)))
            )

    def add(self, other: Truth) -> None:
        """Take in what another has seen."""
        self.rows += other.rows
        self._merge(other.likeness, other.ids)

    def _merge(self, likeness: NDArray[np.float32], ids: NDArray[Any]) -> None:
        both = np.concatenate([self.likeness, likeness], axis=1)
        all_ids = np.concatenate([self.ids, ids], axis=1)
        best = np.argpartition(-both, LIMIT - 1, axis=1)[:, :LIMIT]
        self.likeness = np.take_along_axis(both, best, axis=1)
        self.ids = np.take_along_axis(all_ids, best, axis=1)

    def sets(self) -> list[set[UUID]]:
        """Return the truth of each query."""
        return [
            {UUID(bytes=one.ljust(16, b"\0")) for one, near in zip(row, alike, strict=True)
             if near > -2}
            for row, alike in zip(self.ids, self.likeness, strict=True)
        ]  # fmt: skip


def truths(world: World) -> dict[str, Truth]:
    """Return what is to be found: without a filter, and in projects of several sizes."""
    found = {"all": Truth(world.vectors(QUERIES, queries=True), None)}
    for project in PROJECTS:
        asked = [world.queries_of(project, OF_A_PROJECT, own=own) for own in (True, False)]
        found[f"project-{project}"] = Truth(np.concatenate(asked), project)
    return found


def load_chunks(dsn: str, dimensions: int, chunks: Sequence[int], size: int) -> dict[str, Truth]:
    """Load some chunks by COPY, and return the truth among them."""
    world = World(dimensions)
    seen = truths(world)
    known = np.stack([world.topics_of(project) for project in range(1000)])
    with psycopg.connect(dsn, autocommit=True) as owner:
        register_vector(owner)
        for chunk in chunks:
            rng = np.random.default_rng((world.seed, 77, chunk))
            sizes = 1.0 / np.arange(1, 1001)
            projects = rng.choice(1000, size=size, p=sizes / sizes.sum())
            picked = rng.integers(0, TOPICS_OF_A_PROJECT, size)
            vectors = world.about(known[projects, picked], rng)
            ids = [UUID(bytes=rng.bytes(16), version=4) for _ in range(size)]
            raw = np.array([one.bytes for one in ids], dtype="S16")
            for truth in seen.values():
                truth.see(vectors, raw, projects)
            with owner.cursor().copy(COPY) as copy:
                copy.set_types(list(TYPES.values()))
                for row in _rows(chunk * size, ids, projects, vectors, rng):
                    copy.write_row(row)
            while owner.execute("SELECT pgrecall.fold_words()").fetchone() not in ((0,), (None,)):
                pass
    return seen


def _rows(
    first: int, ids: Sequence[UUID], projects: NDArray[np.int64], vectors: Vectors,
    rng: np.random.Generator,
) -> Iterator[tuple[Any, ...]]:  # fmt: skip
    """Give the rows of a chunk, with documents of about 1 KB."""
    for i, id_ in enumerate(ids):
        known = rng.random() < 0.8
        yield (
            id_, f"project-{projects[i]}", BEGIN + timedelta(seconds=first + i),
            Jsonb({"backlog_tasks": int(rng.integers(1, 60)),
                   "notes": text(rng, first + i)}),
            Jsonb({"decision": "create_sprint", "why": "x" * 200}),
            Jsonb({"committed_points": int(rng.integers(5, 60)), "plan": "y" * 150}),
            Jsonb({"done": True}) if known else None, float(rng.random()) if known else None,
            vectors[i], "1.0.0", f"source-{i % 100}", f"sprint-{(first + i) // 100}",
        )  # fmt: skip


class Loading:
    """One database that grows: its truth, and how long everything took."""

    def __init__(self, stored: Stored, storage: str, chunk: int, ef_construction: int) -> None:
        self.stored = stored
        self.ef_construction = ef_construction
        self.chunk = chunk
        self.storage = storage
        self.truth = truths(stored.world)
        self.rows = 0
        self.seconds: dict[str, float] = {}

    def load(self, rows: int) -> None:
        """Load up to so many rows, in several processes, without the vector index."""
        chunks = range(self.rows // self.chunk, rows // self.chunk)
        begun = time.perf_counter()
        with psycopg.connect(self.stored.base.owner_dsn, autocommit=True) as owner:
            owner.execute("DROP INDEX IF EXISTS idx_episodes_embedding")
        dsn, dimensions = self.stored.base.owner_dsn, self.stored.world.dimensions
        with get_context("spawn").Pool(PROCESSES) as pool:
            parts = pool.starmap(
                load_chunks,
                [(dsn, dimensions, chunks[i::PROCESSES], self.chunk) for i in range(PROCESSES)],
            )
        for part in parts:
            for name, truth in part.items():
                self.truth[name].add(truth)
        self._took(f"load {rows - self.rows:,} rows", begun)
        self.rows = rows

    def index(self, room: int) -> None:
        """Build the specification's index, with so many bytes."""
        operators: sql.Composable = sql.SQL("embedding vector_cosine_ops")
        if self.storage == "halfvec":
            operators = sql.SQL("(embedding::halfvec({})) halfvec_cosine_ops").format(
                sql.Literal(self.stored.world.dimensions)
            )
        begun = time.perf_counter()
        with psycopg.connect(self.stored.base.owner_dsn, autocommit=True) as owner:
            owner.execute(
                "SELECT set_config('maintenance_work_mem', %s, false)", [f"{room >> 10}kB"]
            )
            owner.execute("SET max_parallel_maintenance_workers = 2")
            owner.execute(
                sql.SQL("CREATE INDEX idx_episodes_embedding ON agent_episodes USING hnsw ({}) "
                        "WITH (m = 16, ef_construction = {})").format(
                            operators, sql.Literal(self.ef_construction))
            )  # fmt: skip
        self._took(f"index {self.rows:,} rows", begun)
        begun = time.perf_counter()
        with psycopg.connect(self.stored.base.owner_dsn, autocommit=True) as owner:
            owner.execute("VACUUM (ANALYZE) agent_episodes, pgrecall.episode_codes, pgrecall.texts")
        with psycopg.connect(self.stored.base.admin_dsn, autocommit=True) as admin:
            admin.execute("CHECKPOINT")
        self._took(f"vacuum {self.rows:,} rows", begun)

    def _took(self, what: str, begun: float) -> None:
        self.seconds[what] = round(time.perf_counter() - begun, 1)
        print(f"{what}: {self.seconds[what]:,.0f} s", flush=True)


@contextmanager
def recalls(stored: Stored, queries: Vectors, **options: Any) -> Iterator[Any]:
    """Give recalls of queries in turn, which return the identifiers found."""
    with stored.client() as memory:

        def call(i: int) -> set[UUID]:
            hits = memory.episodes.recall(embedding=queries[i % len(queries)], limit=LIMIT,
                                          outcome_weight=0.0, **options)  # fmt: skip
            return {hit.episode.episode_id for hit in hits}

        yield call


def found(call: Any, truth: Sequence[set[UUID]]) -> tuple[float, int]:
    """Return the share of the truth that is found, and how many answers are short."""
    shares, short = [], 0
    for i, right in enumerate(truth):
        got = call(i)
        short += len(got) < len(right)
        shares.append(len(got & right) / len(right) if right else 1.0)
    return sum(shares) / len(shares), short


def curves(
    stored: Mapping[str, Stored], truths_: Mapping[str, Sequence[set[UUID]]], queries: Vectors
) -> dict[str, dict[int, dict[str, float]]]:
    """Return what searches of every width find and take, of several databases in turns.

    A third of the queries is of no topic that episodes are of; what the others find is
    ``known_recall``.
    """
    seen: dict[str, dict[int, dict[str, float]]] = {name: {} for name in stored}
    for width in WIDTHS:
        with ExitStack() as stack:
            calls = {}
            for name, one in stored.items():
                one.search_width(width)
                call = stack.enter_context(recalls(one, queries))
                shares = [len(call(i) & right) / LIMIT for i, right in enumerate(truths_[name])]
                known = [share for i, share in enumerate(shares) if i % 3]
                seen[name][width] = {"recall": statistics.mean(shares),
                                     "known_recall": statistics.mean(known)}  # fmt: skip
                calls[name] = timed(call)
            for name, taken in take_turns(calls, 2 * QUERIES, warm_up=0).items():
                seen[name][width] |= {"p50": statistics.median(taken), "p95": p95(taken)}
    return seen


def narrowest(curve: Mapping[int, Mapping[str, float]], which: str) -> int:
    """Return the least width that finds enough, or the greatest if none does."""
    return next((width for width, one in curve.items() if one[which] >= ENOUGH), max(curve))


def growth(small: Stored, small_truth: Mapping[str, Truth], large: Loading, rounds: int) -> Part:
    """Compare recalls of the tenth and of all, each as wide as finding enough needs."""
    queries = large.truth["all"].queries
    stored = {"tenth": small, "all": large.stored}
    seen = curves(
        stored, {"tenth": small_truth["all"].sets(), "all": large.truth["all"].sets()}, queries
    )
    measures = []
    facts: dict[str, Any] = {"rows": large.rows, "curves": seen}
    known = queries[np.arange(QUERIES) % 3 != 0]
    for what, which, asked in (
        ("", "recall", queries),
        (", queries of topics there are", "known_recall", known),
    ):
        widths = {name: narrowest(curve, which) for name, curve in seen.items()}
        for name, one in stored.items():
            one.search_width(widths[name])
        with recalls(small, asked) as less, recalls(large.stored, asked) as more:
            taken = take_turns({"less": timed(less), "more": timed(more)}, rounds, warm_up=QUERIES)
        note = "; ".join(f"{name}: recall {seen[name][width][which]:.4f} with ef_search {width}"
                         for name, width in widths.items())  # fmt: skip
        measures.append(middle(f"ten times as many: p50{what}", taken["more"], taken["less"], 1.8,
                               note))  # fmt: skip
        facts[which] = {name: figures(times) for name, times in taken.items()}
    return Part(name="grown", measures=measures, facts=facts)


def shares(large: Loading, rounds: int, width: int) -> Part:
    """Measure projects of every size among all, with searches so wide."""
    measures: list[Measure] = []
    large.stored.search_width(width)
    facts: dict[str, Any] = {}
    for name, truth in large.truth.items():
        options = {} if truth.project is None else {"project_id": name}
        with recalls(large.stored, truth.queries, **options) as call:
            recall, short = found(call, truth.sets())
            ask = timed(call)
            taken = [ask(i) for i in range(min(rounds, 400))]
        share = truth.rows / large.rows
        label = f"{share:.2%} of {large.rows:,}"
        measures += [
            Measure(name=f"recall@10, {label}", value=recall, target=ENOUGH, least=True,
                    note=f"{truth.rows:,} rows, ef_search {width}"),
            Measure(name=f"p95 ms, {label}", value=p95(taken), target=100,
                    note=f"p50 {statistics.median(taken):.1f}"),
            Measure(name=f"results short, {label}", value=short, target=0),
        ]  # fmt: skip
        facts[name] = {"rows": truth.rows, "recall": recall, "short": short, **figures(taken)}
    return Part(name="projects", measures=measures, facts=facts)


def writing(large: Loading, seconds: float) -> Part:
    """Recall while a writer records as fast as it can."""
    queries = large.truth["all"].queries
    stop = threading.Event()
    written = [0]
    fresh = large.stored.world.vectors(1024)

    def write() -> None:
        with large.stored.client() as memory:
            while not stop.is_set():
                memory.episodes.record(project_id="written", agent_version="1", reasoning={},
                                       action={}, perception={"n": written[0]},
                                       embedding=fresh[written[0] % 1024])  # fmt: skip
                written[0] += 1

    with recalls(large.stored, queries) as call:
        ask = timed(call)
        alone = [ask(i) for i in range(2 * QUERIES)][QUERIES:]
        writer = threading.Thread(target=write)
        writer.start()
        taken: list[float] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            taken.append(ask(len(taken)))
        stop.set()
        writer.join()
    return Part(
        name="writing",
        measures=[
            Measure(name="recall p95 ms, while one writes", value=p95(taken), target=100,
                    note=f"{p95(alone):.1f} alone; {written[0] / seconds:.0f} records a second"),
        ],
        facts={"alone": figures(alone), "beside": figures(taken), "records": written[0]},
    )  # fmt: skip


def memory_of(large: Loading, way: Any) -> Part:
    """Compare what the server takes with the plan."""
    private = 0
    for one in psutil.process_iter(["name"]):
        with suppress(psutil.NoSuchProcess):  # one that has ended since it was listed takes none
            private += one.memory_full_info().uss if one.info["name"] == "postgres" else 0
    now, _ = measure(large.stored.base.owner_dsn)
    assert now.vector_index_bytes is not None
    touched = now.vector_index_bytes + now.code_index_bytes + now.word_bytes
    return Part(
        name="memory",
        measures=[
            Measure(name="touched bytes / planned", value=touched / way.touched_bytes, target=1.1,
                    note=f"{touched / 2**30:.1f} GiB, planned {way.touched_bytes / 2**30:.1f}"),
            Measure(name="resident bytes of the server / the machine's",
                    value=(private + now.shared_buffers) / psutil.virtual_memory().total,
                    target=FULL, note=f"{private / 2**20:.0f} MiB besides shared_buffers of "
                    f"{now.shared_buffers / 2**30:.1f} GiB"),
        ],
        facts={"private": private, "shared_buffers": now.shared_buffers, "touched": touched,
               "planned": way.touched_bytes, "index": now.vector_index_bytes,
               "table": now.table_bytes, "codes": now.code_bytes, "words": now.word_bytes},
    )  # fmt: skip


def parts(options: argparse.Namespace) -> Iterator[Part]:
    with stage(options.rows, options.dimensions) as ground, empty(ground) as stored:
        grown = Loading(
            stored, options.storage, max(options.rows // 100, 20), options.ef_construction
        )
        grown.load(options.rows // 10)
        plan = planned(grown, options)
        grown.index(plan.build_bytes)
        small_truth = {"all": Truth(grown.truth["all"].queries, None)}
        small_truth["all"].add(grown.truth["all"])
        with twin(stored) as small:
            grown.load(options.rows)
            grown.index(plan.build_bytes)
            waited = wait_until_quiet(options.patience)
            print(f"waited {waited:,.0f} s until the machine was quiet", flush=True)
            yield from measured(small, small_truth, grown, options.rounds)
            yield memory_of(grown, plan)
            yield writing(grown, options.seconds)
        yield Part(name="loading", measures=_loading(grown, plan), facts=grown.seconds)


def measured(
    small: Stored, small_truth: Mapping[str, Truth], large: Loading, rounds: int
) -> Iterator[Part]:
    """Compare both sizes, then projects of every size among all episodes."""
    grown = growth(small, small_truth, large, rounds)
    yield grown
    yield shares(large, rounds, narrowest(grown.facts["curves"]["all"], "recall"))


def planned(grown: Loading, options: argparse.Namespace) -> Any:
    now, sample = measure(grown.stored.base.owner_dsn)
    planned = ways(now, sample, options.rows, now.machine_bytes, psutil.cpu_count() or 1)
    return next(way for way in planned if (way.column, way.index) == ("vector", options.storage))


def _loading(grown: Loading, plan: Any) -> list[Measure]:
    built = grown.seconds[f"index {grown.rows:,} rows"]
    return [
        Measure(name="build of the index, seconds / planned", value=built / plan.build_seconds,
                note=f"{built:,.0f} s, planned {plan.build_seconds:,.0f}"),
    ]  # fmt: skip


@contextmanager
def empty(ground: Stage) -> Iterator[Stored]:
    none = np.empty(0, dtype=np.int64)
    with ground.template.clone() as base:
        yield Stored(base=base, world=World(ground.dimensions), ids=[],
                     vectors=np.empty((0, ground.dimensions), dtype=np.float32), projects=none,
                     sources=none, kinds=none)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60, help="of recalling beside a writer")
    parser.add_argument(
        "--patience",
        type=float,
        default=1800,
        help="seconds to wait at most, before measuring, for a quiet machine",
    )
    parser.add_argument("--dimensions", type=int, default=DIMENSIONS)
    parser.add_argument("--storage", choices=["vector", "halfvec"], default="halfvec",
                        help="what the index holds")  # fmt: skip
    parser.add_argument("--ef-construction", type=int, default=64,
                        help="of the index; the specification's is 64, what doctor proposes for "
                        "many episodes 200")  # fmt: skip
    parser.add_argument("--save", action="store_true", help="write the results beside this file")
    options = parser.parse_args()
    specified = options.ef_construction == 64
    name = "million" if specified else f"million-{options.ef_construction}"
    measures = measure_all(name, parts(options), options)
    show_measures(measures)
    return 0 if all(measure.met is not False for measure in measures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
