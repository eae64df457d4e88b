"""Samples and probes of recall, and who reads them."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.conftest import MakeEpisode
from tests.integration.metrics.scraping import scrape

from pgrecall import Memory
from pgrecall.config import load_settings
from pgrecall.ops import embedded
from pgrecall.ops.checks import Check
from pgrecall.ops.monitor.service import Monitor, MonitorRequest
from pgrecall.ops.provision import dsn_for
from pgrecall.ops.verify import verify
from pgrecall.testing import Database


def test_the_sampler_feeds_the_health_view(
    monitor: Monitor, memory: Memory, make_episode: MakeEpisode, pgrecall_database: Database
) -> None:
    memory.episodes.record_many([make_episode(perception={"n": n}) for n in range(20)])
    monitor.sampler.sample()
    monitor.sampler.sample()
    monitor.sampler.probe()
    newest, oldest = memory.metrics.list(operation_type="sample").items
    assert (newest.episode_count, newest.strategy_count) == (20, 0)
    assert newest.memory_usage_mb is not None
    assert newest.memory_usage_mb > 1
    assert oldest.cpu_percent is None
    assert newest.cpu_percent is not None
    assert 0 <= newest.cpu_percent <= 100
    with psycopg.connect(pgrecall_database.dsn) as connection:
        row = connection.execute(
            "SELECT total_episodes, avg_recall_latency_ms FROM v_memory_system_health"
        ).fetchone()
    assert row is not None
    assert row[0] == 20
    assert row[1] > 0


def test_a_sampler_and_a_probe_that_fail_are_told_of(
    monitor: Monitor, admin: psycopg.Connection[Any], memory: Memory, make_episode: MakeEpisode
) -> None:
    memory.episodes.record(**make_episode())

    def background() -> dict[str, float]:
        return {
            s.labels["collector"]: s.value
            for s in scrape(monitor).samples
            if s.name == "pgrecall_collector_success"
            and s.labels["collector"] in ("sampler", "probe")
        }

    assert background() == {}
    monitor.sampler.sample()
    monitor.sampler.probe()
    assert background() == {"sampler": 1, "probe": 1}
    functions = (
        "pgrecall.record_sample(double precision, double precision), "
        "pgrecall.probe_recall(integer, integer, double precision)"
    )
    (role,) = admin.execute(
        "SELECT grantee::regrole::text FROM pg_proc, aclexplode(proacl) "
        "WHERE proname = 'record_sample' AND grantee::regrole::text LIKE '%monitor%'"
    ).fetchone() or ("",)
    admin.execute(f"REVOKE EXECUTE ON FUNCTION {functions} FROM {role}")
    assert not monitor.sampler.sample()
    assert monitor.sampler.probe() == 0
    assert background() == {"sampler": 0, "probe": 0}
    admin.execute(f"GRANT EXECUTE ON FUNCTION {functions} TO {role}")
    assert monitor.sampler.sample()
    assert monitor.sampler.probe() > 0
    assert background() == {"sampler": 1, "probe": 1}


def test_a_probe_that_would_take_too_long_is_not_made(
    pgrecall_database: Database, admin: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    admin.execute(
        "INSERT INTO agent_episodes (project_id, perception, reasoning, action, agent_version, "
        "embedding) SELECT 'p', '{}', '{}', '{}', '1', array_fill(n, ARRAY[64])::vector "
        "FROM generate_series(1, 200) AS n"
    )
    admin.execute("SELECT pg_stat_force_next_flush()")
    admin.execute("ANALYZE agent_episodes")
    watching = Monitor(
        MonitorRequest(
            dsn=pgrecall_database.role_dsn("monitor"), port=0, probe_budget=200 * 13e-6 / 2
        )
    )
    try:
        assert watching.sampler.probe() == 0
        assert watching.sampler.probe() == 0
    finally:
        watching.close()
    (told,) = [record.getMessage() for record in caplog.records]
    assert "fails" not in told  # nor does an alert come of it
    assert "an exact search of 200 rows would take about 0.0 s, more than the budget" in told


def test_a_standby_is_watched_and_not_written_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.chmod(0o755)
    settings = load_settings(
        data_dir=tmp_path / "server", config_dir=tmp_path / "config", database="agent_memory"
    )
    server = embedded.server_of(settings)
    watching = None
    try:
        embedded.provision(settings, dimensions=64)
        watching = Monitor(MonitorRequest(dsn=dsn_for(settings, "monitor"), port=0))
        assert scrape(watching)("pgrecall_in_recovery") == 0
        server.stop(force=True)
        cluster = server.data_dir / "cluster"
        signal_file = cluster / "standby.signal"
        signal_file.touch()
        os.chown(signal_file, cluster.stat().st_uid, cluster.stat().st_gid)
        server.start()
        with caplog.at_level(logging.INFO, logger="pgrecall.monitor"):
            for _ in range(2):
                assert watching.sampler.sample()
                assert watching.sampler.probe() == 0
            seen = scrape(watching)
        assert seen("pgrecall_in_recovery") == 1
        success = [s for s in seen.samples if s.name == "pgrecall_collector_success"]
        assert {s.value for s in success} == {1}
        assert not {s.labels["collector"] for s in success} & {"sampler", "probe"}
        told = [record.getMessage() for record in caplog.records]
        assert [("standby" in line, "fails" in line) for line in told] == [(True, False)] * 2
    finally:
        if watching is not None:
            watching.close()
        server.destroy(force=True)


def test_verify_sees_the_monitor_by_its_samples(
    pgrecall_database: Database, monitor: Monitor, admin: psycopg.Connection[Any]
) -> None:
    def step() -> Check:
        checks = verify(pgrecall_database.owner_dsn)
        (found,) = [check for check in checks if check.id == "step-8"]
        return found

    assert step().status == "not configured"
    assert "pgrecall monitor" in (step().remedy or "")
    monitor.sampler.sample()
    assert step().status == "passed"
    assert "0 episodes" in step().evidence
    admin.execute("UPDATE agent_memory_metrics SET timestamp = now() - interval '11 minutes'")
    assert step().status == "failed"
