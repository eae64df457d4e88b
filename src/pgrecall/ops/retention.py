"""Retention: episodes that are older than they need be are deleted, and no writer waits for it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import psycopg

from pgrecall.driver import Statements, connect, translate
from pgrecall.ops.pace import Advance
from pgrecall.sql import load

BATCH = 200
SHARE = 0.5
"""Share of the time in which rows are deleted; in the rest others have the server to themselves."""
_BEGINNING = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True, kw_only=True)
class Pruned:
    """What was done, or would be.

    Attributes:
        old: Episodes that were old enough.
        deleted: Of these, deleted.
        evidence: Kept, as knowledge rests on them.
    """

    old: int = 0
    deleted: int = 0
    evidence: int = 0

    @property
    def left(self) -> int:
        """Kept for the next time, as somebody was at work on them or the work was stopped."""
        return max(self.old - self.deleted - self.evidence, 0)


@dataclass(slots=True, kw_only=True)
class Retention:
    """Which episodes are deleted, and how fast.

    Attributes:
        before: Those from before this time.
        project_id: Of one project; None for all.
        batch: How many in one transaction.
        share: Share of the time to work in, above 0 and up to 1.
        stop: Ends it after the batch that is under way.
        on_progress: Called after every batch.
    """

    before: datetime
    project_id: str | None = None
    batch: int = BATCH
    share: float = SHARE
    stop: threading.Event = field(default_factory=threading.Event)
    on_progress: Advance | None = None


def prune(dsn: str, how: Retention, *, dry_run: bool = False) -> Pruned:
    """Delete old episodes, a few in each transaction, with pauses in between.

    What knowledge rests on as evidence is kept. Stopped or killed, it has deleted whole batches.

    Args:
        dsn: Connection string of the application's role; a pooler is fine.
        how: Which, and how fast.
        dry_run: Only count.

    Raises:
        Unavailable: The server could not be reached.
        DatabaseError: A statement failed; the batches before it are deleted.
    """
    done = Pruned()
    try:
        with connect(dsn, purpose="retention") as connection:
            run = Statements(connection, load("retention"))
            values = {"before": how.before, "project_id": how.project_id}
            old = run.rows("old", values)
            done.old = sum(row["episodes"] for row in old)
            for row in old if not dry_run else ():
                _prune_project(run, how, row["project_id"], done)
    except psycopg.Error as error:
        raise translate(error) from error
    return done


def _prune_project(run: Statements, how: Retention, project_id: str, done: Pruned) -> None:
    after, after_id = _BEGINNING, UUID(int=0)
    begun = time.monotonic()
    while not how.stop.is_set():
        batch_begun = time.monotonic()
        values = {"project_id": project_id, "before": how.before, "after": after,
                  "after_id": after_id, "count": how.batch}  # fmt: skip
        with run.connection.transaction():
            held = run.rows("hold", values)
            ids = [row["episode_id"] for row in held]
            # A statement of its own: it sees all that became evidence before the rows were held.
            deleted = len(run.rows("delete", {"episode_ids": ids})) if ids else 0
        if not held:
            return
        after, after_id = held[-1]["timestamp"], held[-1]["episode_id"]
        done.deleted += deleted
        done.evidence += len(held) - deleted
        now = time.monotonic()
        if how.on_progress is not None:
            handled = done.deleted + done.evidence
            how.on_progress(handled, done.old, project_id, handled / max(now - begun, 1e-9))
        how.stop.wait((now - batch_begun) * (1 / how.share - 1))
