"""The load: agents that write in every way there is, through clients that are never reopened."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
from tests.chaos.ledger import REFUSALS, Fate, Ledger, Updated, Write
from tests.chaos.place import EMBEDDER, PATIENCE, Place

from pgrecall import AsyncMemory, Memory, errors

SINGLE, KEYED, BULK, KEYED_BULK = "single", "keyed", "bulk", "keyed bulk"
OUTCOMES, LENT, COROUTINES = "outcome", "caller's transaction", "async keyed"
KINDS = (SINGLE, KEYED, BULK, KEYED_BULK, OUTCOMES, LENT, COROUTINES)
BREATH = 0.03
"""Seconds between a failure and the next try of a writer."""


def episode(write: Write, number: int, *, keyed: bool = False) -> dict[str, Any]:
    return {
        "project_id": "chaos",
        "agent_version": "1",
        "perception": {"number": number, "kind": write.kind},
        "reasoning": {"because": "it is time"},
        "action": {"done": True},
        "external_id": write.key(number) if keyed else None,
    }


class Load:
    """Writers of all kinds, one thread each, until they are told to stop."""

    def __init__(self, place: Place, ledger: Ledger, dsn: str, settings: dict[str, Any]) -> None:
        self._ledger = ledger
        self._dsn = dsn
        self._settings = place.settings.model_copy(update=settings)
        self._stop = threading.Event()
        self._caught: list[BaseException] = []
        self._lent: psycopg.Connection[Any] | None = None
        self._memory = Memory.open(dsn, embedder=EMBEDDER, settings=self._settings)
        self._updated = Updated(self._memory.episodes.record(**self._followed()).episode_id)
        ledger.follow(self._updated)
        self._threads = [
            threading.Thread(target=self._guarded, args=(run,), name=name)
            for name, run in (
                (SINGLE, lambda: self._repeat(self._single)),
                (KEYED, lambda: self._repeat(self._keyed)),
                (BULK, lambda: self._repeat(self._bulk)),
                (KEYED_BULK, lambda: self._repeat(self._keyed_bulk)),
                (OUTCOMES, lambda: self._repeat(self._outcome)),
                (LENT, lambda: self._repeat(self._transaction)),
                (COROUTINES, lambda: asyncio.run(self._coroutines())),
            )
        ]

    def _followed(self) -> dict[str, Any]:
        return {
            "project_id": "chaos",
            "agent_version": "1",
            "perception": {"followed": True},
            "reasoning": {},
            "action": {"done": True},
        }

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the writers, and raise what they did not expect."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)
            if thread.is_alive():
                self._ledger.complain(f"the writer {thread.name} does not end")
        if self._lent is not None:
            self._lent.close()
        self._memory.close()
        for error in self._caught:
            self._ledger.complain(f"{type(error).__name__}: {error}")

    def _guarded(self, run: Callable[[], None]) -> None:
        try:
            run()
        except Exception as error:  # noqa: BLE001 - told by stop()
            self._caught.append(error)

    def _repeat(self, write: Callable[[], bool]) -> None:
        while not self._stop.is_set():
            if not write():
                self._stop.wait(BREATH)

    def _single(self) -> bool:
        with self._ledger.entry(SINGLE) as write:
            self._memory.episodes.record(**episode(write, write.numbers[0]))
        return write.fate is Fate.ACKNOWLEDGED

    def _bulk(self) -> bool:
        with self._ledger.entry(BULK, 5) as write:
            self._memory.episodes.record_many([episode(write, n) for n in write.numbers])
        return write.fate is Fate.ACKNOWLEDGED

    def _keyed(self) -> bool:
        with self._ledger.entry(KEYED) as write:
            self._record_keyed(write)
        return self._until_known(write, self._record_keyed)

    def _record_keyed(self, write: Write) -> None:
        self._memory.episodes.record(**episode(write, write.numbers[0], keyed=True))

    def _keyed_bulk(self) -> bool:
        with self._ledger.entry(KEYED_BULK, 5) as write:
            self._record_keyed_bulk(write)
        return self._until_known(write, self._record_keyed_bulk)

    def _record_keyed_bulk(self, write: Write) -> None:
        given = [episode(write, n, keyed=True) for n in write.numbers]
        self._memory.episodes.record_many(given)

    def _until_known(self, write: Write, again: Callable[[Write], None]) -> bool:
        """Repeat an unknown write with its external_id, as the error's hint says."""
        was_good = write.fate is Fate.ACKNOWLEDGED
        told, deadline = write.error, threading.Event()
        timer = threading.Timer(PATIENCE, deadline.set)
        timer.start()
        while write.fate is Fate.UNKNOWN and not deadline.is_set():
            deadline.wait(BREATH)
            with self._ledger.attempt(write):
                again(write)
        timer.cancel()
        write.error = told
        return was_good

    def _outcome(self) -> bool:
        number = self._ledger.number()
        fate = Fate.UNKNOWN
        try:
            self._memory.episodes.record_outcome(self._updated.episode_id, {"number": number}, 0.5)
            fate = Fate.ACKNOWLEDGED
            self._ledger.progressed(OUTCOMES)
        except errors.OutcomeUnknown:
            fate = Fate.UNKNOWN
        except REFUSALS:
            fate = Fate.REFUSED
        self._ledger.update(self._updated, fate, number)
        return fate is Fate.ACKNOWLEDGED

    def _transaction(self) -> bool:
        """Two episodes on a connection of the caller's, who commits."""
        with self._ledger.entry(LENT, 2) as write:
            connection = self._connection()
            try:
                for number in write.numbers:
                    values = {**episode(write, number), "embed": "later"}
                    self._memory.episodes.record(**values, connection=connection)
            except errors.OutcomeUnknown:
                self._ledger.complain("unknown, though the caller had not committed")
                raise
            except errors.PgrecallError:
                self._drop()
                raise
            try:
                connection.commit()
            except psycopg.Error as error:
                self._drop()
                raise errors.OutcomeUnknown(f"the caller's commit failed: {error}") from error
        return write.fate is Fate.ACKNOWLEDGED

    def _connection(self) -> psycopg.Connection[Any]:
        if self._lent is None or self._lent.closed:
            try:
                self._lent = psycopg.connect(self._dsn, connect_timeout=5)
            except psycopg.Error as error:
                raise errors.Unavailable(f"the caller cannot connect: {error}") from error
        return self._lent

    def _drop(self) -> None:
        if self._lent is not None:
            self._lent.close()
            self._lent = None

    async def _coroutines(self) -> None:
        async with await AsyncMemory.open(
            self._dsn, embedder=EMBEDDER, settings=self._settings
        ) as memory:
            await asyncio.gather(*(self._coroutine(memory) for _ in range(3)))

    async def _coroutine(self, memory: AsyncMemory) -> None:
        while not self._stop.is_set():
            with self._ledger.entry(COROUTINES) as write:
                await memory.episodes.record(**episode(write, write.numbers[0], keyed=True))
            told = write.error
            tries = 0
            while write.fate is Fate.UNKNOWN and tries < PATIENCE / BREATH:
                tries += 1
                await asyncio.sleep(BREATH)
                with self._ledger.attempt(write):
                    await memory.episodes.record(**episode(write, write.numbers[0], keyed=True))
            write.error = told
            if told is not None:
                await asyncio.sleep(BREATH)


@contextmanager
def under_load(
    place: Place, ledger: Ledger, *, dsn: str | None = None, **settings: Any
) -> Iterator[Load]:
    """Keep all kinds of writers writing, from before the block to its end."""
    load = Load(place, ledger, dsn or place.dsn, settings)
    with ExitStack() as stack:
        stack.callback(load.stop)
        load.start()
        ledger.await_progress(KINDS, seconds=PATIENCE)
        ledger.tally.recovery_seconds.clear()
        yield load
