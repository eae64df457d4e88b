"""The ledger: every write that was tried, what its caller was told, and what the database says.

A write is *acknowledged* when the call returned, *refused* when its error says that nothing was
written, and *unknown* when its error says that nobody knows. Afterwards each acknowledged row must
be there exactly once, each refused one absent, each unknown one there at most once, and of a bulk
either all rows or none.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

import psycopg

from pgrecall import errors

REFUSALS = (
    errors.Unavailable,  # and ConnectionLost
    errors.TimedOut,
    errors.OutOfSpace,
    errors.ReadOnlyServer,
)
"""Errors that say that nothing was written."""


class Fate(StrEnum):
    """What the caller of a write was told."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Write:
    """One write of one or more episodes, each with a number of its own in its document."""

    kind: str
    numbers: tuple[int, ...]
    fate: Fate = Fate.UNKNOWN
    error: Exception | None = None
    seconds: float = 0.0

    def key(self, number: int) -> str:
        return f"{self.kind}-{number}"


@dataclass(slots=True)
class Updated:
    """An episode whose outcome is written again and again, with a number that rises."""

    episode_id: UUID
    fates: dict[int, Fate] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Tally:
    """What came of a scenario.

    Attributes:
        faults: How often something was broken.
        writes: Rows that were tried, the updates of outcomes included.
        unknown: Rows whose caller was told that nobody knows.
        repeated: Of these, repeated with their ``external_id`` until they were acknowledged.
        lost: Acknowledged, and not there.
        doubled: There more than once.
        ghosts: Refused, and there.
        torn: Bulks and transactions of which a part is there.
        wrong: What else was not as promised, in words.
        recovery_seconds: From the end of each fault to when every writer had written again.
        longest_call_seconds: The longest that any call took.
    """

    scenario: str
    faults: int = 0
    writes: int = 0
    acknowledged: int = 0
    refused: int = 0
    unknown: int = 0
    repeated: int = 0
    lost: int = 0
    doubled: int = 0
    ghosts: int = 0
    torn: int = 0
    wrong: list[str] = field(default_factory=list)
    recovery_seconds: list[float] = field(default_factory=list)
    longest_call_seconds: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    note: str = ""

    @property
    def good(self) -> bool:
        return not (self.lost or self.doubled or self.ghosts or self.torn or self.wrong)


class Ledger:
    """Writes of many threads, and their judgement."""

    def __init__(self, scenario: str) -> None:
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._writes: list[Write] = []
        self._updated: list[Updated] = []
        self._acknowledged: Counter[str] = Counter()
        self.tally = Tally(scenario=scenario)

    def number(self) -> int:
        return next(self._numbers)

    @contextmanager
    def entry(self, kind: str, count: int = 1) -> Iterator[Write]:
        """Note a write and its fate; the errors that a fault may bring end here."""
        write = Write(kind, tuple(self.number() for _ in range(count)))
        with self.attempt(write):
            yield write
        with self._lock:
            self._writes.append(write)

    @contextmanager
    def attempt(self, write: Write) -> Iterator[None]:
        """Note what becomes of a try; an unknown write stays unknown until it is acknowledged."""
        first = write.error is None
        started = time.monotonic()
        try:
            yield
        except errors.OutcomeUnknown as error:
            self._failed(write, error, Fate.UNKNOWN)
        except REFUSALS as error:
            self._failed(write, error, Fate.REFUSED if first else Fate.UNKNOWN)
        except errors.PgrecallError as error:
            self._failed(write, error, Fate.UNKNOWN)
            self.complain(f"{write.kind}: {type(error).__name__}: {error}")
        else:
            write.fate = Fate.ACKNOWLEDGED
            self.progressed(write.kind)
        finally:
            write.seconds = time.monotonic() - started
            with self._lock:
                longest = self.tally.longest_call_seconds
                self.tally.longest_call_seconds = max(longest, write.seconds)

    def _failed(self, write: Write, error: Exception, fate: Fate) -> None:
        write.error, write.fate = error, fate
        with self._lock:
            self.tally.errors[type(error).__name__] += 1

    def update(self, updated: Updated, fate: Fate, number: int) -> None:
        """Note an update of an outcome."""
        updated.fates[number] = fate

    def follow(self, updated: Updated) -> None:
        """Judge the outcome of this episode, too."""
        with self._lock:
            self._updated.append(updated)

    def progressed(self, kind: str) -> None:
        with self._lock:
            self._acknowledged[kind] += 1

    def complain(self, text: str) -> None:
        with self._lock:
            if len(self.tally.wrong) < 20:
                self.tally.wrong.append(text)

    def fault(self) -> None:
        with self._lock:
            self.tally.faults += 1

    def await_progress(self, kinds: Sequence[str], *, seconds: float) -> None:
        """Wait until writers of every kind have written again, by themselves."""
        with self._lock:
            before = Counter(self._acknowledged)
        started = time.monotonic()
        while True:
            with self._lock:
                waiting = [kind for kind in kinds if self._acknowledged[kind] <= before[kind] + 1]
            if not waiting:
                self.tally.recovery_seconds.append(time.monotonic() - started)
                return
            if time.monotonic() - started > seconds:
                self.complain(f"after {seconds:.0f} s these do not write again: {waiting}")
                return
            time.sleep(0.01)

    def judge(self, admin_dsn: str) -> Tally:
        """Compare with the database what the callers were told."""
        await_silence(admin_dsn)
        with psycopg.connect(admin_dsn) as connection:
            rows = connection.execute(
                "SELECT (perception ->> 'number')::bigint, count(*) FROM public.agent_episodes"
                " WHERE perception ? 'number' GROUP BY 1"
            ).fetchall()
            outcomes = connection.execute(
                "SELECT episode_id, (outcome ->> 'number')::bigint FROM public.agent_episodes"
                " WHERE outcome ? 'number'"
            ).fetchall()
        self._judge_writes(dict(rows))
        self._judge_updates(dict(outcomes))
        return self.tally

    def _judge_writes(self, found: Mapping[int, int]) -> None:
        tally = self.tally
        known = 0
        for write in self._writes:
            present = [number for number in write.numbers if found.get(number, 0) > 0]
            known += len(present)
            rows = len(write.numbers)
            tally.writes += rows
            tally.doubled += sum(found.get(number, 0) > 1 for number in write.numbers)
            tally.torn += 0 < len(present) < rows
            was_unknown = isinstance(write.error, errors.OutcomeUnknown)
            if write.fate is Fate.ACKNOWLEDGED:
                tally.acknowledged += rows
                tally.lost += rows - len(present)
                tally.repeated += rows if was_unknown else 0
            elif write.fate is Fate.REFUSED:
                tally.refused += rows
                tally.ghosts += len(present)
            tally.unknown += rows if was_unknown or write.fate is Fate.UNKNOWN else 0
        if known != len(found):
            self.complain(f"{len(found) - known} rows are there that nobody wrote")

    def _judge_updates(self, found: Mapping[UUID, int]) -> None:
        tally = self.tally
        for updated in self._updated:
            counted = Counter(updated.fates.values())
            tally.writes += counted.total()
            tally.acknowledged += counted[Fate.ACKNOWLEDGED]
            tally.refused += counted[Fate.REFUSED]
            tally.unknown += counted[Fate.UNKNOWN]
            stands = found.get(updated.episode_id, 0)
            last = max(
                (n for n, fate in updated.fates.items() if fate is Fate.ACKNOWLEDGED), default=0
            )
            if stands < last:
                tally.lost += 1
            elif stands > last:
                tally.ghosts += updated.fates.get(stands) is not Fate.UNKNOWN


def await_silence(admin_dsn: str, *, seconds: float = 30.0) -> None:
    """Wait until no statement of a client runs: one whose client has gone may still commit."""
    deadline = time.monotonic() + seconds
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        while time.monotonic() < deadline:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
                " AND datname = current_database() AND pid <> pg_backend_pid()"
                " AND state IN ('active', 'idle in transaction')"
            ).fetchone()
            if row == (0,):
                return
            time.sleep(0.02)
    raise TimeoutError("statements still run on the server")
