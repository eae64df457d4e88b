"""The rules for Prometheus: what is computed ahead, and which alerts follow from the objectives.

An alert whose metric has vanished must not fall silent. ``MonitorDown`` fires when the monitor can
not be scraped, or is not scraped at all; ``CollectorFailing`` when it answers and lacks something,
or when an exporter or an agent that is to be scraped does not answer. Each alert names in
``guarded_by`` which of the two speaks in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pgrecall.ops.monitor.objectives import Objectives, seconds_of

MONITOR, AGENTS, POSTGRES, PGBOUNCER = (
    "pgrecall-monitor",
    "pgrecall-agents",
    "pgrecall-postgres",
    "pgrecall-pgbouncer",
)
"""The jobs under which Prometheus scrapes: ours, and the exporters."""

JOBS = (MONITOR, AGENTS, POSTGRES, PGBOUNCER)
RUNBOOKS = "docs/runbooks"
NAMESPACE = "Pgrecall"
REFUSED = "InvalidInput|InvalidVector|NotFound|Conflict|Cancelled"
"""Failures by what an operation was asked, or since its caller gave it up: none of ours."""

RECALLS = "recall_similar|recall_knowledge"
NEVER = 1_000_000_000.0
"""An age of more seconds than this (32 years) is that of something that never was."""

Severity = Literal["page", "ticket"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert.

    Attributes:
        name: Without the prefix.
        severity: ``page`` wakes somebody, ``ticket`` waits for the morning.
        expr: When it fires; PromQL.
        for_seconds: How long that must hold.
        summary: One line; a template of Prometheus.
        description: The value, and what to do first.
        guarded_by: The alert that fires when this one's metrics are not there.
    """

    name: str
    severity: Severity
    expr: str
    for_seconds: float
    summary: str
    description: str
    guarded_by: str

    @property
    def full_name(self) -> str:
        """Its name in Prometheus."""
        return NAMESPACE + self.name


def recordings(objectives: Objectives) -> dict[str, str]:
    """Return what is computed ahead, for alerts and dashboards: name and PromQL."""
    window, disk_window = objectives.window, objectives.disk_window
    return {
        # Of agents that use the client by their own histograms; of those that use SQL alone by
        # the rows of agent_memory_metrics, which clients write too.
        "pgrecall:recall_duration_seconds:p95": f"""
max by (operation) (
  label_replace(
    histogram_quantile(0.95, sum by (le, operation) (
      rate(pgrecall_operation_duration_seconds_bucket{{operation=~"{RECALLS}"}}[{window}])
    )) >= 0, "source", "client", "", "")
  or label_replace(
    histogram_quantile(0.95, sum by (le, operation) (
      rate(pgrecall_recorded_operation_duration_seconds_bucket{{operation=~"{RECALLS}"}}[{window}])
    )) >= 0, "source", "recorded", "", "")
)""",
        # An operation may only ever have failed, or only ever have succeeded.
        "pgrecall:operation_failures:rate": f"""
sum by (operation) (rate(pgrecall_operation_failures_total{{error!~"{REFUSED}"}}[{window}]))
or 0 * sum by (operation) (rate(pgrecall_operation_duration_seconds_count[{window}]))""",
        "pgrecall:operation_successes:rate": f"""
sum by (operation) (rate(pgrecall_operation_duration_seconds_count[{window}]))
or 0 * pgrecall:operation_failures:rate""",
        "pgrecall:operation_failures:ratio": """
pgrecall:operation_failures:rate
/ (pgrecall:operation_failures:rate + pgrecall:operation_successes:rate)""",
        "pgrecall:pool_wait_seconds:mean": f"""
sum by (job, instance) (rate(pgrecall_pool_wait_seconds_total[{window}]))
/ sum by (job, instance) (rate(pgrecall_pool_requests_total[{window}]))""",
        "pgrecall:connections:ratio": """
sum by (job, instance) (pgrecall_connections)
/ on (job, instance) pgrecall_connections_max""",
        # There only while free space shrinks.
        "pgrecall:disk_free_bytes:days_left": f"""
pgrecall_disk_free_bytes / -(deriv(pgrecall_disk_free_bytes[{disk_window}]) < 0) / 86400""",
    }


def alerts(objectives: Objectives) -> tuple[Alert, ...]:
    """Return all alerts."""
    return (
        *_of_monitoring(objectives),
        *_of_agents(objectives),
        *_of_indexes(objectives),
        *_of_tasks(objectives),
        *_of_the_server(objectives),
    )


def _of_monitoring(objectives: Objectives) -> tuple[Alert, ...]:
    return (
        Alert(
            name="MonitorDown",
            severity="page",
            expr=f'up{{job="{MONITOR}"}} == 0 or absent(up{{job="{MONITOR}"}})',
            for_seconds=120,
            summary="The monitor does not answer Prometheus",
            description="No alert about the database can fire until it does. "
            "Look whether `pgrecall monitor` runs, and start it again.",
            guarded_by="nothing: Prometheus itself tells",
        ),
        Alert(
            name="DatabaseUnreachable",
            severity="page",
            expr="pgrecall_up == 0",
            for_seconds=60,
            summary="The database cannot be reached",
            description="The monitor ({{ $labels.instance }}) gets no connection, and agents "
            "probably neither. Look whether PostgreSQL runs and has connections left.",
            guarded_by="MonitorDown",
        ),
        Alert(
            name="CollectorFailing",
            severity="ticket",
            expr=f"""
pgrecall_collector_success == 0
or label_replace(
     up{{job="{MONITOR}"}} == 1 unless on (job, instance) pgrecall_up, "collector", "all", "", "")
or label_replace(up{{job="{AGENTS}"}} == 0, "collector", "agents", "", "")
or label_replace(up{{job=~"{POSTGRES}|{PGBOUNCER}"}} == 0, "collector", "exporter", "", "")
or label_replace(pg_up == 0, "collector", "postgres-exporter", "", "")
or label_replace(pg_exporter_last_scrape_error == 1, "collector", "postgres-exporter", "", "")
or label_replace(pg_exporter_user_queries_load_error == 1, "collector", "queries", "", "")
or label_replace(pgbouncer_up == 0, "collector", "pgbouncer-exporter", "", "")""",
            for_seconds=300,
            summary="A part of monitoring fails: {{ $labels.collector }}",
            description="{{ $labels.collector }} of {{ $labels.job }} at {{ $labels.instance }} "
            "gives no data, so the alerts that need it are blind. Read its log first; a right that "
            "was revoked is the usual cause.",
            guarded_by="MonitorDown",
        ),
        Alert(
            name="SamplerStale",
            severity="ticket",
            expr=f"""
time() - pgrecall_sample_timestamp_seconds > {number(objectives.sample_age_seconds)}
or time() * (pgrecall_up == 1 unless on (job, instance) pgrecall_sample_timestamp_seconds)""",
            for_seconds=300,
            summary="The sampler writes no samples",
            description=_age("The last sample was written", "No sample was ever written")
            + " v_memory_system_health shows stale figures. Read the monitor's log first.",
            guarded_by="MonitorDown",
        ),
    )


def _of_agents(objectives: Objectives) -> tuple[Alert, ...]:
    return (
        Alert(
            name="RecallSlow",
            severity="page",
            expr="pgrecall:recall_duration_seconds:p95 > " + number(objectives.recall_p95_seconds),
            for_seconds=600,
            summary="Recall is slow: {{ $labels.operation }}",
            description="95 of 100 calls of {{ $labels.operation }} take "
            "{{ $value | humanizeDuration }} or less, the objective is "
            f"{number(objectives.recall_p95_seconds)}s. Look for locks and a missing vector index "
            "first.",
            guarded_by="CollectorFailing",
        ),
        Alert(
            name="OperationsFailing",
            severity="page",
            expr="pgrecall:operation_failures:ratio > " + number(objectives.failure_ratio),
            for_seconds=300,
            summary="Operations of agents fail: {{ $labels.operation }}",
            description="{{ $value | humanizePercentage }} of {{ $labels.operation }} fail. "
            "Look first which error it is: "
            "sum by (error) (rate(pgrecall_operation_failures_total[5m])).",
            guarded_by="CollectorFailing",
        ),
        Alert(
            name="PoolWait",
            severity="ticket",
            expr="pgrecall:pool_wait_seconds:mean > " + number(objectives.pool_wait_seconds),
            for_seconds=300,
            summary="An agent waits for connections of its pool",
            description="Calls of {{ $labels.instance }} wait {{ $value | humanizeDuration }} on "
            "average before they get a connection. Look for slow calls that hold them, then at "
            "PGRECALL_POOL_MAX_SIZE.",
            guarded_by="CollectorFailing",
        ),
        Alert(
            name="EmbeddingsLate",
            severity="ticket",
            expr="pgrecall_embeddings_oldest_waiting_seconds > "
            + number(objectives.embeddings_age_seconds),
            for_seconds=300,
            summary="Rows wait for their vectors: {{ $labels.table }}",
            description="The oldest row of {{ $labels.table }} without a vector is "
            "{{ $value | humanizeDuration }} old; recall does not find it. See first whether what "
            "fills them runs, and reaches its model.",
            guarded_by="CollectorFailing",
        ),
        Alert(
            name="SessionsOverdue",
            severity="ticket",
            expr='pgrecall_sessions{state="overdue"} > 0',
            for_seconds=3600,
            summary="Expired sessions are not cleaned up",
            description="{{ $value }} sessions have expired and still count as active. "
            "Run `pgrecall sessions expire`, and see why its schedule does not.",
            guarded_by="CollectorFailing",
        ),
    )


def _of_indexes(objectives: Objectives) -> tuple[Alert, ...]:
    return (
        Alert(
            name="RecallQualityLow",
            severity="ticket",
            expr="pgrecall_index_recall_ratio < " + number(objectives.index_recall_ratio),
            for_seconds=900,
            summary="The vector index misses what it should find",
            description="It found {{ $value | humanizePercentage }} of the truly nearest episodes "
            f"in the last hour, the objective is {objectives.index_recall_ratio:.0%}. "
            "pgrecall recall-check --ef-search 100,200,400 tells what a longer search would bring; "
            "look at how many rows are dead as well.",
            guarded_by="CollectorFailing",
        ),
        Alert(
            name="VectorIndexUnusable",
            severity="page",
            expr="pgrecall_vector_index_usable == 0",
            for_seconds=600,
            summary="A vector index is missing or broken: {{ $labels.index }}",
            description="Recall reads whole tables without {{ $labels.index }}. "
            "See what built or dropped it, then build it again: "
            "`pgrecall doctor` names the statement.",
            guarded_by="CollectorFailing",
        ),
        Alert(
            name="MigrationPending",
            severity="ticket",
            expr="pgrecall_schema_current == 0",
            for_seconds=900,
            summary="The schema is not the one that this version needs",
            description="The schema of the database and the version of the monitor at "
            "{{ $labels.instance }} differ. Run `pgrecall migrate`, or bring the monitor to the "
            "agents' version.",
            guarded_by="CollectorFailing",
        ),
    )


def _of_tasks(objectives: Objectives) -> tuple[Alert, ...]:
    success = "time() - pgrecall_task_last_success_timestamp_seconds"
    return (
        Alert(
            name="BackupOld",
            severity="ticket",
            expr=f'{success}{{task="backup"}} > {number(objectives.backup_age_seconds)}',
            for_seconds=300,
            summary="The last good backup is too old",
            description=_age("The last good backup ended", "No backup was ever recorded")
            + " All that was written since would be lost with the server. Make one, then see why "
            "the scheduled one did not.",
            guarded_by="CollectorFailing",
        ),
        Alert(
            name="BackupSlow",
            severity="ticket",
            expr='pgrecall_task_last_duration_seconds{task="backup"} > '
            + number(objectives.backup_duration_seconds),
            for_seconds=0,
            summary="The backup takes too long",
            description="The last good backup took {{ $value | humanizeDuration }}, the objective "
            f"is {_duration(objectives.backup_duration_seconds)}. Compare its size with that of "
            "the ones before.",
            guarded_by="CollectorFailing",
        ),
        Alert(
            name="RestoreDrillOld",
            severity="ticket",
            expr=f'{success}{{task="restore_drill"}} > '
            + number(objectives.restore_drill_age_seconds),
            for_seconds=300,
            summary="No backup was restored for trial lately",
            description=_age("The last restore drill ended", "No restore drill was ever recorded")
            + " A backup that was never restored is a hope. Restore one for trial.",
            guarded_by="CollectorFailing",
        ),
        Alert(
            name="TaskFailed",
            severity="ticket",
            expr="pgrecall_task_last_failed == 1",
            for_seconds=0,
            summary="The last run of a task failed: {{ $labels.task }}",
            description="The newest run of {{ $labels.task }} in pgrecall.task_runs failed; its "
            "column detail says why. It clears with the next run that succeeds.",
            guarded_by="CollectorFailing",
        ),
    )


def _of_the_server(objectives: Objectives) -> tuple[Alert, ...]:
    days, ratio = objectives.disk_days_left, objectives.disk_free_ratio
    return (
        Alert(
            name="PoolerQueue",
            severity="ticket",
            expr="""
max by (job, instance, database, user) (
  pgrecall_pooler_client_wait_seconds or pgbouncer_pools_client_maxwait_seconds
) > """
            + number(objectives.pooler_wait_seconds),
            for_seconds=60,
            summary="Clients queue in PgBouncer: {{ $labels.database }}",
            description="The first client of {{ $labels.user }} for {{ $labels.database }} waits "
            "{{ $value | humanizeDuration }} for a server connection. Look for transactions left "
            "open first, then at the pool's size.",
            guarded_by="CollectorFailing",
        ),
        Alert(
            name="ConnectionsHigh",
            severity="page",
            expr="pgrecall:connections:ratio > " + number(objectives.connections_ratio),
            for_seconds=300,
            summary="The server is running out of connections",
            description="{{ $value | humanizePercentage }} of the server's connections are in use; "
            "at 100% agents are turned away. See whose they are in pg_stat_activity.",
            guarded_by="CollectorFailing",
        ),
        _disk("ticket", days, ratio, for_seconds=3600),
        # So soon that nobody may wait for the morning.
        _disk("page", days / 7, ratio / 2, for_seconds=900),
        Alert(
            name="ArchiveFailing",
            severity="page",
            expr="pgrecall_wal_archive_failing == 1",
            for_seconds=300,
            summary="WAL cannot be archived",
            description="The last try failed, so WAL gathers on the server's disk and no point in "
            "time after it can be restored. Read last_failed_wal in pg_stat_archiver and the "
            "server's log.",
            guarded_by="CollectorFailing",
        ),
    )


def _disk(severity: Severity, days: float, ratio: float, *, for_seconds: float) -> Alert:
    return Alert(
        name="DiskFilling",
        severity=severity,
        # A disk that is full no longer fills: hence the second half.
        expr=f"""
pgrecall:disk_free_bytes:days_left < {number(days)}
or pgrecall_disk_free_bytes / pgrecall_disk_size_bytes < {number(ratio)}""",
        for_seconds=for_seconds,
        summary="The server's disk is filling",
        description=f"At its present pace it is full in less than {number(days)} days, or less "
        f"than {number(ratio * 100)}% of it is free. PostgreSQL stops when it is full. "
        "See first what grows: the database, WAL, or something else.",
        guarded_by="CollectorFailing",
    )


def _age(text: str, never: str) -> str:
    """Return a template that says how long ago something was, when the value is that age."""
    ago = "{{ $value | humanizeDuration }}"
    return f"{{{{ if gt $value {NEVER:.1f} }}}}{never}.{{{{ else }}}}{text} {ago} ago.{{{{ end }}}}"


def number(value: float) -> str:
    """Return a number as PromQL and people read it: no exponent, no needless digits."""
    return f"{round(value, 6):f}".rstrip("0").rstrip(".")


def _duration(seconds: float) -> str:
    """Return a duration as Prometheus writes it."""
    milliseconds = round(seconds * 1000)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds % size == 0 and milliseconds:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def rule_file(
    objectives: Objectives | None = None, *, runbooks: str = RUNBOOKS
) -> dict[str, list[dict[str, Any]]]:
    """Return the content of a rule file of Prometheus.

    Args:
        objectives: The numbers; the defaults unless given.
        runbooks: What stands before the runbooks' names in the alerts: a directory or an URL.
    """
    objectives = objectives or Objectives()
    recorded = [
        {"record": name, "expr": expr.strip()} for name, expr in recordings(objectives).items()
    ]
    fired = [_as_rule(alert, objectives, runbooks) for alert in alerts(objectives)]
    # One group: its rules are evaluated in order, so alerts see what was just recorded.
    return {"groups": [{"name": "pgrecall", "rules": [*recorded, *fired]}]}


def _as_rule(alert: Alert, objectives: Objectives, runbooks: str) -> Mapping[str, Any]:
    rule: dict[str, Any] = {"alert": alert.full_name, "expr": alert.expr.strip()}
    seconds = alert.for_seconds * objectives.for_factor
    if seconds:
        rule["for"] = _duration(seconds)
    return {
        **rule,
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook": f"{runbooks.rstrip('/')}/{alert.full_name}.md",
        },
    }


def longest_wait(objectives: Objectives) -> float:
    """Return the seconds after which every alert whose condition holds has fired, at most."""
    held = max(alert.for_seconds for alert in alerts(objectives)) * objectives.for_factor
    return held + seconds_of(objectives.window)
