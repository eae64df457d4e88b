"""Many rows are loaded with the vector index put off, and client or server killed meanwhile.

``python -m tests.chaos.bulk [--rows N] [--kills N] [--save]`` is the long form. What the import
counted as done is compared with what the database holds, after each kill and at the end; somebody
recalls it all the time.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psycopg
from benchmarks.measuring import save
from tests.chaos.place import DIMENSIONS, PATIENCE, Place, standing, wait_for

from pgrecall import Memory
from pgrecall.errors import PgrecallError
from pgrecall.ops.doctor import doctor

ROOT = Path(__file__).resolve().parents[2]
INDEX = "idx_episodes_embedding"
GRACE = 2.0
"""Seconds after a server is back in which a recall may still fail."""
CHILD = """
import sys
from pathlib import Path
from pgrecall import Memory
from pgrecall.ops.transfer import import_episodes

with Memory.open(sys.argv[1], embedder="none") as memory:
    report = import_episodes(
        memory, Path(sys.argv[2]), owner_dsn=sys.argv[3], index="defer", connections=2,
        batch_size=50, on_progress=lambda progress: print(progress.read, flush=True),
    )
print("done", report.rejected, flush=True)
"""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What was seen.

    Attributes:
        rows: Lines of the file.
        kills: How often the client and the server were killed, by what the import was doing.
        runs: How often the import was begun.
        half_built: How often a kill left an index that was not whole.
        recalls: Recalls that were answered.
        wrong: Of which the right row was not the first.
        failed: Recalls that failed while the server ran.
        lost: Rows that were counted as done and are not there.
        doubled: Rows that are there twice.
        not_found: Rows that the index does not find at the end.
        faults: What doctor finds amiss with the indexes at the end.
        seconds: How long it took.
    """

    rows: int
    kills: dict[str, int] = field(default_factory=dict)
    runs: int = 0
    half_built: int = 0
    recalls: int = 0
    wrong: int = 0
    failed: int = 0
    first_failure: str = ""
    lost: int = 0
    doubled: int = 0
    not_found: int = 0
    faults: str = ""
    seconds: float = 0.0


def vector(number: int) -> list[float]:
    """Return what is nearest to itself, and far from all others."""
    chance = random.Random(number)
    return [round(chance.gauss(), 6) for _ in range(DIMENSIONS)]


def write(path: Path, rows: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            line = {
                "project_id": f"p{number % 3}", "agent_version": "1", "external_id": str(number),
                "perception": {"text": f"decision {number}"}, "reasoning": {}, "action": {},
                "embedding": vector(number),
            }  # fmt: skip
            file.write(json.dumps(line) + "\n")


class Import:
    """The import under fire, begun anew whenever it was killed."""

    def __init__(self, place: Place, source: Path, outcome: Outcome) -> None:
        self._place = place
        self._source = source
        self._outcome = outcome
        self._child: subprocess.Popen[str] | None = None
        self.counted = 0
        """Lines that any run has counted as done."""
        self.read = 0
        """Those that this run has."""
        self.ended = ""

    def begin(self) -> None:
        self.read, self.ended = 0, ""
        self._outcome.runs += 1
        self._child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                CHILD,
                self._place.dsn,
                str(self._source),
                self._place.owner_dsn,
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._listen, args=(self._child,), daemon=True).start()

    def _listen(self, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        with child.stdout as lines:
            for line in lines:
                if line.startswith("done"):
                    self.ended = line.strip()
                else:
                    self.read = int(line)
                    self.counted = max(self.counted, self.read)

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def kill(self) -> None:
        assert self._child is not None
        self._child.send_signal(signal.SIGKILL)
        self._child.wait(PATIENCE)

    def wait(self) -> None:
        assert self._child is not None
        assert self._child.wait(PATIENCE * 3) == 0
        wait_for(lambda: self.ended, "the last words of the import")


class Reader:
    """Recalls rows that were counted as done, each by its own vector, and looks who comes first."""

    def __init__(self, place: Place, work: Import, outcome: Outcome) -> None:
        self._place, self._work, self._outcome = place, work, outcome
        self._stop = threading.Event()
        self.down_until = 0.0

    def run(self) -> None:
        chance = random.Random(5)
        with Memory.open(self._place.dsn, embedder="none", settings=self._place.settings) as memory:
            while not self._stop.is_set():
                self._one(memory, chance)

    def _one(self, memory: Memory, chance: random.Random) -> None:
        known, begun = self._work.counted, time.monotonic()
        if not known:
            self._stop.wait(0.05)
            return
        number = chance.randrange(known)
        try:
            hits = memory.episodes.recall(embedding=vector(number), limit=3, outcome_weight=0)
        except PgrecallError as error:
            if begun > self.down_until and time.monotonic() > self.down_until:
                self._outcome.failed += 1
                self._outcome.first_failure = self._outcome.first_failure or repr(error)
            self._stop.wait(0.05)
            return
        self._outcome.recalls += 1
        self._outcome.wrong += not hits or hits[0].episode.external_id != str(number)
        self._stop.wait(0.01)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()


def slow_index(place: Place) -> str:
    """Let the index take long to build, so that a kill can meet it; returns its definition."""
    with psycopg.connect(place.owner_dsn, autocommit=True) as owner:
        owner.execute(f"DROP INDEX {INDEX}".encode())
        owner.execute(
            f"CREATE INDEX {INDEX} ON agent_episodes USING hnsw (embedding vector_cosine_ops) "
            "WITH (m = 32, ef_construction = 900)".encode()
        )
    return definition(place)


def definition(place: Place) -> str:
    with psycopg.connect(place.owner_dsn, autocommit=True) as owner:
        found = owner.execute("SELECT pg_get_indexdef(to_regclass(%s))", [INDEX]).fetchone()
    return str(found[0]) if found else ""


def check(place: Place, work: Import, outcome: Outcome) -> None:
    """Compare what was counted as done with what is there."""
    known = work.counted
    with psycopg.connect(place.owner_dsn, autocommit=True) as owner:
        found = owner.execute(
            "SELECT external_id, count(*) FROM agent_episodes GROUP BY external_id"
        ).fetchall()
        state = owner.execute(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", [INDEX]
        ).fetchone()
    there = {int(name) for name, _ in found}
    outcome.lost += len(set(range(known)) - there)
    outcome.doubled += sum(count > 1 for _, count in found)
    outcome.half_built += state == (False,)


def strike(place: Place, work: Import, reader: Reader, outcome: Outcome, victim: str) -> None:
    phase = "building" if work.read == outcome.rows else "loading"
    name = f"{victim}, {phase}"
    outcome.kills[name] = outcome.kills.get(name, 0) + 1
    if victim == "client":
        work.kill()
        check(place, work, outcome)
        work.begin()
        return
    reader.down_until = float("inf")
    place.kill()
    place.server.start()
    reader.down_until = time.monotonic() + GRACE
    check(place, work, outcome)
    # The client asks again for some seconds, and goes on by itself.


def load_under_fire(place: Place, rows: int, kills: int, seed: int = 3) -> Outcome:
    """Import a file and kill client and server in turn, at random points, so many times."""
    outcome = Outcome(rows=rows)
    chance = random.Random(seed)
    begun = time.monotonic()
    place.empty()
    source = place.directory / "load.jsonl"
    write(source, rows)
    wanted = slow_index(place)
    work = Import(place, source, outcome)
    reader = Reader(place, work, outcome)
    while_loading = round(kills * 0.6)
    points = sorted(chance.sample(range(1, rows * 9 // 10), while_loading))
    with reader.at_work():
        work.begin()
        for number in range(kills):
            point = points[number] if number < while_loading else rows
            wait_for(_reached(work, point), f"line {point}", seconds=PATIENCE * 2)
            time.sleep(chance.uniform(0, 0.05 if number < while_loading else 1.5))
            if not work.running or work.ended:
                work.begin()  # it was quicker than the blow
                wait_for(_reached(work, point), f"line {point}", seconds=PATIENCE * 2)
            strike(place, work, reader, outcome, ("client", "server")[number % 2])
        if work.running or work.ended:
            work.wait()
        else:
            work.begin()
            work.wait()
    check(place, work, outcome)
    judge(place, outcome, wanted)
    outcome.seconds = round(time.monotonic() - begun, 1)
    return outcome


def _reached(work: Import, point: int) -> Callable[[], bool]:
    return lambda: work.read >= point or not work.running


def judge(place: Place, outcome: Outcome, wanted: str) -> None:
    """Look for every row by the index, and at the indexes."""
    assert definition(place) == wanted
    with Memory.open(place.dsn, embedder="none", settings=place.settings) as memory:
        for number in range(outcome.rows):
            hits = memory.episodes.recall(
                embedding=vector(number), limit=1, outcome_weight=0, route="index"
            )
            outcome.not_found += not hits or hits[0].episode.external_id != str(number)
    checks = doctor(place.owner_dsn, settings=place.settings, embedder_dimensions=DIMENSIONS)
    outcome.faults = "; ".join(
        one.evidence
        for one in checks
        if one.id in ("vector-indexes", "invalid-indexes", "codes", "words")
        and one.status != "passed"
    )


def main() -> None:
    """Run the long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    with standing() as place:
        seen = load_under_fire(place, given.rows, given.kills)
    print(json.dumps(asdict(seen), indent=2))
    if given.save:
        save("bulk-chaos", asdict(seen))
    if seen.failed or seen.lost or seen.doubled or seen.wrong or seen.not_found or seen.faults:
        sys.exit(1)


if __name__ == "__main__":
    main()
