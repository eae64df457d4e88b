"""Dashboard *memory*: size, performance of queries, health of what is remembered."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard
from tools.grafana.panels import (
    FIRING,
    OBJECTIVES,
    Limit,
    Panel,
    Query,
    board,
    figure,
    lines,
    of_monitor,
    quantile,
)

from pgrecall.ops.monitor.alerts import RECALLS

CLIENT = "pgrecall_operation_duration_seconds"
RECORDED = "pgrecall_recorded_operation_duration_seconds"
OF_RECALL = f'operation=~"{RECALLS}"'


def _glance() -> list[Panel]:
    return [
        figure(
            "Episodes",
            "Decisions remembered, all projects.",
            "short",
            f"sum({of_monitor('pgrecall_episodes')})",
            decimals=0,
        ),
        figure(
            "Database size",
            "All of the database: tables, indexes, TOAST.",
            "bytes",
            f"sum({of_monitor('pgrecall_database_size_bytes')})",
        ),
        figure(
            "Recall, 95th percentile",
            "Slowest kind of recall, embedding aside. Red: above the objective.",
            "s",
            "max(pgrecall:recall_duration_seconds:p95 >= 0)",
            limit=Limit(OBJECTIVES.recall_p95_seconds, "below"),
        ),
        figure(
            "Index recall",
            "Of the truly nearest episodes, the part that the index finds; measured by probes in "
            "the last hour.",
            "percentunit",
            f"min({of_monitor('pgrecall_index_recall_ratio')})",
            limit=Limit(OBJECTIVES.index_recall_ratio, "above"),
            decimals=1,
        ),
        figure(
            "Without a vector",
            "Rows that wait for their embedding; recall does not find them.",
            "short",
            f"sum({of_monitor('pgrecall_embeddings_waiting')})",
            decimals=0,
        ),
        figure(
            "Alerts firing",
            "Ours, whatever their severity; see Operations.",
            "short",
            FIRING,
            limit=Limit(1, "below"),
            decimals=0,
        ),
    ]


def _size() -> list[Panel]:
    return [
        lines(
            "Database size",
            "All of the database.",
            "bytes",
            Query(of_monitor("pgrecall_database_size_bytes"), "{{instance}}"),
        ),
        lines(
            "Tables and their indexes",
            "Where the space goes. Long vectors lie in TOAST, which is counted with the table.",
            "bytes",
            Query(f"sum by (table) ({of_monitor('pgrecall_table_size_bytes')})", "{{table}}"),
            Query(
                f"sum by (table) ({of_monitor('pgrecall_table_index_size_bytes')})",
                "{{table}}: indexes",
            ),
            stacked=True,
        ),
        lines(
            "Growth a day",
            "The pace of the last hour, as of a whole day. Below zero after a clean-up.",
            "bytes",
            Query(
                f"86400 * deriv({of_monitor('pgrecall_database_size_bytes')}[1h])",
                "{{instance}}",
            ),
            least=None,
        ),
        lines(
            "Rows",
            "Estimated by PostgreSQL, so that nothing is read for it.",
            "short",
            Query(f"sum by (table) ({of_monitor('pgrecall_table_rows')})", "{{table}}"),
        ),
        lines(
            "Dead rows",
            "Waiting for vacuum. Many in agent_episodes cost recall its quality: the index still "
            "leads to them.",
            "short",
            Query(f"sum by (table) ({of_monitor('pgrecall_table_dead_rows')})", "{{table}}"),
        ),
        lines(
            "Vector indexes",
            "Recall is fast while they fit into the server's memory.",
            "bytes",
            Query(
                f"sum by (index) ({of_monitor('pgrecall_vector_index_size_bytes')})", "{{index}}"
            ),
        ),
    ]


def _performance() -> list[Panel]:
    return [
        lines(
            "Recall as agents see it",
            "Of agents that use the CLIENT, embedding aside. The line is the objective for the "
            "95th percentile.",
            "s",
            Query(quantile(0.5, CLIENT, OF_RECALL, by=""), "half"),
            Query(quantile(0.95, CLIENT, OF_RECALL, by=""), "95 of 100"),
            Query(quantile(0.99, CLIENT, OF_RECALL, by=""), "99 of 100"),
            limit=Limit(OBJECTIVES.recall_p95_seconds, "below"),
        ),
        lines(
            "Every operation, 95th percentile",
            "By the rows of agent_memory_metrics: agents that use SQL alone are in it too.",
            "s",
            Query(quantile(0.95, RECORDED), "{{operation}}"),
        ),
        lines(
            "Embedding of texts, 95th percentile",
            "How long the model takes, a call each.",
            "s",
            Query(quantile(0.95, "pgrecall_embedding_duration_seconds", by="mode"), "{{mode}}"),
        ),
        lines(
            "Operations a second",
            "Those that succeeded.",
            "ops",
            Query(f"sum by (operation) (rate({CLIENT}_count[$__rate_interval]))", "{{operation}}"),
            stacked=True,
        ),
        lines(
            "Failures a second",
            "By the error that the caller got; see the reference of errors. Zero when all is well.",
            "ops",
            Query(
                "sum by (error) (rate(pgrecall_operation_failures_total[$__rate_interval])) "
                'or label_replace(vector(0), "error", "none", "", "")',
                "{{error}}",
            ),
        ),
        lines(
            "Rows an operation",
            "Returned or changed. Recalls that return nothing show here.",
            "short",
            Query(
                "sum by (operation) (rate(pgrecall_operation_results_total[$__rate_interval])) / "
                f"sum by (operation) (rate({CLIENT}_count[$__rate_interval]))",
                "{{operation}}",
            ),
        ),
    ]


def _health() -> list[Panel]:
    return [
        lines(
            "What the index finds",
            "Recall: the part of the truly nearest that it finds. Precision: the part of what it "
            "returns that belongs there. Means of the last hour.",
            "percentunit",
            Query(of_monitor("pgrecall_index_recall_ratio"), "recall"),
            Query(of_monitor("pgrecall_index_precision_ratio"), "precision"),
            limit=Limit(OBJECTIVES.index_recall_ratio, "above"),
            least=None,
        ),
        lines(
            "Rows that wait for a vector",
            "Recorded with embed=later, or without an embedder.",
            "short",
            Query(f"sum by (table) ({of_monitor('pgrecall_embeddings_waiting')})", "{{table}}"),
        ),
        lines(
            "The oldest that waits",
            "The line is the objective. Zero when none waits.",
            "s",
            Query(
                f"max by (table) ({of_monitor('pgrecall_embeddings_oldest_waiting_seconds')})",
                "{{table}}",
            ),
            limit=Limit(OBJECTIVES.embeddings_age_seconds, "below"),
        ),
        lines(
            "Sessions",
            "Overdue ones have expired and still count as active: clean-up does not run.",
            "short",
            Query(f"sum by (state) ({of_monitor('pgrecall_sessions')})", "{{state}}"),
            width="half",
        ),
        lines(
            "Rows lost from agent_memory_metrics",
            "They could not be written in time; the operations themselves went well.",
            "short",
            Query("sum(increase(pgrecall_metrics_lost_total[$__rate_interval]))", "lost"),
            width="half",
        ),
    ]


def memory() -> Dashboard:
    """Size of the database and performance of its queries, as specified, and memory's health."""
    return board(
        "pgrecall-memory",
        "Agent memory: memory",
        "How large the memory is, how fast and how well it recalls.",
        {
            "At a glance": _glance(),
            "Size of the database": _size(),
            "Query performance": _performance(),
            "Health of the memory": _health(),
        },
    )
