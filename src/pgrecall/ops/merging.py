"""Merging: what bursts brought enters the vector index, a batch at a time, while agents go on."""

from __future__ import annotations

import logging
import random
import threading
import time
from dataclasses import dataclass, field

import psycopg

from pgrecall.driver import Statements, connect, translate
from pgrecall.errors import DatabaseError, Unavailable
from pgrecall.ops.pace import Advance
from pgrecall.sql import load

logger = logging.getLogger("pgrecall.merging")

BATCH = 100
POLL = 2.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_UNCOUNTED = 1024
"""Changes of words that are worth counting in."""
_BUSY = ("55P03", "40P01")
"""Writers did not let it in, or it stood in the way of one."""


@dataclass(slots=True, kw_only=True)
class Merged:
    """What a merge did.

    Attributes:
        merged: Episodes that entered the vector index.
        left: Episodes that still stand beside it.
        seconds: How long it took.
    """

    merged: int = 0
    left: int = 0
    seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class Merge:
    """How recent episodes are to be merged.

    Attributes:
        batch: Episodes merged in one transaction; so many are made anew if it is cut short.
        loop: Whether to go on when nothing is left.
        patience: Seconds without a server, or without being let in, after which to give up; None
            never does.
        stop: Ends it after the batch that is under way.
        on_progress: Called after every batch.
    """

    batch: int = BATCH
    loop: bool = False
    patience: float | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    on_progress: Advance | None = None


def merge(dsn: str, how: Merge) -> Merged:
    """Merge recent episodes; returns when none is left, or goes on until stopped.

    Any number may run at once, of which one works; one that is killed leaves nothing half done.

    Args:
        dsn: Connection string of the application's role; a pooler is fine.
        how: How.

    Raises:
        DatabaseError: It failed for longer than the patience lasts, or in a way that waiting does
            not mend.
    """
    report, begun = Merged(), time.monotonic()
    pause, failing_since = _FIRST_PAUSE, None
    while not how.stop.is_set():
        before = report.merged
        try:
            with connect(dsn, purpose="merging") as connection:
                if _work(Statements(connection, load("merging")), how, report, begun):
                    break
        except (psycopg.Error, Unavailable) as error:
            ours = translate(error) if isinstance(error, psycopg.Error) else error
            if not _passing(error, ours):
                raise ours from error
            if report.merged > before:
                pause, failing_since = _FIRST_PAUSE, None
            failing_since = failing_since or time.monotonic()
            if how.patience is not None and time.monotonic() - failing_since > how.patience:
                raise ours from error
            logger.warning("%s; trying again in %.1f s", ours.message, pause)
            how.stop.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            pause = min(pause * 2, _LONGEST_PAUSE)
    report.seconds = time.monotonic() - begun
    return report


def _passing(error: Exception, ours: Exception) -> bool:
    """Whether waiting may mend it."""
    if isinstance(error, psycopg.Error) and error.sqlstate in _BUSY:
        return True
    return isinstance(ours, Unavailable) or (
        isinstance(ours, DatabaseError) and getattr(error, "sqlstate", None) is None
    )


def _work(run: Statements, how: Merge, report: Merged, begun: float) -> bool:
    """Merge until nothing is left (True) or it is to stop."""
    tidied = True
    while not how.stop.is_set():
        merged = run.value("merge", {"count": how.batch})
        report.merged += merged or 0
        if run.value("uncounted") >= _UNCOUNTED:
            run.value("fold_words")
        report.left = run.value("left")
        if how.on_progress is not None:
            rate = report.merged / max(time.monotonic() - begun, 1e-9)
            how.on_progress(report.merged, report.merged + report.left, "", rate)
        tidied = tidied and not merged
        if report.left == 0 or merged == 0:
            if not tidied:
                run.connection.execute(run.texts["tidy"])
                tidied = True
            if not how.loop:
                return True
        if not merged:
            how.stop.wait(POLL if report.left == 0 else _FIRST_PAUSE)
    return False
