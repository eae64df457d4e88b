# Generated from pgrecall/_async/metrics.py by tools/unasync.py. Do not edit.
"""Metrics: every operation measured in memory, written in batches in the background."""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

from psycopg import Connection
from psycopg.rows import class_row

from pgrecall._sync.database import Database
from pgrecall._sync.runtime import Periodic
from pgrecall.core.checks import check_limit, check_time, check_ttl
from pgrecall.core.filters import chosen, scope_text
from pgrecall.core.pages import decode_cursor, to_page
from pgrecall.errors import InvalidInput, PgrecallError
from pgrecall.models import Metric, OperationSummary, Page
from pgrecall.sql import statement

FLUSH_SECONDS = 5.0
FLUSH_ROWS = 500
KEPT_ROWS = 20_000
PRUNE_SECONDS = 3600.0
PRUNE_ROWS = 10_000

logger = logging.getLogger("pgrecall")


@dataclass(frozen=True, slots=True)
class Measurement:
    """One finished operation."""

    timestamp: datetime
    operation_type: str
    duration_ms: float
    results_count: int
    project_id: str | None


class Measured:
    """Times a block of code and keeps the measurement if it succeeds; set ``results`` inside."""

    __slots__ = ("_metrics", "_operation", "_project", "_start", "results")

    def __init__(
        self, metrics: MetricStore | None, operation: str, project: str | None
    ) -> None:
        self._metrics = metrics
        self._operation = operation
        self._project = project
        self.results = 0

    def __enter__(self) -> Self:
        self._start = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None and self._metrics is not None:
            duration_ms = (time.perf_counter() - self._start) * 1000
            self._metrics.keep(
                Measurement(
                    datetime.now(UTC),
                    self._operation,
                    duration_ms,
                    self.results,
                    self._project,
                )
            )


class MetricStore:
    """What the memory's operations cost (table ``agent_memory_metrics``).

    Measurements wait in memory and are written every few seconds, so that no caller waits for
    them and no failure to write them reaches a caller; what could not be kept is counted in
    ``lost`` and logged.
    """

    def __init__(self, database: Database, *, enabled: bool) -> None:
        self._database = database
        self._enabled = enabled
        self._waiting: deque[Measurement] = deque()
        self._periodic: Periodic | None = None
        self._next_prune = 0.0
        self.lost = 0

    def start(self) -> None:
        """Begin writing in the background."""
        if self._enabled:
            self._periodic = Periodic(self._keep_house, FLUSH_SECONDS)
            self._periodic.start()

    def stop(self) -> None:
        """Write what waits, and end."""
        if self._periodic is not None:
            self._periodic.stop()
            self._periodic = None
            self.flush()

    def measure(
        self, operation: str, project_id: str | None, connection: Connection[Any] | None
    ) -> Measured:
        """Time an operation; one on a caller's connection leaves no metric."""
        return Measured(self if connection is None else None, operation, project_id)

    def keep(self, measurement: Measurement) -> None:
        """Keep a measurement until the next write."""
        if not self._enabled:
            return
        if len(self._waiting) >= KEPT_ROWS:
            self.lost += 1
            return
        self._waiting.append(measurement)
        if len(self._waiting) == FLUSH_ROWS and self._periodic is not None:
            self._periodic.wake()

    def flush(self) -> int:
        """Write what waits now; returns how many were written. Never raises for the database."""
        written = 0
        while self._waiting:
            batch = [
                self._waiting.popleft() for _ in range(min(len(self._waiting), 4 * FLUSH_ROWS))
            ]
            try:
                written += self._database.execute(
                    statement("metrics", "record"),
                    {
                        "timestamps": [row.timestamp for row in batch],
                        "operation_types": [row.operation_type for row in batch],
                        "durations_ms": [row.duration_ms for row in batch],
                        "results_counts": [row.results_count for row in batch],
                        "project_ids": [row.project_id for row in batch],
                    },
                )
            except PgrecallError as error:
                self.lost += len(batch)
                logger.warning("%d metrics could not be written: %s", len(batch), error)
                break
        return written

    def list(
        self,
        *,
        operation_type: str | None = None,
        project_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
        connection: Connection[Any] | None = None,
    ) -> Page[Metric]:
        """Return stored measurements, newest first, a page at a time.

        Raises:
            InvalidInput: A filter cannot be meant.
        """
        filters, parameters = _filters(operation_type, project_id, since, until, cursor)
        rows = self._database.fetch(
            statement("metrics", "list", filters),
            {**parameters, "limit": check_limit(limit) + 1},
            class_row(Metric),
            connection=connection,
        )
        return to_page(rows, limit, lambda row: (row.timestamp, row.metric_id))

    def summary(
        self,
        *,
        operation_type: str | None = None,
        project_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        connection: Connection[Any] | None = None,
    ) -> dict[str, OperationSummary]:
        """Return counts and latencies (milliseconds) of each kind of operation.

        What waits in this client is written first, so that it counts.
        """
        if connection is None:
            self.flush()
        filters, parameters = _filters(operation_type, project_id, since, until, None)
        rows = self._database.fetch(
            statement("metrics", "summary", filters),
            parameters,
            class_row(OperationSummary),
            connection=connection,
        )
        return {row.operation_type: row for row in rows}

    def prune(
        self,
        *,
        keep: timedelta | float,
        project_id: str | None = None,
        connection: Connection[Any] | None = None,
    ) -> int:
        """Delete measurements older than ``keep`` (a timedelta, or seconds); returns how many.

        Raises:
            InvalidInput: ``keep`` is not a positive time.
        """
        kept = check_ttl(keep, "keep")
        if kept is None:
            raise InvalidInput("keep is None", hint="say for how long metrics are kept")
        filters, parameters = _filters(None, project_id, None, None, None)
        parameters |= {"before": datetime.now(UTC) - kept, "limit": PRUNE_ROWS}
        deleted, batch = 0, PRUNE_ROWS
        while batch == PRUNE_ROWS:
            batch = self._database.execute(
                statement("metrics", "prune", filters), parameters, connection=connection
            )
            deleted += batch
        return deleted

    def _keep_house(self) -> None:
        """Write what waits, and once an hour delete what is too old."""
        self.flush()
        keep_days = self._database.settings.metrics_keep_days
        if not keep_days or time.monotonic() < self._next_prune:
            return
        self._next_prune = time.monotonic() + PRUNE_SECONDS
        try:
            self.prune(keep=timedelta(days=keep_days))
        except PgrecallError as error:
            logger.warning("metrics older than %g days could not be deleted: %s", keep_days, error)


def _filters(
    operation_type: str | None,
    project_id: str | None,
    since: datetime | None,
    until: datetime | None,
    cursor: str | None,
) -> tuple[tuple[str, ...], dict[str, Any]]:
    return chosen(
        {
            "operation_type": scope_text(operation_type, "operation_type"),
            "project_id": scope_text(project_id, "project_id"),
            "since": check_time(since, "since"),
            "until": check_time(until, "until"),
            **decode_cursor(cursor),
        }
    )
