"""All collectors together, as Prometheus asks for them: each timed, none spoiling the others."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psycopg
from prometheus_client.registry import Collector

from pgrecall import __version__
from pgrecall.errors import PgrecallError
from pgrecall.ops.monitor.collectors import Source
from pgrecall.ops.monitor.link import Link
from pgrecall.telemetry.families import Family, gauge

logger = logging.getLogger("pgrecall.monitor")

FAILURES = (psycopg.Error, PgrecallError, OSError)
"""What may go wrong in a collector; anything else is a mistake of ours and must be seen."""


@dataclass(slots=True)
class Seen:
    """What a source gave at its last look: nothing, where it failed."""

    at: float
    seconds: float
    families: tuple[Family, ...] | None


class Troubles:
    """Says once that something fails, and once that it works again."""

    def __init__(self) -> None:
        self._now: dict[str, str] = {}

    def tell(self, what: str, trouble: BaseException | None) -> None:
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


def _described(trouble: BaseException) -> str:
    if isinstance(trouble, psycopg.Error):
        return trouble.diag.message_primary or str(trouble).strip().split("\n")[0]
    return str(trouble)


class Exposition(Collector):
    """The metrics of the monitor.

    Args:
        link: The connection that the sources are read on.
        sources: The collectors.
        troubles: Where failures are told.
    """

    def __init__(self, link: Link, sources: Sequence[Source], troubles: Troubles) -> None:
        self._link = link
        self._sources = sources
        self._troubles = troubles
        self._seen: dict[str, Seen] = {}
        # Scrapes at the same time wait for each other, and share what is still fresh.
        self._lock = threading.Lock()

    def describe(self) -> Iterator[Family]:
        """Return nothing, so that registering reads nothing."""
        return iter(())

    def collect(self) -> Iterator[Family]:
        """Read what is due, and return everything."""
        with self._lock:
            families = [*self._collect()]
        return iter(families)

    def _collect(self) -> Iterator[Family]:
        yield gauge("pgrecall_build_info", [((__version__,), 1)])
        try:
            self._link.open()
        except PgrecallError as error:
            self._troubles.tell("the database", error)
            yield gauge("pgrecall_up", [((), 0)])
            return
        self._troubles.tell("the database", None)
        yield gauge("pgrecall_up", [((), 1)])
        looks = {source.name: self._look(source) for source in self._sources}
        for seen in looks.values():
            yield from seen.families or ()
        yield gauge(
            "pgrecall_collector_success",
            [((name,), seen.families is not None) for name, seen in looks.items()],
        )
        yield gauge(
            "pgrecall_collector_duration_seconds",
            [((name,), seen.seconds) for name, seen in looks.items()],
        )

    def _look(self, source: Source) -> Seen:
        before, start = self._seen.get(source.name), time.monotonic()
        fresh = before is not None and before.families is not None
        if before is not None and fresh and start - before.at < source.age_seconds:
            return before
        try:
            with self._link.transaction() as statements:
                families = (*source.collect(statements),)
        except FAILURES as error:
            self._troubles.tell(f"collector {source.name}", error)
            families = None
        else:
            self._troubles.tell(f"collector {source.name}", None)
        seen = Seen(start, time.monotonic() - start, families)
        self._seen[source.name] = seen
        return seen
