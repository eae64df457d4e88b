"""Import in bulk against what can be done by hand, on the same tables with the same triggers.

``python -m benchmarks.bulk [--rows N] [--beside N] [--rounds N] [--save]``. By hand is a script of
one's own that reads the same file: into an empty database, ``COPY`` over one connection and over
two without the vector index, then a parallel build; beside rows with an index, two connections with
``COPY``. Targets: at least 0.9 times the rate of the better of these. Ways take turns; medians.
Where others work on the machine too, seconds of processors (of client and server) tell more.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil
import psycopg
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb
from rich.console import Console
from rich.table import Table

from benchmarks.data import World
from benchmarks.measuring import save
from benchmarks.stage import DIMENSIONS, Stage, room, stage
from pgrecall import Memory
from pgrecall.ops.transfer import ImportReport, import_episodes
from pgrecall.testing import Database

COLUMNS = {
    "project_id": "varchar", "agent_version": "varchar", "perception": "jsonb",
    "reasoning": "jsonb", "action": "jsonb", "embedding": "vector", "external_id": "varchar",
}  # fmt: skip
COPY = f"COPY agent_episodes ({', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)"
INDEX = "idx_episodes_embedding"
TARGET = 0.9
console = Console(width=110)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One comparison, in the medians of the rounds.

    Attributes:
        by_hand: Rows a second.
        imported: The same by the import.
        ratio: Of the two, in each round.
        cpu_ratio: Of the rows a second of processor time.
    """

    what: str
    rows: int
    by_hand: float
    imported: float
    ratio: float
    lowest: float
    highest: float
    cpu_ratio: float
    plan: str


def write(path: Path, rows: int, start: int) -> Path:
    """Write a file of episodes with their vectors."""
    world = World(DIMENSIONS, seed=11 + start)
    with path.open("wb") as file:
        for number, episode in enumerate(world.episodes(rows)):
            numbers = [float(f"{value:.9g}") for value in episode["embedding"].tolist()]
            line = {**episode, "embedding": numbers, "external_id": f"{start}-{number}"}
            file.write(orjson.dumps(line) + b"\n")
    return path


def batches(path: Path, size: int) -> Iterator[list[bytes]]:
    with path.open("rb") as file:
        while lines := list(islice(file, size)):
            yield lines


def copy(connection: psycopg.Connection[Any], lines: Sequence[bytes]) -> None:
    """Load lines as they are read, without a look at them."""
    with connection.cursor().copy(COPY) as copying:
        copying.set_types(list(COLUMNS.values()))
        for line in lines:
            row = orjson.loads(line)
            row["embedding"] = np.array(row["embedding"], dtype=np.float32)
            copying.write_row(
                [Jsonb(row[name]) if kind == "jsonb" else row[name]
                 for name, kind in COLUMNS.items()]
            )  # fmt: skip


def by_hand(base: Database, path: Path, connections: int) -> None:
    """Copy a file in batches, as many at once as there are connections."""
    lent = [psycopg.connect(base.owner_dsn, autocommit=True) for _ in range(connections)]
    for connection in lent:
        register_vector(connection)
    try:
        with ThreadPoolExecutor(connections) as pool:
            parts: list[list[list[bytes]]] = [[] for _ in lent]
            for number, lines in enumerate(batches(path, 1000)):
                parts[number % connections].append(lines)

            def work(number: int) -> None:
                for lines in parts[number]:
                    copy(lent[number], lines)

            list(pool.map(work, range(connections)))
    finally:
        for connection in lent:
            connection.close()


def by_hand_with_rebuild(base: Database, path: Path, connections: int, rows: int) -> None:
    with psycopg.connect(base.owner_dsn, autocommit=True) as owner:
        found = owner.execute("SELECT pg_get_indexdef(%s::regclass)", [INDEX]).fetchone()
        assert found is not None
        owner.execute(f"DROP INDEX {INDEX}".encode())
        by_hand(base, path, connections)
        owner.execute("SELECT set_config('maintenance_work_mem', %s, false)", [room(rows, 3)])
        owner.execute("SET max_parallel_maintenance_workers = 2")
        owner.execute("SET min_parallel_table_scan_size = 0")
        owner.execute(found[0].encode())
        owner.execute("ANALYZE agent_episodes")


def imported(base: Database, path: Path) -> ImportReport:
    with Memory.open(base.dsn, embedder="none", settings=base.settings) as memory:
        return import_episodes(memory, path, owner_dsn=base.owner_dsn)


def spent(folder: Path) -> float:
    """Return the seconds of processors that this process and the server have had so far."""
    (file,) = folder.rglob("postmaster.pid")
    postmaster = psutil.Process(int(file.read_text().split()[0]))
    times = postmaster.cpu_times()
    total: float = times.user + times.system + times.children_user + times.children_system
    for child in postmaster.children():
        with suppress(psutil.NoSuchProcess):  # it has just ended, and counts in its parent's
            one = child.cpu_times()
            total += one.user + one.system
    return total + time.process_time()


def compare(
    place: Stage,
    what: str,
    rows: int,
    floor: Mapping[str, Callable[[Path], object]],
    load: Callable[[Path], ImportReport],
    rounds: int,
    file: Callable[[int], Path],
    reset: Callable[[], object],
) -> Result:
    """Let all take turns; the floor is the best way by hand of each round."""
    hand: list[float] = []
    ours: list[float] = []
    processors: list[float] = []
    plan = ""
    for turn in range(rounds):
        taken: dict[str, float] = {}
        used: dict[str, float] = {}
        names = [*floor, "import"]
        for number, name in enumerate(names[turn % 2 :] + names[: turn % 2]):
            path = file(turn * 10 + number)
            before, begun = spent(place.folder), time.perf_counter()
            if name == "import":
                report = load(path)
                plan = "" if report.plan is None else (
                    f"{report.plan.index}, {report.plan.connections} connections"
                )  # fmt: skip
                assert report.created == rows, report
            else:
                floor[name](path)
            taken[name] = time.perf_counter() - begun
            used[name] = spent(place.folder) - before
            reset()
        console.print(what, {name: f"{seconds:.1f} s" for name, seconds in taken.items()})
        console.print("of processors", {name: f"{seconds:.1f} s" for name, seconds in used.items()})
        processors.append(min(used[name] for name in floor) / used["import"])
        hand.append(rows / min(taken[name] for name in floor))
        ours.append(rows / taken["import"])
    ratios = [mine / its for mine, its in zip(ours, hand, strict=True)]
    return Result(
        what=what,
        rows=rows,
        by_hand=round(statistics.median(hand), 1),
        imported=round(statistics.median(ours), 1),
        ratio=round(statistics.median(ratios), 3),
        lowest=round(min(ratios), 3),
        highest=round(max(ratios), 3),
        cpu_ratio=round(statistics.median(processors), 3),
        plan=plan,
    )


def into_nothing(place: Stage, folder: Path, rows: int, rounds: int) -> Result:
    path = write(folder / "load.jsonl", rows, 0)
    with place.template.clone() as base, psycopg.connect(base.owner_dsn, autocommit=True) as owner:
        return compare(
            place,
            "into an empty database",
            rows,
            {
                "COPY, rebuild": lambda path: by_hand_with_rebuild(base, path, 1, rows),
                "2 COPY, rebuild": lambda path: by_hand_with_rebuild(base, path, 2, rows),
            },
            lambda path: imported(base, path),
            rounds,
            lambda _: path,
            lambda: owner.execute("TRUNCATE agent_episodes CASCADE"),
        )


def beside(place: Stage, folder: Path, present: int, rows: int, rounds: int) -> Result:
    with place.filled(present) as stored:
        base = stored.base
        return compare(
            place,
            f"beside {present:,} with their index",
            rows,
            {"2 COPY": lambda path: by_hand(base, path, 2)},
            lambda path: imported(base, path),
            rounds,
            lambda turn: write(folder / "load.jsonl", rows, (turn + 1) * 1_000_000),
            lambda: None,
        )


def main() -> None:
    """Measure, print, and save if told to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000, help="into the empty database")
    parser.add_argument("--beside", type=int, default=100_000, help="rows that are there")
    parser.add_argument("--more", type=int, default=3000, help="rows that come to them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    results = []
    with (
        stage(given.beside) as place,
        tempfile.TemporaryDirectory(prefix="pgrecall-bulk-") as directory,
    ):
        if given.rows:
            results.append(into_nothing(place, Path(directory), given.rows, given.rounds))
        if given.beside:
            results.append(beside(place, Path(directory), given.beside, given.more, given.rounds))
    table = Table(
        "load", "rows", "by hand, a second", "import", "ratio", "lowest to highest", "plan"
    )
    for result in results:
        table.add_row(
            result.what, f"{result.rows:,}", f"{result.by_hand:,.0f}", f"{result.imported:,.0f}",
            f"{result.ratio:.2f} (≥ {TARGET})", f"{result.lowest:.2f} to {result.highest:.2f}",
            f"{result.cpu_ratio:.2f}", result.plan,
        )  # fmt: skip
    console.print(table)
    if given.save:
        save("bulk", {"results": [asdict(result) for result in results]})


if __name__ == "__main__":
    main()
