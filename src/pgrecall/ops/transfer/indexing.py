"""The vector indexes of episodes while many are loaded: put off, and built anew at the end.

What is put off stands in ``pgrecall.deferred_indexes``, written by the transaction that drops it.
So whoever comes next finds it and builds it, however the import ended. Recalls read codes
meanwhile.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import errors as pg
from psycopg import sql

from pgrecall.core.loading import SAMPLED, build_memory
from pgrecall.driver import Commands, Row, Statements, connect, connect_session, translate
from pgrecall.errors import OperationRefused, OutcomeUnknown, Unavailable
from pgrecall.ops.local import is_local, shared_memory_free
from pgrecall.sql import load

LOCK_MS = 800
"""How long the dropping of an index waits for its locks before it lets others pass."""

RETRY_SECONDS = (0.5, 1, 2, 4, 8)
"""How long to wait before each further attempt to build, where the server is gone."""

LINGERING = 12.0
"""Seconds in which the session of an import that was killed may still hold its lock."""

_TRIES = 40
_PAUSE = 0.25
_CONTAINER = Path("/sys/fs/cgroup")
_MOST_WORKERS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Building:
    """How far the building of an index is.

    Attributes:
        index: Its name.
        phase: As ``pg_stat_progress_create_index`` says.
        done: Vectors that are in it.
        total: About how many there are.
        seconds: Since it began.
    """

    index: str
    phase: str
    done: int
    total: int
    seconds: float

    @property
    def rate(self) -> float:
        """Vectors a second."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Expected seconds until all are in it; None before the first."""
        return max(self.total - self.done, 0) / self.rate if self.done else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The database as a load is planned by it.

    Attributes:
        present: About how many vectors there are.
        dimensions: Of the vectors.
        switching: Whether a change of model is under way.
        deferred: Whether an index is put off already.
        memory: Bytes that a build may take.
        workers: Processes that may help to build.
        processes: How many of them and the first can work at once.
        identity: The same for every connection to this database.
    """

    present: int
    dimensions: int
    switching: bool
    deferred: bool
    memory: int
    workers: int
    processes: int
    identity: tuple[int, datetime]


OnBuilding = Callable[[Building], None]


class VectorIndexes:
    """Puts the vector indexes of episodes off and builds them; one process at a time.

    A change of the embedding model is kept away by the same lock.

    Args:
        dsn: Connection string of the owner, to the server itself.

    Raises:
        OperationRefused: It leads through a pooler.
        Unavailable: The server could not be reached.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: psycopg.Connection[Row] | None = None
        self._claimed = False

    def __enter__(self) -> Self:
        self._session()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._connection is not None:
            self._connection.close()

    def _session(self) -> Commands:
        """Return the connection, or another where it has been lost; the lock went with it."""
        if self._connection is None or self._connection.closed:
            self._claimed = False
            self._connection = connect_session(self._dsn, purpose="import")
            run = Commands(self._connection, load("indexing"))
            run.rows("be_watchful")
            Statements(self._connection, load("embeddings")).rows("be_patient")
        return Commands(self._connection, load("indexing"))

    def place(self) -> Place:
        """Look at the database."""
        with _translated():
            run = self._session()
            row = run.one("place")
            local = is_local(run.connection.info.host, row["backend_pid"])
        memory, workers = _equipment(row) if local else _unseen(row)
        return Place(
            present=row["present"],
            dimensions=row["dimensions"],
            switching=row["switching"],
            deferred=row["deferred"],
            memory=memory,
            workers=workers,
            processes=min(workers + 1, _processors()) if local else workers + 1,
            identity=(row["database"], row["started"]),
        )

    def measure(self) -> tuple[float, float]:
        """Return the milliseconds that a vector takes in building and in keeping an index."""
        with _translated():
            row = self._session().one("time_index", {"rows": SAMPLED})
        return row["building_ms"], row["keeping_ms"]

    def claim(self, *, patience: float = 0.0) -> bool:
        """Become the one who may put indexes off and build them; says whether that is so.

        Args:
            patience: Seconds to wait for another to end.
        """
        deadline = time.monotonic() + patience
        with _translated():
            while True:
                run = self._session()
                if not self._claimed:
                    own = Statements(run.connection, load("embeddings"))
                    self._claimed = bool(own.value("claim_change"))
                if self._claimed or time.monotonic() > deadline:
                    return self._claimed
                time.sleep(_PAUSE)

    def defer(self) -> bool:
        """Drop the vector indexes of episodes and remember them; says whether it could be done.

        Who reads or writes for long prevents it. Locks are given up after 0.8 s each time.
        """
        with _translated():
            run = self._session()
            for _ in range(_TRIES):
                try:
                    with run.connection.transaction():
                        own = Statements(run.connection, load("embeddings"))
                        own.rows("be_brief", {"milliseconds": LOCK_MS})
                        for row in run.rows("defer"):
                            run.run("drop_deferred", index=sql.Identifier(row["name"]))
                except (pg.LockNotAvailable, pg.DeadlockDetected):
                    time.sleep(_PAUSE)
                else:
                    return True
        return False

    def build(self, on_building: OnBuilding | None = None) -> list[str]:
        """Build what is put off, and bring the planner's statistics up to date.

        Agents go on reading and writing. What an attempt before has left half done is dropped.

        Args:
            on_building: Told of how far it is, twice a second.

        Returns:
            The indexes that were put off and are there again.

        Raises:
            OperationRefused: Another process has put them off and is at work.
            DatabaseError: It failed, also when tried again for some seconds.
        """
        for seconds in (*RETRY_SECONDS, None):
            try:
                return self._build(on_building)
            except (Unavailable, OutcomeUnknown):
                if seconds is None:
                    raise
                time.sleep(seconds)
        raise AssertionError("the last attempt returns or raises")

    def _build(self, on_building: OnBuilding | None) -> list[str]:
        if not self.claim(patience=LINGERING):
            raise OperationRefused(
                "another process is loading rows, or changing the embedding model",
                hint="wait for it; if it was an import, it builds the index at its end",
            )
        place = self.place()
        with _translated():
            run = self._session()
            waiting = run.rows("deferred")
            for row in waiting:
                if not row["valid"]:
                    self._make(run, row, place, on_building)
                run.connection.execute(run.texts["built"], {"name": row["name"]})
            if waiting:
                run.connection.execute(run.texts["analyze"])
        return [row["name"] for row in waiting]

    def _make(
        self,
        run: Commands,
        row: Row,
        place: Place,
        on_building: OnBuilding | None,
    ) -> None:
        wanted = min(build_memory(place.present, place.dimensions), place.memory)
        if row["there"]:
            self._drop(run, row["name"])
        _equip(run, wanted, place.workers)
        try:
            self._watch(run, row, place, on_building)
        except (pg.DiskFull, pg.OutOfMemory):
            # Shared memory is smaller than it looked, as in a container; one process needs none.
            self._drop(run, row["name"])
            _equip(run, wanted, 0)
            self._watch(run, row, place, on_building)

    def _drop(self, run: Commands, name: str) -> None:
        drop = Commands(run.connection, load("embeddings"))
        drop.run("drop_index", index=sql.Identifier(name))

    def _watch(self, run: Commands, row: Row, place: Place, on_building: OnBuilding | None) -> None:
        """Build in a thread, and tell meanwhile how far it is."""
        begun = time.monotonic()
        connection = run.connection
        with (
            connect(self._dsn, purpose="import, progress") as watching,
            ThreadPoolExecutor(1) as pool,
        ):
            building = pool.submit(connection.execute, row["statement"].encode())
            pid = connection.info.backend_pid
            try:
                while not _done(building):
                    told = _progress(watching, pid, row["name"], place.present, begun)
                    if told is not None and on_building is not None:
                        on_building(told)
            except BaseException:
                # Nobody waits for it any more.
                with suppress(psycopg.Error):  # what ends us is told, not that ending it failed
                    connection.cancel_safe()
                raise
        building.result()


def _done(building: Future[Any]) -> bool:
    try:
        building.exception(timeout=2 * _PAUSE)
    except TimeoutError:
        return False
    return True


def _progress(
    watching: psycopg.Connection[Row], pid: int, name: str, total: int, begun: float
) -> Building | None:
    rows = Statements(watching, load("indexing")).rows("build_progress", {"pid": pid})
    if not rows:
        return None
    (row,) = rows
    done = min(row["done"], total) if total else row["done"]
    return Building(
        index=name,
        phase=row["phase"],
        done=done,
        total=max(total, done),
        seconds=time.monotonic() - begun,
    )


def _equip(run: Commands, memory: int, workers: int) -> None:
    run.rows("equip", {"memory": max(memory >> 10, 64 << 10), "workers": workers})


def _equipment(row: Row) -> tuple[int, int]:
    """Return memory and workers on this machine: half of what is free, and its processors."""
    memory = _available() // 2
    workers = min(max(row["workers"], _processors() - 1), _MOST_WORKERS)
    if row["shared_memory_type"] == "posix":
        free = shared_memory_free()
        if free is not None:
            memory = min(memory, int(0.8 * free))
    return memory, workers if memory > 128 << 20 else 0


def _unseen(row: Row) -> tuple[int, int]:
    """Return memory and workers on a machine that cannot be seen, by what it is set to."""
    return max(row["maintenance_work_mem"], row["shared_buffers"]), row["workers"]


def _processors() -> int:
    return len(os.sched_getaffinity(0))


def _available() -> int:
    """Return the bytes that programs can have, on the machine and in the container if it is one."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith("MemAvailable:"))
    free = int(line.split()[1]) << 10
    try:
        most, used = (
            (_CONTAINER / name).read_text(encoding="ascii").strip()
            for name in ("memory.max", "memory.current")
        )
    except FileNotFoundError:
        return free
    return free if most == "max" else min(free, max(int(most) - int(used), 0))


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise translate(error) from error
