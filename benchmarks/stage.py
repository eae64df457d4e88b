"""A server with databases full of episodes, all of it in memory, and the exact truth about them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psutil
import psycopg
from numpy.typing import NDArray
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.json import Jsonb, set_json_loads

from benchmarks.comparing import LIMIT, Call, timed
from benchmarks.data import World
from pgrecall import Memory
from pgrecall.core.documents import from_json
from pgrecall.engine import EmbeddedServer
from pgrecall.sql import load
from pgrecall.testing import Database, Template, provisioned_template

DIMENSIONS = 1536
SPECIFIED, PROPOSED = 64, 200
"""``ef_construction`` of the specification's index, and of the one proposed for many episodes."""

SMALL = 3000
"""Episodes that fit into little memory."""

KINDS = 100
"""Sources of decisions, and kinds of perceptions: each is that of one in a hundred episodes."""

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
RAW_SETTINGS = {
    "plan_cache_mode": "force_custom_plan",
    "enable_seqscan": "off",
    "hnsw.ef_search": "100",
    "hnsw.iterative_scan": "off",
}
TYPES = {
    "episode_id": "uuid", "project_id": "varchar", "timestamp": "timestamptz",
    "perception": "jsonb", "reasoning": "jsonb", "action": "jsonb", "outcome": "jsonb",
    "outcome_quality": "float8", "embedding": "vector", "agent_version": "varchar",
    "decision_source": "varchar", "sprint_id": "varchar",
}  # fmt: skip
COPY = sql.SQL("COPY agent_episodes ({}) FROM STDIN (FORMAT BINARY)").format(
    sql.SQL(", ").join(map(sql.Identifier, TYPES))
)
_RAW_RECALL = sql.SQL(
    "SELECT {columns}, 1 - (e.embedding <=> %(query)b) AS similarity FROM agent_episodes AS e "
    "ORDER BY e.embedding <=> %(query)b LIMIT {limit}"
)
_INDEX = sql.SQL(
    "CREATE INDEX idx_episodes_embedding ON agent_episodes USING hnsw "
    "(embedding vector_cosine_ops) WITH (m = 16, ef_construction = {})"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A database and what is in it, row by row."""

    base: Database
    world: World
    vectors: NDArray[np.float32]
    projects: NDArray[np.int64]
    sources: NDArray[np.int64]
    kinds: NDArray[np.int64]
    ids: Sequence[UUID]

    def nearest(
        self, queries: NDArray[np.float32], rows: NDArray[np.bool_] | None = None
    ) -> list[set[UUID]]:
        """Return the truth: the nearest of the rows for each query, measured one by one."""
        which = np.arange(len(self.ids)) if rows is None else np.flatnonzero(rows)
        count = min(LIMIT, len(which))
        if not count:
            return [set() for _ in queries]
        likeness = queries @ self.vectors[which].T
        best = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
        return [{self.ids[which[j]] for j in row} for row in best]

    def client(self) -> Memory:
        """Open a client as an application would, metrics on."""
        return Memory.open(self.base.dsn, embedder="none", settings=self.base.settings)

    def search_width(self, rows: int) -> None:
        """Let the client's role keep so many rows while the index is searched."""
        role = conninfo_to_dict(self.base.dsn)["user"]
        with psycopg.connect(self.base.admin_dsn, autocommit=True) as admin:
            admin.execute("SELECT '[1]'::vector")  # loads the library, whose setting it is
            admin.execute(
                f'ALTER ROLE "{role}" IN DATABASE "{self.base.name}" '
                f"SET hnsw.ef_search = {rows}".encode()
            )

    def raw(self) -> psycopg.Connection[Any]:
        """Return the fastest connection there is, with the settings of the fastest search."""
        connection = psycopg.connect(self.base.dsn, autocommit=True, prepare_threshold=0)
        register_vector(connection)
        set_json_loads(from_json, connection)
        for name, value in RAW_SETTINGS.items():
            connection.execute("SELECT set_config(%s, %s, false)", [name, value])
        return connection


@dataclass(frozen=True, slots=True)
class Stage:
    """A server of the benchmark's own."""

    template: Template
    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def filled(self, rows: int) -> Iterator[Stored]:
        """Give a database with so many episodes, with the specification's index."""
        world = World(self.dimensions)
        projects = world.projects(rows)
        rng = np.random.default_rng(5)
        with self.template.clone() as base:
            stored = Stored(
                base=base,
                world=world,
                vectors=world.of_projects(projects),
                projects=projects,
                sources=rng.integers(0, KINDS, rows),
                kinds=rng.integers(0, KINDS, rows),
                ids=[UUID(bytes=rng.bytes(16), version=4) for _ in range(rows)],
            )
            self._copy(stored)
            self.build(stored, SPECIFIED)
            yield stored

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""
        with psycopg.connect(self.template.admin_dsn, dbname=self.template.name) as connection:
            row = connection.execute(
                "SELECT atttypmod FROM pg_attribute "
                "WHERE attrelid = 'agent_episodes'::regclass AND attname = 'embedding'"
            ).fetchone()
        return int(row[0]) if row else 0

    def _copy(self, stored: Stored) -> None:
        """Load without the index on vectors, as an import would."""
        start = time.perf_counter()
        with psycopg.connect(stored.base.owner_dsn, autocommit=True) as owner:
            register_vector(owner)
            owner.execute("DROP INDEX IF EXISTS idx_episodes_embedding")
            with owner.cursor().copy(COPY) as copy:
                copy.set_types(list(TYPES.values()))
                for row in _rows(stored):
                    copy.write_row(row)
        self.seconds[f"copy of {len(stored.ids)}"] = round(time.perf_counter() - start, 1)

    def build(self, stored: Stored, ef_construction: int) -> float:
        """Build the index on vectors anew, settle everything, and return the build's seconds."""
        rows = len(stored.ids)
        with psycopg.connect(stored.base.owner_dsn, autocommit=True) as owner:
            owner.execute("SELECT set_config('maintenance_work_mem', %s, false)", [room(rows, 3)])
            owner.execute("SET max_parallel_maintenance_workers = 2")
            owner.execute("DROP INDEX IF EXISTS idx_episodes_embedding")
            start = time.perf_counter()
            owner.execute(_INDEX.format(sql.Literal(ef_construction)))
            seconds = time.perf_counter() - start
            owner.execute("VACUUM (ANALYZE) agent_episodes, pgrecall.episode_codes")
        with psycopg.connect(stored.base.admin_dsn, autocommit=True) as admin:
            admin.execute("CHECKPOINT")
        self.seconds[f"index on {rows}, ef_construction {ef_construction}"] = round(seconds, 1)
        return seconds


def room(rows: int, gigabytes: int) -> str:
    """Return how much memory to give so many episodes, up to a quarter of the machine's."""
    if rows <= SMALL:
        return "512MB"
    quarter = psutil.virtual_memory().total // 4
    return f"{min(gigabytes << 30, quarter) >> 20}MB"


@contextmanager
def stage(rows: int, dimensions: int = DIMENSIONS) -> Iterator[Stage]:
    """Give a server that keeps so many episodes in memory."""
    with tempfile.TemporaryDirectory(prefix="pgrecall-bench-") as directory:
        Path(directory).chmod(0o755)
        server = EmbeddedServer(Path(directory) / "server")
        server.start()
        try:
            with psycopg.connect(server.admin_dsn(), autocommit=True) as admin:
                for name, value in (("shared_buffers", room(rows, 4)), ("max_wal_size", "8GB")):
                    admin.execute(
                        sql.SQL("ALTER SYSTEM SET {} = {}").format(
                            sql.Identifier(name), sql.Literal(value)
                        )
                    )
            server.stop(force=True)
            server.start()
            with provisioned_template(
                server.admin_dsn(), Path(directory) / "config", dimensions
            ) as template:
                yield Stage(template, Path(directory))
        finally:
            server.destroy(force=True)


def _rows(stored: Stored) -> Iterator[tuple[Any, ...]]:
    """Give the rows of the table, with documents of about 1 KB."""
    rng = np.random.default_rng(6)
    for i, vector in enumerate(stored.vectors):
        known = rng.random() < 0.8
        perception = {
            "backlog_tasks": int(rng.integers(1, 60)),
            "team_size": int(rng.integers(2, 12)),
            "kind": f"kind-{stored.kinds[i]}",
            "notes": " ".join(f"word{int(word)}" for word in rng.integers(0, 999, 60)),
        }
        yield (
            stored.ids[i], f"project-{stored.projects[i]}", BEGIN + timedelta(minutes=i),
            Jsonb(perception), Jsonb({"decision": "create_sprint", "why": "x" * 200}),
            Jsonb({"committed_points": int(rng.integers(5, 60)), "plan": "y" * 150}),
            Jsonb({"done": True}) if known else None, float(rng.random()) if known else None,
            vector, "1.0.0", f"source-{stored.sources[i]}", f"sprint-{i // 100}",
        )  # fmt: skip


def recalling(memory: Memory, queries: NDArray[np.float32], **options: Any) -> Call:
    """Return timed recalls of the queries in turn; ordered by similarity alone unless told."""
    return timed(asking(memory, queries, **options))


def asking(
    memory: Memory, queries: NDArray[np.float32], **options: Any
) -> Callable[[int], set[UUID]]:
    """Return recalls of the queries in turn, which give the identifiers of what they found."""
    recall = memory.episodes.recall
    options = {"outcome_weight": 0.0, **options}
    count = len(queries)

    def call(i: int) -> set[UUID]:
        hits = recall(embedding=queries[i % count], limit=LIMIT, **options)
        return {hit.episode.episode_id for hit in hits}

    return call


def asking_raw(
    connection: psycopg.Connection[Any], queries: NDArray[np.float32], limit: int = LIMIT
) -> Callable[[int], set[UUID]]:
    """Return the raw statement that finds the same columns, for the queries in turn."""
    columns = sql.SQL(load("episodes")["columns"])
    text = _RAW_RECALL.format(columns=columns, limit=sql.Literal(limit)).as_string(connection)
    count = len(queries)

    def call(i: int) -> set[UUID]:
        rows = connection.execute(text.encode(), {"query": queries[i % count]}, binary=True)
        return {row[0] for row in rows.fetchall()}

    return call


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How much of the truth some queries found.

    Attributes:
        recall: Mean share of the truth.
        nothing: Queries that found nothing of it.
        short: Queries that returned fewer rows than there are, up to the limit.
        queries: How many there were.
    """

    recall: float
    nothing: int
    short: int
    queries: int


def accuracy(ask: Callable[[int], set[UUID]], truth: Sequence[set[UUID]]) -> Accuracy:
    """Ask each query once, which warms what is timed afterwards."""
    found = [ask(i) for i in range(len(truth))]
    pairs = list(zip(found, truth, strict=True))
    shares = [len(got & right) / len(right) if right else 1.0 for got, right in pairs]
    return Accuracy(
        recall=round(sum(shares) / len(shares), 5),
        nothing=shares.count(0.0),
        short=sum(len(got) < len(right) for got, right in pairs),
        queries=len(shares),
    )
