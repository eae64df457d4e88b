"""The embedding model is changed under load, and client or server killed while it is.

``python -m tests.chaos.switching [--rows N] [--kills N] [--save]`` is the long form. Four readers
and two writers work all the time. What they are told is compared with what the database holds at
the end.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from benchmarks.measuring import save
from tests.chaos.place import DIMENSIONS, PATIENCE, Place, standing

from pgrecall import Memory
from pgrecall.core.text import render_episode
from pgrecall.errors import PgrecallError
from pgrecall.ops.embeddings import status
from pgrecall.testing import HashEmbedder

ROOT = Path(__file__).resolve().parents[2]
READERS, WRITERS = 4, 2
LIMIT = 10
GRACE = 2.0
"""Seconds after a server is back in which a call may still be one of the outage."""


class Wider(HashEmbedder):
    """The model that is changed to: other dimensions, other vectors."""

    def __init__(self) -> None:
        super().__init__(96)


def narrow() -> HashEmbedder:
    return HashEmbedder(DIMENSIONS)


NAMES = {"hash:96": "python:tests.chaos.switching:Wider",
         f"hash:{DIMENSIONS}": "python:tests.chaos.switching:narrow"}  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What was seen.

    Attributes:
        rows: Rows at the beginning.
        kills: How often the client (the command) and the server were killed.
        recalls: Recalls that were answered.
        records: Episodes that were recorded.
        failed: Calls that failed while the server ran, with the words of the first.
        in_outages: Calls that failed while it did not, or in the moment after.
        short: Recalls that found less than they should.
        lost: Recorded episodes that are not there.
        doubled: Of which there are two.
        without: Rows without a vector of the last model.
        wrong: Rows whose vector is not the last model's.
        seconds: How long it took.
    """

    rows: int
    kills: dict[str, int] = field(default_factory=dict)
    recalls: int = 0
    records: int = 0
    failed: int = 0
    first_failure: str = ""
    in_outages: int = 0
    short: int = 0
    lost: int = 0
    doubled: int = 0
    without: int = 0
    wrong: int = 0
    seconds: float = 0.0


class Load:
    """Readers and writers, and what they are told."""

    def __init__(self, place: Place, outcome: Outcome) -> None:
        self._place = place
        self._outcome = outcome
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._down_until = 0.0
        self.written: set[str] = set()

    def down(self) -> None:
        self._down_until = float("inf")

    def up(self) -> None:
        self._down_until = time.monotonic() + GRACE

    def stop(self) -> None:
        self._stop.set()

    def _failed(self, error: PgrecallError, begun: float) -> None:
        with self._lock:
            if begun < self._down_until or time.monotonic() < self._down_until:
                self._outcome.in_outages += 1
            else:
                self._outcome.failed += 1
                self._outcome.first_failure = self._outcome.first_failure or repr(error)

    def _memory(self) -> Memory:
        return Memory.open(self._place.dsn, settings=self._place.settings)

    def read(self, number: int) -> None:
        chance = random.Random(number)
        with self._memory() as memory:
            while not self._stop.is_set():
                begun = time.monotonic()
                query = f"seed {chance.randrange(self._outcome.rows)}"
                try:
                    hits = memory.episodes.recall(query, limit=LIMIT, group_repeats=False)
                except PgrecallError as error:
                    self._failed(error, begun)
                    self._stop.wait(0.05)
                    continue
                with self._lock:
                    self._outcome.recalls += 1
                    self._outcome.short += len(hits) < LIMIT
                self._stop.wait(0.01)

    def write(self, number: int) -> None:
        count = 0
        with self._memory() as memory:
            while not self._stop.is_set():
                name, begun = f"{number}-{count}", time.monotonic()
                try:
                    memory.episodes.record(
                        project_id="p", agent_version="1", perception={"text": f"written {name}"},
                        reasoning={}, action={}, external_id=name,
                    )  # fmt: skip
                except PgrecallError as error:
                    self._failed(error, begun)
                    self._stop.wait(0.05)
                    continue  # the same once more
                count += 1
                with self._lock:
                    self._outcome.records += 1
                    self.written.add(name)
                self._stop.wait(0.02)


def fill(place: Place, rows: int) -> None:
    place.empty()
    with Memory.open(place.dsn, embedder=NAMES[f"hash:{DIMENSIONS}"],
                     settings=place.settings) as memory:  # fmt: skip
        for start in range(0, rows, 1000):
            memory.episodes.record_many(
                {"project_id": "p", "agent_version": "1", "reasoning": {}, "action": {},
                 "perception": {"text": f"seed {i} {uuid4()}"}}
                for i in range(start, min(start + 1000, rows))
            )  # fmt: skip


def change(place: Place, load: Load, outcome: Outcome, to: str, kills: list[str]) -> None:
    """Run the command to its end; before, kill it or the server so many times."""
    chance = random.Random(len(kills) + sum(outcome.kills.values()))
    words = ("embeddings", "switch", "--owner-dsn", place.owner_dsn, "--queries", "3")
    paths = {"PYTHONPATH": str(ROOT)}
    for victim in kills:
        command = place.begin(*words, "--to", NAMES[to], "--yes", **paths)
        time.sleep(chance.uniform(0.8, 4.0))
        if victim == "server":
            load.down()
            place.kill(all_of_it=chance.random() < 0.5)
            command.kill()
            time.sleep(chance.uniform(0, 0.5))
            place.server.start()
            load.up()
        else:
            command.send_signal(signal.SIGKILL)
        command.wait(PATIENCE)
        outcome.kills[victim] = outcome.kills.get(victim, 0) + 1
    for last in (("--to", NAMES[to], "--yes"), ("--finish",)):
        done = place.command(*words, *last, **paths)
        assert done.returncode == 0, done.stderr[-2000:]


def judge(place: Place, load: Load, outcome: Outcome, model: str) -> None:
    done = place.command("embeddings", "backfill", "--dsn", place.dsn, PYTHONPATH=str(ROOT),
                         PGRECALL_EMBEDDER="")  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    with psycopg.connect(place.admin_dsn) as connection:
        found = Counter(
            name for (name,) in connection.execute(
                "SELECT external_id FROM agent_episodes WHERE external_id IS NOT NULL"
            )
        )  # fmt: skip
        outcome.lost = len(load.written - found.keys())
        outcome.doubled = sum(count > 1 for count in found.values())
        embedder = Wider() if model == "hash:96" else narrow()
        vectors = connection.execute(
            "SELECT perception, embedding::text FROM agent_episodes ORDER BY episode_id"
        ).fetchall()
    outcome.without = sum(vector is None for _, vector in vectors)
    some = [pair for pair in vectors if pair[1] is not None][:: max(len(vectors) // 500, 1)]
    for perception, vector in some:
        (expected,) = embedder.embed([render_episode(perception, {}, {}, max_tokens=512)])
        stored = json.loads(vector)
        near = sum(a * b for a, b in zip(expected, stored, strict=False))
        outcome.wrong += len(stored) != embedder.dimensions or near < 0.999
    (served,) = status(place.owner_dsn).models
    assert served.identity == model, served


def switch_under_load(place: Place, rows: int, kills: int) -> Outcome:
    """Change the model there and back."""
    outcome = Outcome(rows=rows)
    begun = time.monotonic()
    fill(place, rows)
    load = Load(place, outcome)
    victims = ["server" if i % 3 == 2 else "client" for i in range(kills)]
    targets = list(NAMES)
    with ThreadPoolExecutor(READERS + WRITERS) as pool:
        work = [pool.submit(load.read, i) for i in range(READERS)]
        work += [pool.submit(load.write, i) for i in range(WRITERS)]
        try:
            for place_in_order, to in enumerate(targets):
                change(place, load, outcome, to, victims[place_in_order :: len(targets)])
        finally:
            load.stop()
        for one in work:
            one.result(PATIENCE)
    judge(place, load, outcome, targets[-1])
    outcome.seconds = round(time.monotonic() - begun, 1)
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument(
        "--save", action="store_true", help="write benchmarks/results/switching.json"
    )
    options = parser.parse_args()
    with standing() as place:
        outcome = switch_under_load(place, options.rows, options.kills)
    seen: dict[str, Any] = asdict(outcome)
    for name, value in seen.items():
        print(f"{name:15} {value}")
    if options.save:
        print("written:", save("switching", seen))
    bad = ("failed", "short", "lost", "doubled", "without", "wrong")
    return int(any(seen[name] for name in bad))


if __name__ == "__main__":
    raise SystemExit(main())
