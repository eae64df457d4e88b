"""Every metric there is: name, kind, labels and meaning, in one place.

Agents' processes show those of ``AGENT``, `pgrecall monitor` those of ``MONITOR``.
``docs/reference/metrics.md`` is made from this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["gauge", "counter", "histogram"]
Process = Literal["agent", "monitor"]

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histograms of durations, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        name: With its unit, and ``_total`` if it is a counter.
        kind: As Prometheus calls it.
        help: What it means, a sentence.
        labels: Names of its labels.
        process: Where it is to be had.
        source: The collector that it comes from; empty for agents' own.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    process: Process = "monitor"
    source: str = ""

    @property
    def samples(self) -> tuple[str, ...]:
        """The names under which Prometheus keeps it."""
        if self.kind == "histogram":
            return tuple(f"{self.name}_{part}" for part in ("bucket", "count", "sum"))
        return (self.name,)


def _agent(name: str, kind: Kind, help_: str, *labels: str) -> Metric:
    return Metric(name=name, kind=kind, help=help_, labels=labels, process="agent")


def _from(source: str, *metrics: tuple[str, Kind, str, *tuple[str, ...]]) -> tuple[Metric, ...]:
    return tuple(
        Metric(name=name, kind=kind, help=help_, labels=tuple(labels), source=source)
        for name, kind, help_, *labels in metrics
    )


AGENT: tuple[Metric, ...] = (
    _agent(
        "pgrecall_operation_duration_seconds", "histogram",
        "How long operations that succeeded took, without the embedding of texts.",
        "operation", "project",
    ),
    _agent(
        "pgrecall_operation_results_total", "counter",
        "Rows that operations returned or changed.", "operation", "project",
    ),
    _agent(
        "pgrecall_operation_failures_total", "counter",
        "Operations that failed, by the class of the error; Cancelled if the caller gave up, "
        "Other if the error is none of ours.", "operation", "error", "project",
    ),
    _agent(
        "pgrecall_embedding_duration_seconds", "histogram",
        "How long calls of the embedder took.", "mode",
    ),
    _agent(
        "pgrecall_metrics_lost_total", "counter",
        "Rows that could not be written to agent_memory_metrics.",
    ),
    _agent(
        "pgrecall_pool_connections", "gauge",
        "Connections of this process's pools, by what they do.", "state",
    ),
    _agent(
        "pgrecall_pool_connections_max", "gauge", "Most connections that this process's pools open."
    ),
    _agent(
        "pgrecall_pool_requests_waiting", "gauge", "Calls that wait for a connection now."
    ),
    _agent(
        "pgrecall_pool_requests_total", "counter", "Connections asked of this process's pools."
    ),
    _agent(
        "pgrecall_pool_requests_queued_total", "counter",
        "Connections asked of this process's pools that were not free at once.",
    ),
    _agent(
        "pgrecall_pool_request_errors_total", "counter",
        "Connections asked of this process's pools that were not given in time.",
    ),
    _agent(
        "pgrecall_pool_wait_seconds_total", "counter", "Time that calls waited for a connection."
    ),
)  # fmt: skip

MONITOR: tuple[Metric, ...] = (
    *_from(
        "",
        ("pgrecall_build_info", "gauge", "Always 1; the version of the monitor.", "version"),
        ("pgrecall_up", "gauge", "Whether the database answers."),
        ("pgrecall_collector_success", "gauge",
         ("Whether a collector read what it is for, else its metrics are missing; or the last "
         "sample or probe was written."),
         "collector"),
        ("pgrecall_collector_duration_seconds", "gauge",
         "How long a collector's last look took.", "collector"),
    ),
    *_from(
        "sizes",
        ("pgrecall_table_rows", "gauge", "Rows of a table, as the statistics estimate.", "table"),
        ("pgrecall_table_dead_rows", "gauge",
         "Rows of a table that vacuum has to clear away, as the statistics estimate.", "table"),
        ("pgrecall_table_size_bytes", "gauge",
         "Size of a table without its indexes, values out of line included.", "table"),
        ("pgrecall_table_index_size_bytes", "gauge", "Size of all indexes of a table.", "table"),
        ("pgrecall_database_size_bytes", "gauge", "Size of the database."),
    ),
    *_from(
        "embeddings",
        ("pgrecall_embeddings_waiting", "gauge",
         "Rows without a vector, which recall by similarity does not find.", "table"),
        ("pgrecall_embeddings_oldest_waiting_seconds", "gauge",
         "Age of the oldest row without a vector, 0 if there is none.", "table"),
    ),
    *_from(
        "state",
        ("pgrecall_sessions", "gauge",
         "Sessions that count as active; overdue are those whose time is up.", "state"),
        ("pgrecall_invalid_indexes", "gauge",
         "Indexes whose build was cut short: queries don't use them, writes pay for them."),
        ("pgrecall_schema_current", "gauge",
         "Whether the schema is at the revision that this version needs."),
        ("pgrecall_schema_info", "gauge", "Always 1; the revision of the schema.", "revision"),
        ("pgrecall_vector_index_usable", "gauge",
         "Whether a vector index is there and valid.", "index"),
        ("pgrecall_vector_index_size_bytes", "gauge", "Size of a vector index.", "index"),
    ),
    *_from(
        "server",
        ("pgrecall_connections", "gauge",
         "Connections of clients to the server, to all its databases.", "state"),
        ("pgrecall_connections_max", "gauge",
         "Most connections of roles without special rights."),
        ("pgrecall_oldest_transaction_seconds", "gauge",
         "Age of the oldest open transaction of a client."),
        ("pgrecall_in_recovery", "gauge", "Whether the server is a standby."),
        ("pgrecall_wal_archive_failures_total", "counter",
         "Failed tries to archive WAL, as the server counts them."),
        ("pgrecall_wal_archive_failing", "gauge",
         "Whether the last try to archive WAL failed; 0 where nothing is archived."),
    ),
    *_from(
        "host",
        ("pgrecall_disk_free_bytes", "gauge",
         "Free space on the disk of the server's data; only where the monitor can see it."),
        ("pgrecall_disk_size_bytes", "gauge",
         "Size of the disk of the server's data; only where the monitor can see it."),
        ("pgrecall_server_memory_bytes", "gauge",
         "Memory of the server's processes, shared memory counted once; only on its machine."),
        ("pgrecall_server_cpu_ratio", "gauge",
         "Share of the machine's processors that the server used lately; only on its machine."),
    ),
    *_from(
        "operations",
        ("pgrecall_recorded_operation_duration_seconds", "histogram",
         "How long operations took, by the rows of agent_memory_metrics, probes left out.",
         "operation"),
        ("pgrecall_recorded_operation_results_total", "counter",
         "Rows that operations returned or changed, by the rows of agent_memory_metrics.",
         "operation"),
    ),
    *_from(
        "quality",
        ("pgrecall_index_recall_ratio", "gauge",
         "Share of the truly nearest episodes that the index found, mean of the last hour."),
        ("pgrecall_index_precision_ratio", "gauge",
         "Share of what the index found that was truly nearest, mean of the last hour."),
        ("pgrecall_sample_timestamp_seconds", "gauge", "When the last sample was written."),
    ),
    *_from(
        "learning",
        ("pgrecall_episodes", "gauge", "Episodes, counted."),
        ("pgrecall_episodes_with_outcome", "gauge", "Episodes with a recorded outcome."),
        ("pgrecall_outcomes", "gauge", "Episodes with a quality of their outcome."),
        ("pgrecall_outcome_quality_points", "gauge",
         "All qualities added up; divided by pgrecall_outcomes, their mean."),
        ("pgrecall_knowledge_active", "gauge", "Active knowledge.", "type"),
        ("pgrecall_knowledge_confidence_ratio", "gauge",
         "Mean confidence of active knowledge.", "type"),
        ("pgrecall_knowledge_applied", "gauge", "How often active knowledge was applied.", "type"),
        ("pgrecall_knowledge_successes", "gauge",
         "How often active knowledge was applied with success.", "type"),
        ("pgrecall_knowledge_failures", "gauge",
         "How often active knowledge was applied without success.", "type"),
    ),
    *_from(
        "tasks",
        ("pgrecall_task_last_success_timestamp_seconds", "gauge",
         "When the last good run of a task ended; 0 if there was none.", "task"),
        ("pgrecall_task_last_duration_seconds", "gauge",
         "How long the last good run of a task took.", "task"),
        ("pgrecall_task_last_size_bytes", "gauge",
         "How much the last good run of a task made, if it said so.", "task"),
        ("pgrecall_task_last_failed", "gauge", "Whether the last run of a task failed.", "task"),
    ),
    *_from(
        "pooler",
        ("pgrecall_pooler_clients", "gauge",
         "Clients of PgBouncer: active have a server connection, waiting want one.",
         "database", "user", "state"),
        ("pgrecall_pooler_servers", "gauge",
         "Server connections of PgBouncer: active serve a client, idle could.",
         "database", "user", "state"),
        ("pgrecall_pooler_client_wait_seconds", "gauge",
         "How long the client that waits longest has waited.", "database", "user"),
    ),
)  # fmt: skip

METRICS: dict[str, Metric] = {metric.name: metric for metric in (*AGENT, *MONITOR)}
"""Every metric by its name."""

SOURCES: tuple[str, ...] = tuple(
    dict.fromkeys(metric.source for metric in MONITOR if metric.source)
)
"""The collectors of the monitor."""


def sample_names() -> tuple[str, ...]:
    """Return every name that a query may ask for."""
    return tuple(name for metric in METRICS.values() for name in metric.samples)
