"""What partitioning would bring: one table, by project, and by month; the same rows in each.

Run it with ``python -m benchmarks.partitions [--rows N] [--rounds N] [--save]``. It starts an
embedded server of its own. The tables are bare ones of this benchmark, not the memory's: what
PostgreSQL and pgvector do is measured, by statements that every form allows.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from pgvector.psycopg import register_vector
from psycopg import sql

from benchmarks.data import World
from benchmarks.measuring import save
from pgrecall.engine import EmbeddedServer

DIMENSIONS = 256
PARTS = 12
FOUND = 10
FORMS = {
    "one table": "",
    "by project": "PARTITION BY HASH (project_id)",
    "by month": "PARTITION BY RANGE (month)",
}
Connection = psycopg.Connection[Any]


def name_of(form: str) -> str:
    return form.replace(" ", "_")


def make(connection: Connection, form: str) -> None:
    """Make a table and its parts."""
    name = name_of(form)
    connection.execute(
        f"CREATE TABLE {name} (id integer NOT NULL, project_id text NOT NULL, "
        f"month integer NOT NULL, embedding vector({DIMENSIONS}) NOT NULL) {FORMS[form]}"
    )
    for part in range(PARTS if FORMS[form] else 0):
        which = (
            f"WITH (MODULUS {PARTS}, REMAINDER {part})"
            if form == "by project"
            else f"FROM ({part}) TO ({part + 1})"
        )
        connection.execute(f"CREATE TABLE {name}_{part} PARTITION OF {name} FOR VALUES {which}")


def fill(connection: Connection, form: str, rows: int, world: World) -> dict[str, float]:
    """Load the rows and build the indexes; returns seconds."""
    name = name_of(form)
    projects = world.projects(rows)
    vectors = world.of_projects(projects)
    begun = time.perf_counter()
    with connection.cursor().copy(f"COPY {name} FROM STDIN WITH (FORMAT BINARY)") as copy:
        copy.set_types(["int4", "text", "int4", "vector"])
        for i, vector in enumerate(vectors):
            copy.write_row((i, f"project-{projects[i]}", i * PARTS // rows, vector))
    loaded = time.perf_counter()
    connection.execute(f"CREATE INDEX ON {name} (project_id)")
    connection.execute(f"CREATE INDEX ON {name} USING hnsw (embedding vector_cosine_ops)")
    built = time.perf_counter()
    connection.execute(f"VACUUM ANALYZE {name}")
    return {"load": loaded - begun, "build": built - loaded}


def pose(
    connection: Connection, form: str, where: str, asked: list[tuple[Any, ...]]
) -> tuple[list[float], list[set[int]]]:
    """Pose questions; returns milliseconds and what was found."""
    statement = (
        f"SELECT id FROM {name_of(form)} WHERE {where} ORDER BY embedding <=> %s LIMIT {FOUND}"
    )
    taken, found = [], []
    for values in asked:
        begun = time.perf_counter()
        rows = connection.execute(statement, values, binary=True).fetchall()
        taken.append((time.perf_counter() - begun) * 1000)
        found.append({row[0] for row in rows})
    return taken, found


def recalls(connection: Connection, rounds: int, world: World) -> dict[str, Any]:
    """Compare recalls over all rows and within the largest project."""
    questions: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
        "all rows": ("true", [(vector,) for vector in world.vectors(rounds, queries=True)]),
        "one project": (
            "project_id = %s",
            [("project-0", vector) for vector in world.queries_of(0, rounds, own=True)],
        ),
    }
    told: dict[str, Any] = {}
    for name, (where, asked) in questions.items():
        connection.execute("SET enable_indexscan = off")
        _, truth = pose(connection, "one table", where, asked)
        connection.execute("RESET enable_indexscan")
        if name == "all rows":  # by the vector index, however few rows they are
            connection.execute("SET enable_seqscan = off")
        for form in FORMS:
            pose(connection, form, where, asked[:20])
        rounds_taken: dict[str, list[float]] = {form: [] for form in FORMS}
        right: dict[str, list[float]] = {form: [] for form in FORMS}
        for _ in range(3):  # in turns, as the machine's speed varies
            for form in FORMS:
                taken, found = pose(connection, form, where, asked)
                rounds_taken[form] += taken
                right[form] = [len(f & t) / len(t) for f, t in zip(found, truth, strict=True)]
        told[name] = {
            form: {
                "p50": round(statistics.median(rounds_taken[form]), 3),
                "p95": round(float(np.percentile(rounds_taken[form], 95)), 3),
                "recall": round(statistics.fmean(right[form]), 4),
            }
            for form in FORMS
        }
        connection.execute("RESET enable_seqscan")
    return told


def expire(connection: Connection) -> dict[str, float]:
    """Take away the oldest of twelve months, either way; returns seconds."""

    def seconds(call: Callable[[], object]) -> float:
        begun = time.perf_counter()
        call()
        return round(time.perf_counter() - begun, 3)

    return {
        "DELETE": seconds(lambda: connection.execute("DELETE FROM one_table WHERE month = 0")),
        "VACUUM after it": seconds(lambda: connection.execute("VACUUM one_table")),
        "DROP of a part": seconds(lambda: connection.execute("DROP TABLE by_month_0")),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=24_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    world = World(DIMENSIONS)
    with tempfile.TemporaryDirectory(prefix="pgrecall-parts-") as directory:
        Path(directory).chmod(0o755)
        server = EmbeddedServer(Path(directory) / "server")
        server.start()
        try:
            with psycopg.connect(server.admin_dsn(), autocommit=True) as connection:
                connection.execute("CREATE EXTENSION vector")
                register_vector(connection)
                connection.prepare_threshold = None  # a plan would outlive the settings it is of
                for setting, value in (
                    ("maintenance_work_mem", "512MB"), ("hnsw.ef_search", "100"),
                    ("hnsw.iterative_scan", "relaxed_order"),
                    ("max_parallel_maintenance_workers", "0"),
                ):  # fmt: skip
                    connection.execute(
                        sql.SQL("SELECT set_config({}, {}, false)").format(setting, value)
                    )
                loads = {}
                for form in FORMS:
                    make(connection, form)
                    loads[form] = {
                        name: round(value, 2)
                        for name, value in fill(connection, form, options.rows, world).items()
                    }
                told = {
                    "rows": options.rows,
                    "dimensions": DIMENSIONS,
                    "parts": PARTS,
                    "seconds": loads,
                    "recalls": recalls(connection, options.rounds, world),
                    "a twelfth expires, seconds": expire(connection),
                }
        finally:
            server.destroy(force=True)
    for name, value in told.items():
        print(name, value)
    if options.save:
        print(save("partitions", told))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
