"""All collectors together, as Prometheus asks for them: each timed, none spoiling the others."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import psycopg
from prometheus_client.registry import Collector

from pgrecall import __version__
from pgrecall.driver import translate
from pgrecall.errors import PgrecallError, TimedOut, Unavailable
from pgrecall.ops.monitor.collectors import Source
from pgrecall.ops.monitor.link import Link
from pgrecall.ops.monitor.pooler import Pooler
from pgrecall.telemetry.families import Family, gauge

logger = logging.getLogger("pgrecall.monitor")

FAILURES = (psycopg.Error, PgrecallError, OSError)
"""What may go wrong in a collector; anything else is a mistake of ours and must be seen."""

_REST = 10
# One that failed is tried again after so many times what it took: often enough to see it healed,
# and not a load of its own.


@dataclass(slots=True)
class Seen:
    """What a source gave at its last look: nothing, where it failed."""

    at: float
    seconds: float
    families: tuple[Family, ...] | None

    def is_fresh(self, now: float, age_seconds: float) -> bool:
        """Whether it need not be read again."""
        rest = age_seconds if self.families is not None else min(age_seconds, _REST * self.seconds)
        return now - self.at < rest


class Troubles:
    """Says once that something fails, and once that it works again.

    Attributes:
        background: What works beside the scrapes and is told of in them: whether its last try
            succeeded, by name.
    """

    def __init__(self) -> None:
        self.background: dict[str, bool] = {}
        self._now: dict[str, str] = {}

    def tell(self, what: str, trouble: psycopg.Error | PgrecallError | OSError | None) -> None:
        """Log a change of state.

        Args:
            what: What was tried.
            trouble: How it failed; None if it did not.
        """
        text = None if trouble is None else _described(trouble)
        if text == self._now.get(what):
            return
        if text is None:
            del self._now[what]
            logger.info("%s works again", what)
        else:
            self._now[what] = text
            logger.warning("%s fails: %s", what, text)


def _described(trouble: psycopg.Error | PgrecallError | OSError) -> str:
    return str(translate(trouble) if isinstance(trouble, psycopg.Error) else trouble)


class Exposition(Collector):
    """The metrics of the monitor.

    Args:
        link: The connection that the sources are read on.
        sources: The collectors that read from the database, in the order in which they are asked.
        troubles: Where failures are told.
        budget_seconds: How long one scrape may take; what is not read by then has failed.
        pooler: Watched too, also while the database is away.
    """

    def __init__(
        self,
        link: Link,
        sources: Sequence[Source],
        troubles: Troubles,
        *,
        budget_seconds: float,
        pooler: Pooler | None = None,
    ) -> None:
        self._link = link
        self._sources = sources
        self._troubles = troubles
        self._budget = budget_seconds
        self._pooler = pooler
        self._seen: dict[str, Seen] = {}
        self._lock = threading.Lock()
        self._families: Sequence[Family] = ()
        self._finished = -math.inf

    def describe(self) -> Iterator[Family]:
        """Return nothing, so that registering reads nothing."""
        return iter(())

    def collect(self) -> Iterator[Family]:
        """Read what is due, and return everything.

        Scrapes at the same time share what one of them reads, so that none piles up on another.
        """
        asked = time.monotonic()
        with self._lock:
            if self._finished < asked:
                self._families = [*self._collect(asked + self._budget)]
                self._finished = time.monotonic()
            return iter(self._families)

    def _collect(self, deadline: float) -> Iterator[Family]:
        yield gauge("pgrecall_build_info", [((__version__,), 1)])
        looks = self._read(deadline)
        yield gauge("pgrecall_up", [((), looks is not None)])
        looks = {} if looks is None else looks
        background = self._troubles.background if looks else {}
        if self._pooler is not None:
            looks["pooler"] = self._look("pooler", self._pooler.collect)
        for seen in looks.values():
            yield from seen.families or ()
        yield from _about(looks, background)

    def _read(self, deadline: float) -> dict[str, Seen] | None:
        """Return what each source has to show; None if the database is away."""
        looks: dict[str, Seen] = {}
        try:
            self._link.open()
            for source in self._sources:
                collect = partial(self._from_database, source, deadline)
                looks[source.name] = self._look(source.name, collect, source.age_seconds)
        except Unavailable as error:
            self._troubles.tell("the database", error)
            return None
        self._troubles.tell("the database", None)
        return looks

    def _from_database(self, source: Source, deadline: float) -> tuple[Family, ...]:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimedOut(
                f"no time is left in the {self._budget:g} s that a scrape may take",
                hint="see pgrecall_collector_duration_seconds for what takes it",
            )
        with self._link.transaction(timeout_seconds=left) as statements:
            return (*source.collect(statements),)

    def _look(
        self, name: str, collect: Callable[[], Iterable[Family]], age_seconds: float = 0.0
    ) -> Seen:
        before, start = self._seen.get(name), time.monotonic()
        if before is not None and before.is_fresh(start, age_seconds):
            return before
        try:
            families: tuple[Family, ...] | None = (*collect(),)
        except FAILURES as error:
            if isinstance(error, Unavailable) and name != "pooler":
                raise  # it takes all collectors with it
            self._troubles.tell(f"collector {name}", error)
            families = None
        else:
            self._troubles.tell(f"collector {name}", None)
        seen = Seen(start, time.monotonic() - start, families)
        self._seen[name] = seen
        return seen


def _about(looks: Mapping[str, Seen], background: Mapping[str, bool]) -> Iterator[Family]:
    """Return what is known of the collectors themselves."""
    success = {**{name: seen.families is not None for name, seen in looks.items()}, **background}
    yield gauge("pgrecall_collector_success", [((name,), good) for name, good in success.items()])
    yield gauge(
        "pgrecall_collector_duration_seconds",
        [((name,), seen.seconds) for name, seen in looks.items()],
    )
