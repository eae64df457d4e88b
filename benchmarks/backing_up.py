"""What a backup and its restore take, as a share of bare ``pg_dump`` and ``pg_restore``.

Run it with ``python -m benchmarks.backing_up [--rows N] [--rounds N] [--save]``. It starts an
embedded server of its own. Bare and ours take turns on the same data: bare is the program alone,
with the same format, compression and jobs, and for the restore the same memory for index builds.
Ours adds the manifest (counts, checksums of all rows and vectors, recalls), and at the restore
roles, rights, settings, statistics and the comparison with the manifest.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from rich.console import Console
from rich.table import Table

from benchmarks.data import World
from benchmarks.floor import database, fill
from benchmarks.measuring import save
from pgrecall import Memory
from pgrecall.ops import backup
from pgrecall.ops.backup import tools
from pgrecall.testing import Database

DIMENSIONS = 384
JOBS = 2
console = Console(width=100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Seconds of each turn, bare and ours; ``ratio`` is that of the medians."""

    name: str
    bare: list[float]
    ours: list[float]
    ratio: float


@dataclass(frozen=True, slots=True)
class Bench:
    """The programs and places of one run."""

    base: Database
    folder: Path

    def pg_dump(self) -> None:
        program = tools.find("pg_dump", self.base.settings)
        options = ["--format=custom", "--compress=gzip:1", f"--file={self.bare_file}"]
        with (
            psycopg.connect(self.base.admin_dsn) as connection,
            tools.environment(connection) as env,
        ):
            tools.run(program, options, env=env, doing="dump")

    def create(self) -> backup.CreateReport:
        request = backup.BackupRequest(
            dsn=self.base.role_dsn("backup"), location=str(self.folder / "backups")
        )
        return backup.create(request, settings=self.base.settings)

    def pg_restore(self) -> None:
        program = tools.find("pg_restore", self.base.settings)
        with (
            self.empty() as name,
            psycopg.connect(make_conninfo(self.base.admin_dsn, dbname=name)) as connection,
        ):
            memory = {"maintenance_work_mem": "512MB", "max_parallel_maintenance_workers": "2"}
            with tools.environment(connection, options=memory) as env:
                tools.run(
                    program,
                    [f"--jobs={JOBS}", "--exit-on-error", "--dbname=service=pgrecall",
                     str(self.bare_file)],
                    env=env,
                    doing="restore",
                )  # fmt: skip

    def restore(self) -> None:
        name = "bench_ours"
        request = backup.RestoreRequest(
            admin_dsn=self.base.admin_dsn,
            location=str(self.folder / "backups"),
            to=name,
            jobs=JOBS,
        )
        backup.restore(request, settings=self.base.settings)
        self.drop(name)

    @property
    def bare_file(self) -> Path:
        return self.folder / "bare.dump"

    def empty(self) -> _Empty:
        return _Empty(self, "bench_bare")

    def drop(self, name: str) -> None:
        with psycopg.connect(self.base.admin_dsn, autocommit=True) as admin:
            admin.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )


@dataclass(frozen=True, slots=True)
class _Empty:
    """A database that is there for the length of a block."""

    bench: Bench
    name: str

    def __enter__(self) -> str:
        with psycopg.connect(self.bench.base.admin_dsn, autocommit=True) as admin:
            admin.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(self.name))
            )
        return self.name

    def __exit__(self, *_: object) -> None:
        self.bench.drop(self.name)


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(name: str, bare: Callable[[], object], ours: Callable[[], object], rounds: int) -> Step:
    """Time both in turns, the first alternating."""
    taken: dict[str, list[float]] = {"bare": [], "ours": []}
    for number in range(rounds):
        turns = [("bare", bare), ("ours", ours)]
        for which, call in turns if number % 2 == 0 else reversed(turns):
            taken[which].append(round(seconds(call), 3))
    medians = {which: statistics.median(values) for which, values in taken.items()}
    return Step(name=name, ratio=round(medians["ours"] / medians["bare"], 3), **taken)


def show(steps: list[Step], sizes: dict[str, int], rows: int) -> None:
    table = Table(title=f"{rows:,} episodes of {DIMENSIONS} dimensions")
    for heading in ("", "bare, s", "ours, s", "ours / bare"):
        table.add_column(heading, justify="right" if heading else "left")
    for step in steps:
        bare, ours = statistics.median(step.bare), statistics.median(step.ours)
        table.add_row(step.name, f"{bare:.1f}", f"{ours:.1f}", f"{step.ratio:.2f}")
    console.print(table)
    console.print(", ".join(f"{name}: {size / 1e6:,.1f} MB" for name, size in sizes.items()))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results")
    options = parser.parse_args()
    with database(DIMENSIONS) as base, tempfile.TemporaryDirectory() as folder:
        with Memory.open(base.dsn, settings=base.settings) as memory:
            fill(memory, base, World(DIMENSIONS), options.rows)
        bench = Bench(base, Path(folder))
        steps = [
            compare("backup", bench.pg_dump, bench.create, options.rounds),
            compare("restore, indexes included", bench.pg_restore, bench.restore, options.rounds),
        ]
        with psycopg.connect(base.admin_dsn) as connection:
            row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        made = bench.create().manifest
        sizes = {
            "database": int(row[0]) if row else 0,
            "pg_dump": bench.bare_file.stat().st_size,
            "backup": made.bytes,
        }
    show(steps, sizes, options.rows)
    if options.save:
        results = {
            "rows": options.rows,
            "dimensions": DIMENSIONS,
            "steps": [asdict(step) for step in steps],
            "bytes": sizes,
        }
        console.print(f"written to {save('backing_up', results)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
