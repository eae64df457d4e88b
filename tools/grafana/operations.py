"""Dashboard *operations*: what the engineer on call looks at."""

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
)

from pgrecall.ops.monitor.alerts import NAMESPACE

UP_OR_DOWN = {"0": ("down", "red"), "1": ("up", "green")}
YES_OR_NO = {"0": ("no", "red"), "1": ("yes", "green")}


def age(task: str) -> str:
    """Return the seconds since a task last succeeded."""
    success = of_monitor("pgrecall_task_last_success_timestamp_seconds", f'task="{task}"')
    return f"max(time() - {success})"


def _glance() -> list[Panel]:
    return [
        figure(
            "Database",
            "Whether the monitor reaches it.",
            "short",
            f"min({of_monitor('pgrecall_up')})",
            words=UP_OR_DOWN,
        ),
        figure(
            "Alerts firing",
            "Ours, whatever their severity.",
            "short",
            FIRING,
            limit=Limit(1, "below"),
            decimals=0,
        ),
        figure(
            "Last good backup",
            "How long ago it ended. Decades: there never was one.",
            "s",
            age("backup"),
            limit=Limit(OBJECTIVES.backup_age_seconds, "below"),
        ),
        figure(
            "Last restore drill",
            "How long ago a backup was restored for trial. Decades: never.",
            "s",
            age("restore_drill"),
            limit=Limit(OBJECTIVES.restore_drill_age_seconds, "below"),
        ),
        figure(
            "Disk full in",
            "At the pace of the last hours; at most a year is shown.",
            "d",
            f"min(clamp_max({of_monitor('pgrecall:disk_free_bytes:days_left')}, 365) "
            f"or 0 * {of_monitor('pgrecall_disk_free_bytes')} + 365)",
            limit=Limit(OBJECTIVES.disk_days_left, "above"),
            decimals=0,
        ),
        figure(
            "Schema current",
            "Whether it is the one that the monitor's version needs.",
            "short",
            f"min({of_monitor('pgrecall_schema_current')})",
            words=YES_OR_NO,
        ),
    ]


def _alerts() -> list[Panel]:
    return [
        lines(
            "Alerts",
            "Which fire, and when they did. Zero when all is well.",
            "short",
            Query(
                f'sum by (alertname) (ALERTS{{alertname=~"{NAMESPACE}.*",alertstate="firing"}}) '
                'or label_replace(vector(0), "alertname", "none", "", "")',
                "{{alertname}}",
            ),
        ),
        lines(
            "Collectors that fail",
            "Alerts that need one of them are blind meanwhile.",
            "short",
            Query(f"1 - {of_monitor('pgrecall_collector_success')}", "{{collector}}"),
        ),
        lines(
            "What collectors take",
            "Each asks the database once a scrape, or less often.",
            "s",
            Query(of_monitor("pgrecall_collector_duration_seconds"), "{{collector}}"),
        ),
    ]


def _connections() -> list[Panel]:
    return [
        lines(
            "Connections to the server",
            f"Of all databases. The alert is at {OBJECTIVES.connections_ratio:.0%} of the most.",
            "short",
            Query(f"sum by (state) ({of_monitor('pgrecall_connections')})", "{{state}}"),
            stacked=True,
        ),
        lines(
            "Connections in use",
            "Part of the most that the server takes.",
            "percentunit",
            Query(of_monitor("pgrecall:connections:ratio"), "{{instance}}"),
            limit=Limit(OBJECTIVES.connections_ratio, "below"),
        ),
        lines(
            "Oldest transaction",
            "One that stays open holds a connection, keeps vacuum from its work, may hold locks.",
            "s",
            Query(of_monitor("pgrecall_oldest_transaction_seconds"), "{{instance}}"),
        ),
        lines(
            "Clients' pools: connections",
            "Of agents that use the client, all processes.",
            "short",
            Query("sum by (state) (pgrecall_pool_connections)", "{{state}}"),
            Query("sum(pgrecall_pool_connections_max)", "most"),
        ),
        lines(
            "Clients' pools: calls that wait",
            "Now, for a connection; and those that got none.",
            "short",
            Query("sum(pgrecall_pool_requests_waiting)", "waiting"),
            Query(
                "sum(rate(pgrecall_pool_request_errors_total[$__rate_interval]))",
                "gave up a second",
            ),
        ),
        lines(
            "Clients' pools: wait",
            "Mean wait of a call, by process. The line is the objective.",
            "s",
            Query("pgrecall:pool_wait_seconds:mean", "{{instance}}"),
            limit=Limit(OBJECTIVES.pool_wait_seconds, "below"),
        ),
        lines(
            "PgBouncer: clients",
            "Active ones have a server connection, waiting ones queue.",
            "short",
            Query(
                f"sum by (database, state) ({of_monitor('pgrecall_pooler_clients')})",
                "{{database}}: {{state}}",
            ),
        ),
        lines(
            "PgBouncer: server connections",
            "By what they do, all users of a database.",
            "short",
            Query(
                f"sum by (database, state) ({of_monitor('pgrecall_pooler_servers')})",
                "{{database}}: {{state}}",
            ),
        ),
        lines(
            "PgBouncer: first in the queue",
            "How long it has waited. The line is the objective.",
            "s",
            Query(
                f"max by (database) ({of_monitor('pgrecall_pooler_client_wait_seconds')})",
                "{{database}}",
            ),
            limit=Limit(OBJECTIVES.pooler_wait_seconds, "below"),
        ),
    ]


def _tasks() -> list[Panel]:
    return [
        lines(
            "Since the last success",
            "By task. Decades: it never succeeded.",
            "s",
            Query(
                f"time() - {of_monitor('pgrecall_task_last_success_timestamp_seconds')}", "{{task}}"
            ),
        ),
        lines(
            "Duration of the last success",
            "By task. The line is the objective for backups.",
            "s",
            Query(of_monitor("pgrecall_task_last_duration_seconds"), "{{task}}"),
            limit=Limit(OBJECTIVES.backup_duration_seconds, "below"),
        ),
        lines(
            "Size of the last success",
            "A backup that shrinks lacks something.",
            "bytes",
            Query(of_monitor("pgrecall_task_last_size_bytes"), "{{task}}"),
        ),
    ]


def _server() -> list[Panel]:
    return [
        lines(
            "Disk",
            "Of the data directory, where the monitor can see it.",
            "bytes",
            Query(of_monitor("pgrecall_disk_free_bytes"), "free"),
            Query(of_monitor("pgrecall_disk_size_bytes"), "size"),
        ),
        lines(
            "WAL archive: failures an hour",
            "WAL gathers on the disk while it cannot be archived.",
            "short",
            Query(
                f"3600 * rate({of_monitor('pgrecall_wal_archive_failures_total')}"
                "[$__rate_interval])",
                "{{instance}}",
            ),
        ),
        lines(
            "Memory of the server's processes",
            "Where the server is on the monitor's machine.",
            "bytes",
            Query(of_monitor("pgrecall_server_memory_bytes"), "{{instance}}"),
        ),
        lines(
            "Processors",
            "Part of the machine's that the server uses, where the two are on one machine.",
            "percentunit",
            Query(of_monitor("pgrecall_server_cpu_ratio"), "{{instance}}"),
        ),
        lines(
            "Transactions a second",
            "Of the whole server, by database.",
            "ops",
            Query(
                'sum by (datname) (rate(pg_stat_database_xact_commit{datname!~"template.*|"}'
                "[$__rate_interval]))",
                "{{datname}}: committed",
            ),
            Query(
                'sum by (datname) (rate(pg_stat_database_xact_rollback{datname!~"template.*|"}'
                "[$__rate_interval]))",
                "{{datname}}: rolled back",
            ),
        ),
        lines(
            "Blocks found in memory",
            "Near 100 %: indexes fit into the server's memory.",
            "percentunit",
            Query(
                'sum by (datname) (rate(pg_stat_database_blks_hit{datname!~"template.*|"}[5m])) / '
                'sum by (datname) (rate(pg_stat_database_blks_hit{datname!~"template.*|"}[5m]) + '
                'rate(pg_stat_database_blks_read{datname!~"template.*|"}[5m]))',
                "{{datname}}",
            ),
            least=None,
        ),
    ]


def operations() -> Dashboard:
    """What the engineer on call looks at."""
    return board(
        "pgrecall-operations",
        "Agent memory: operations",
        "Whether all is well, and where to look first when it is not.",
        {
            "At a glance": _glance(),
            "Alerts and collectors": _alerts(),
            "Connections and pools": _connections(),
            "Backups and other tasks": _tasks(),
            "The server": _server(),
        },
    )
