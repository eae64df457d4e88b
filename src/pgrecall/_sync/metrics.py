# Generated from pgrecall/_async/metrics.py by tools/unasync.py. Do not edit.
"""Metrics: every operation measured in memory, written in batches in the background."""

from __future__ import annotations

import logging
import os
import random
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pgvector import Vector
from psycopg import Connection
from psycopg.rows import class_row

from pgrecall._sync.database import Database
from pgrecall._sync.runtime import Lock, Periodic
from pgrecall.core.checks import check_limit, check_time, check_ttl
from pgrecall.core.filters import chosen, scope_text
from pgrecall.core.pages import decode_cursor, to_page
from pgrecall.errors import InvalidInput, PgrecallError, ReadOnlyServer
from pgrecall.models import Metric, OperationSummary, Page, Totals
from pgrecall.sql import statement
from pgrecall.telemetry.operations import WORDED, Operation, OperationName, Telemetry

FLUSH_SECONDS = 5.0
FLUSH_ROWS = 500
KEPT_ROWS = 20_000
KEPT_SAMPLES = 20
PRUNE_SECONDS = 3600.0
PRUNE_ROWS = 10_000

logger = logging.getLogger("pgrecall")


class MetricStore:
    """What the memory's operations cost (table ``agent_memory_metrics``).

    Operations wait in memory and are written every few seconds, so that no caller waits for
    them and no failure to write them reaches a caller; what could not be kept is counted in
    ``lost`` and logged.
    """

    def __init__(self, database: Database, telemetry: Telemetry, *, enabled: bool) -> None:
        self._database = database
        self._writer = database
        self._enabled = enabled
        self._telemetry = telemetry
        self._sample_rate = database.settings.recall_sample_rate
        self._chance = random.Random()  # noqa: S311 - its own: an application may seed the other
        self._ended = (self.keep, *telemetry.ended) if enabled else telemetry.ended
        self._waiting: deque[tuple[float, Operation]] = deque()  # each with when it ended
        self._periodic: Periodic | None = None
        self._next_prune = 0.0
        self._pid = os.getpid()
        self._samples: deque[tuple[str, Vector, int, str, str | None, str | None]] = deque(
            maxlen=KEPT_SAMPLES
        )
        self._writing = Lock()
        self._worded = False  # whether texts were written since words were counted in
        self._told_read_only = False
        self.lost = 0

    def start(self) -> None:
        """Begin writing in the background."""
        if self._enabled:
            self._writer = self._database.aside()
            self._periodic = Periodic(self._keep_house, FLUSH_SECONDS)
            self._periodic.start()
        if self._telemetry.memories is not None:
            self._telemetry.memories.add(self._figures)

    def stop(self) -> None:
        """Write what waits, and end."""
        if self._pid == os.getpid() and self._periodic is not None:
            self._periodic.stop()
            self._periodic = None
            self.flush()
        if self._writer is not self._database:
            self._writer.close()
        if self._telemetry.memories is not None:
            self._telemetry.memories.remove(self._figures)

    def measure(
        self,
        operation: OperationName,
        project_id: str | None,
        connection: Connection[Any] | None,
    ) -> Operation:
        """Observe an operation; one on a caller's connection leaves no row."""
        return Operation(
            operation,
            project_id,
            kept=connection is None,
            ended=self._ended,
            spans=self._telemetry.spans,
        )

    def _observe(self, operation: OperationName, project_id: str | None) -> Operation:
        """Observe an operation on the rows themselves, which leaves none among them."""
        return Operation(
            operation,
            project_id,
            kept=False,
            ended=self._telemetry.ended,
            spans=self._telemetry.spans,
        )

    def keep(self, operation: Operation) -> None:
        """Keep a row of an operation until the next write."""
        if operation.failure is not None or not operation.kept:
            return
        if self._pid != os.getpid():
            self._begin_anew()
        if len(self._waiting) >= KEPT_ROWS:
            self.lost += 1
            return
        self._worded = self._worded or operation.name in WORDED
        self._waiting.append((time.time(), operation))
        if len(self._waiting) == FLUSH_ROWS and self._periodic is not None:
            self._periodic.wake()

    def sample(
        self,
        kind: str,
        query: Vector,
        wanted: int,
        filter_: str,
        project_id: str | None,
        asked: str | None,
    ) -> None:
        """Keep one of many queries until the next write, to be posed again exactly later."""
        if self._enabled and self._chance.random() < self._sample_rate:
            self._samples.append((kind, query, wanted, filter_, project_id, asked))

    def _fold_words(self) -> None:
        """Count in the words of what was written, so that neither a writer nor a search has to."""
        if not self._worded:
            return
        self._worded = False
        try:
            self._writer.execute(statement("metrics", "fold_words"), {})
        except PgrecallError as error:
            self._warn(error, "words could not be counted in, which slows searches down")

    def _write_samples(self) -> None:
        samples = [self._samples.popleft() for _ in range(len(self._samples))]
        if not samples:
            return
        names = ("kinds", "queries", "limits", "filters", "project_ids", "asked")
        columns = [[sample[i] for sample in samples] for i in range(len(names))]
        try:
            self._writer.execute(
                statement("metrics", "sample"), dict(zip(names, columns, strict=True))
            )
        except PgrecallError as error:
            self._warn(error, "%d sampled queries could not be kept", len(samples))

    def _warn(self, error: PgrecallError, what: str, *values: float) -> None:
        """Log what could not be done; on a standby, where nothing of it ever can, once."""
        if isinstance(error, ReadOnlyServer):
            if not self._told_read_only:
                logger.info("no metrics are kept, as they would be by a primary: %s", error)
            self._told_read_only = True
            return
        logger.warning(f"{what}: %s", *values, error)  # noqa: G004

    def _begin_anew(self) -> None:
        """In a fork: what waited is its parent's to write, and so is what writes it."""
        self._pid = os.getpid()
        self._waiting.clear()
        self._samples.clear()
        self._writing = Lock()
        self.lost = 0
        if self._enabled:
            self._periodic = Periodic(self._keep_house, FLUSH_SECONDS)
            self._periodic.start()

    def _figures(self) -> Mapping[str, int]:
        """Return what the pool counts, and the rows lost."""
        lost = self.lost if self._pid == os.getpid() else 0
        return {**self._database.pool_stats(), "metrics_lost": lost}

    def flush(self) -> int:
        """Write what waits now; returns how many were written. Never raises for the database."""
        if self._pid != os.getpid():
            self._begin_anew()
        with self._writing:  # what another is writing stands there when this returns
            self._write_samples()
            return self._write()

    def _write(self) -> int:
        written = 0
        while self._waiting:
            batch = [
                self._waiting.popleft() for _ in range(min(len(self._waiting), 4 * FLUSH_ROWS))
            ]
            try:
                written += self._writer.execute(
                    statement("metrics", "record"),
                    {
                        "timestamps": [datetime.fromtimestamp(ended, UTC) for ended, _ in batch],
                        "operation_types": [operation.name for _, operation in batch],
                        "durations_ms": [operation.seconds * 1000 for _, operation in batch],
                        "results_counts": [operation.results for _, operation in batch],
                        "project_ids": [operation.project_id for _, operation in batch],
                    },
                )
            except PgrecallError as error:
                self.lost += len(batch)
                self._warn(error, "%d metrics could not be written", len(batch))
                break
            except BaseException:  # given up meanwhile: nobody knows
                self.lost += len(batch)
                raise
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
        with self._observe("list_metrics", project_id) as observed:
            filters, parameters = _filters(operation_type, project_id, since, until, cursor)
            rows = self._database.fetch(
                statement("metrics", "list", filters),
                {**parameters, "limit": check_limit(limit) + 1},
                class_row(Metric),
                connection=connection,
            )
            page = to_page(rows, limit, lambda row: (row.timestamp, row.metric_id))
            observed.results = len(page)
        return page

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
        with self._observe("summarize_metrics", project_id) as observed:
            if connection is None:
                self.flush()
            filters, parameters = _filters(operation_type, project_id, since, until, None)
            rows = self._database.fetch(
                statement("metrics", "summary", filters),
                parameters,
                class_row(OperationSummary),
                connection=connection,
            )
            observed.results = len(rows)
        return {row.operation_type: row for row in rows}

    def totals(
        self, *, project_id: str | None = None, connection: Connection[Any] | None = None
    ) -> Totals:
        """Return how much is remembered, of one project or of all.

        Every episode asked for is counted, so it takes time where there are millions.

        Raises:
            InvalidInput: The project is not one that can be.
        """
        with self._observe("count_memory", project_id) as observed:
            rows = self._database.fetch(
                statement("metrics", "totals"),
                {"project_id": scope_text(project_id, "project_id")},
                class_row(Totals),
                connection=connection,
            )
            observed.results = len(rows)
        return rows[0]

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
        with self._observe("prune_metrics", project_id) as observed:
            kept = check_ttl(keep, "keep")
            if kept is None:
                raise InvalidInput("keep is None", hint="say for how long metrics are kept")
            observed.results = self._prune(kept, project_id, connection)
        return observed.results

    def _prune(
        self,
        kept: timedelta,
        project_id: str | None,
        connection: Connection[Any] | None,
    ) -> int:
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
        """Write what waits, count words in, and once an hour delete what is too old."""
        self.flush()
        self._fold_words()
        keep_days = self._database.settings.metrics_keep_days
        if not keep_days or time.monotonic() < self._next_prune:
            return
        self._next_prune = time.monotonic() + PRUNE_SECONDS
        try:
            self._prune(timedelta(days=keep_days), None, None)
        except PgrecallError as error:
            self._warn(error, "metrics older than %g days could not be deleted", keep_days)


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
