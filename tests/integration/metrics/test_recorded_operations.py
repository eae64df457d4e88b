"""The histogram of what agents wrote down in ``agent_memory_metrics``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from tests.conftest import MakeEpisode
from tests.integration.metrics.scraping import DURATION, scrape

from pgrecall import Memory
from pgrecall.ops.monitor.link import Link
from pgrecall.ops.monitor.operations import MOST_OPERATIONS, Operations
from pgrecall.ops.monitor.service import Monitor, MonitorRequest
from pgrecall.telemetry.catalogue import BUCKETS
from pgrecall.testing import Database


def test_what_agents_recorded_is_a_histogram(monitor: Monitor, pgrecall_database: Database) -> None:
    scrape(monitor)  # counting begins
    durations = (0.4, 1.0, 1.1, 100.0, 100.1, 20_000.0)
    with psycopg.connect(pgrecall_database.dsn, autocommit=True) as agent:
        for duration in durations:  # as an agent does that uses SQL alone
            agent.execute(
                "INSERT INTO agent_memory_metrics (operation_type, duration_ms, results_count) "
                "VALUES ('recall_similar', %s, 2)",
                [duration],
            )
        agent.execute("SELECT record_memory_operation('plan', 7, 3, 'apollo')")
    seen = scrape(monitor)
    assert seen(f"{DURATION}_count", operation="recall_similar") == len(durations)
    for bound in BUCKETS:
        within = sum(duration <= bound * 1000 for duration in durations)
        assert seen(f"{DURATION}_bucket", operation="recall_similar", le=str(bound)) == within
    assert seen(f"{DURATION}_sum", operation="recall_similar") == pytest.approx(
        sum(durations) / 1000
    )
    assert seen("pgrecall_recorded_operation_results_total", operation="recall_similar") == 12
    assert seen(f"{DURATION}_count", operation="plan") == 1
    # Nothing new came, and nothing is counted twice.
    again = scrape(monitor)
    assert again(f"{DURATION}_count", operation="recall_similar") == len(durations)


def test_probes_and_samples_are_no_operations_of_agents(
    monitor: Monitor, memory: Memory, make_episode: MakeEpisode
) -> None:
    scrape(monitor)
    memory.episodes.record_many([make_episode(perception={"n": n}) for n in range(30)])
    memory.metrics.flush()
    assert monitor.sampler.sample()
    assert monitor.sampler.probe() == 3
    seen = scrape(monitor)
    assert seen(f"{DURATION}_count", operation="record_episodes") == 1
    counted = {s.labels["operation"] for s in seen.samples if s.name == f"{DURATION}_count"}
    assert counted == {"record_episodes"}
    assert 0 < seen("pgrecall_index_recall_ratio") <= 1
    assert 0 < seen("pgrecall_index_precision_ratio") <= 1


def test_operations_named_by_hand_do_not_grow_without_end(
    monitor: Monitor, pgrecall_database: Database
) -> None:
    scrape(monitor)
    with psycopg.connect(pgrecall_database.dsn, autocommit=True) as agent:
        agent.execute(
            "INSERT INTO agent_memory_metrics (operation_type, latency_ms) "
            "SELECT 'op_' || n, 1 FROM generate_series(1, 200) AS n"
        )
    seen = scrape(monitor)
    counts = {s.labels["operation"]: s.value for s in seen.samples if s.name == f"{DURATION}_count"}
    assert len(counts) == MOST_OPERATIONS + 1
    assert counts["other"] == 200 - MOST_OPERATIONS
    assert sum(counts.values()) == 200


def test_what_no_clock_measured_is_not_counted(
    monitor: Monitor, pgrecall_database: Database
) -> None:
    scrape(monitor)
    with psycopg.connect(pgrecall_database.dsn, autocommit=True) as agent:
        for duration, results in (("-5", 1), ("NaN", 1), ("Infinity", 1), ("5", -1), (None, 1)):
            agent.execute(
                "INSERT INTO agent_memory_metrics (operation_type, duration_ms, results_count) "
                "VALUES ('by_hand', %s, %s), (NULL, 5, 1)",
                [duration, results],
            )
    seen = scrape(monitor)
    assert seen(f"{DURATION}_count", operation="by_hand") == 1
    assert seen(f"{DURATION}_sum", operation="by_hand") == 0.005
    assert seen("pgrecall_recorded_operation_results_total", operation="by_hand") == 0


def test_what_nobody_asked_for_in_hours_is_not_counted(
    request_: MonitorRequest, pgrecall_database: Database
) -> None:
    link = Link(request_.dsn, timeout_seconds=5)
    operations = Operations(lag_seconds=0)
    try:
        with link.transaction() as statements:
            list(operations.collect(statements))
        now = datetime.now(UTC)
        operations._after = now - timedelta(days=2)
        with psycopg.connect(pgrecall_database.dsn, autocommit=True) as agent:
            for age in (timedelta(hours=30), timedelta(minutes=30)):
                agent.execute(
                    "INSERT INTO agent_memory_metrics (timestamp, operation_type, duration_ms) "
                    "VALUES (%s, 'old', 1)",
                    [now - age],
                )
        with link.transaction() as statements:
            histogram, _ = operations.collect(statements)
    finally:
        link.close()
    assert [s.value for s in histogram.samples if s.name == f"{DURATION}_count"] == [1]
