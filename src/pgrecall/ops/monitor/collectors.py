"""What the monitor reads from the database, one function for each source.

A collector gets the monitor's statements in a transaction of its own and returns families of
metrics. ``operations`` has memory, hence a file of its own; ``host`` and ``pooler`` do not ask the
database, or not only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from pgrecall.driver import Row, Statements
from pgrecall.migrations import HEAD
from pgrecall.telemetry.families import Family, counter, gauge

Collect = Callable[[Statements], Iterable[Family]]

SLOW_SECONDS = 60.0
"""How long what reads every episode is shown before it is read again."""

MOST_TASKS = 50
"""Tasks that are shown, since whoever records a run may name it as he likes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One collector.

    Attributes:
        name: As in the catalogue.
        collect: Reads it.
        age_seconds: How old what it read may become before it is read again.
    """

    name: str
    collect: Collect
    age_seconds: float = 0.0


def sizes(statements: Statements) -> Iterator[Family]:
    """Sizes of tables, indexes and the database."""
    rows = statements.rows("sizes")
    for name, column in (
        ("pgrecall_table_rows", "live_rows_estimated"),
        ("pgrecall_table_dead_rows", "dead_rows_estimated"),
        ("pgrecall_table_size_bytes", "table_bytes"),
        ("pgrecall_table_index_size_bytes", "index_bytes"),
    ):
        yield gauge(name, _by(rows, "table_name", column))
    yield _single("pgrecall_database_size_bytes", statements.value("database_size"))


def embeddings(statements: Statements) -> Iterator[Family]:
    """What waits for a vector."""
    rows = statements.rows("embeddings")
    yield gauge("pgrecall_embeddings_waiting", _by(rows, "table_name", "waiting"))
    yield gauge("pgrecall_embeddings_oldest_waiting_seconds", _by(rows, "table_name", "oldest_age"))


def state(statements: Statements) -> Iterator[Family]:
    """Sessions, indexes and the schema."""
    row = statements.one("state")
    yield gauge(
        "pgrecall_sessions",
        [(("active",), row["sessions_active"]), (("overdue",), row["sessions_overdue"])],
    )
    yield _single("pgrecall_invalid_indexes", row["invalid_indexes"])
    yield _single("pgrecall_schema_current", row["revision"] == HEAD)
    yield gauge("pgrecall_schema_info", [((row["revision"] or "none",), 1)])
    rows = statements.rows("vector_indexes")
    yield gauge("pgrecall_vector_index_usable", _by(rows, "index_name", "usable"))
    yield gauge("pgrecall_vector_index_size_bytes", _by(rows, "index_name", "index_bytes"))


def server(statements: Statements) -> Iterator[Family]:
    """Connections, transactions, recovery and archiving of the whole server."""
    counts = dict.fromkeys(("active", "idle", "idle_in_transaction", "other"), 0)
    counts |= {row["state"]: row["count"] for row in statements.rows("connections")}
    yield gauge("pgrecall_connections", [((name,), count) for name, count in counts.items()])
    row = statements.one("server")
    yield _single("pgrecall_connections_max", row["connections_max"])
    yield _single("pgrecall_oldest_transaction_seconds", row["oldest_transaction"])
    yield _single("pgrecall_in_recovery", row["in_recovery"])
    yield counter("pgrecall_wal_archive_failures_total", [((), row["archive_failures"])])
    yield _single("pgrecall_wal_archive_failing", row["archive_failing"])


def quality(statements: Statements) -> Iterator[Family]:
    """How much of the truth the index finds, and when the last sample was written."""
    row = statements.one("quality")
    for name, value in (
        ("pgrecall_index_recall_ratio", row["recall"]),
        ("pgrecall_index_precision_ratio", row["precision"]),
        ("pgrecall_sample_timestamp_seconds", statements.value("last_sample")),
    ):
        if value is not None:
            yield _single(name, value)


def learning(statements: Statements) -> Iterator[Family]:
    """Outcomes and knowledge."""
    row = statements.one("learning")
    for name, column in (
        ("pgrecall_episodes", "episodes"),
        ("pgrecall_episodes_with_outcome", "episodes_with_outcome"),
        ("pgrecall_outcomes", "outcomes"),
        ("pgrecall_outcome_quality_points", "outcome_quality_sum"),
    ):
        yield _single(name, row[column])
    rows = statements.rows("knowledge")
    for name, column in (
        ("pgrecall_knowledge_active", "active"),
        ("pgrecall_knowledge_confidence_ratio", "confidence_mean"),
        ("pgrecall_knowledge_applied", "times_applied"),
        ("pgrecall_knowledge_successes", "success_count"),
        ("pgrecall_knowledge_failures", "failure_count"),
    ):
        yield gauge(name, _by(rows, "knowledge_type", column))


def tasks(statements: Statements) -> Iterator[Family]:
    """Backups, restore drills and whatever else reports its runs."""
    rows = [*islice(statements.rows("tasks"), MOST_TASKS)]
    for name, column in (
        ("pgrecall_task_last_success_timestamp_seconds", "last_success"),
        ("pgrecall_task_last_duration_seconds", "last_success_seconds"),
        ("pgrecall_task_last_size_bytes", "last_success_bytes"),
        ("pgrecall_task_last_failed", "last_failed"),
    ):
        yield gauge(name, _by(rows, "task", column))


DATABASE: tuple[Source, ...] = (
    Source(name="sizes", collect=sizes),
    Source(name="embeddings", collect=embeddings),
    Source(name="state", collect=state),
    Source(name="server", collect=server),
    Source(name="quality", collect=quality),
    Source(name="learning", collect=learning, age_seconds=SLOW_SECONDS),
    Source(name="tasks", collect=tasks),
)
"""The collectors that need nothing but the database."""


def _single(name: str, value: float) -> Family:
    return gauge(name, [((), float(value))])


def _by(rows: Iterable[Row], label: str, column: str) -> list[tuple[tuple[str, ...], float]]:
    """Return the values of a column with those of a label; rows that have none are left out."""
    return [((row[label],), float(row[column])) for row in rows if row[column] is not None]
