"""`pgrecall monitor`: collectors, sampler and service on a real database."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from psycopg.conninfo import make_conninfo
from tests.conftest import MakeEpisode
from tests.pgbouncer import PgBouncer, generate, public_directory, running

from pgrecall import Memory
from pgrecall.engine import EmbeddedServer
from pgrecall.errors import ConfigurationError, InvalidInput
from pgrecall.ops.checks import Check
from pgrecall.ops.monitor.exposition import Exposition, Troubles
from pgrecall.ops.monitor.host import Host
from pgrecall.ops.monitor.link import Link
from pgrecall.ops.monitor.operations import MOST_OPERATIONS
from pgrecall.ops.monitor.pooler import console_dsn
from pgrecall.ops.monitor.service import Monitor, MonitorRequest, run
from pgrecall.ops.verify import verify
from pgrecall.telemetry.catalogue import BUCKETS, MONITOR
from pgrecall.testing import Database, Template

DURATION = "pgrecall_recorded_operation_duration_seconds"
# Without a pooler, an outcome, knowledge, a good run of a task, or a measurement.
SILENT = {
    "pgrecall_knowledge_confidence_ratio",
    "pgrecall_task_last_duration_seconds",
    "pgrecall_task_last_size_bytes",
    "pgrecall_index_recall_ratio",
    "pgrecall_index_precision_ratio",
}


class Scrape:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    @property
    def names(self) -> set[str]:
        return {sample.name for sample in self.samples}

    def __call__(self, name: str, **labels: str) -> float:
        (value,) = [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return float(value)


@pytest.fixture
def request_(pgrecall_database: Database) -> MonitorRequest:
    return MonitorRequest(
        dsn=pgrecall_database.role_dsn("monitor"), port=0, operations_lag=0.0, timeout=5.0
    )


@pytest.fixture
def monitor(request_: MonitorRequest) -> Iterator[Monitor]:
    watching = Monitor(request_)
    yield watching
    watching.close()


def scrape(monitor: Monitor) -> Scrape:
    return Scrape(monitor.scrape())


def wait_until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_a_new_database_shows_what_there_is(monitor: Monitor) -> None:
    monitor.sampler.sample()
    monitor.sampler.sample()  # of processors, the second one knows
    seen = scrape(monitor)
    expected = {
        name
        for metric in MONITOR
        for name in metric.samples
        if metric.source not in ("pooler", "operations") and metric.name not in SILENT
    }
    assert expected - seen.names == set()
    assert seen("pgrecall_up") == 1
    assert seen("pgrecall_episodes") == 0
    assert seen("pgrecall_schema_current") == 1
    assert seen("pgrecall_vector_index_usable", index="idx_knowledge_embedding") == 1
    assert seen("pgrecall_task_last_success_timestamp_seconds", task="backup") == 0
    assert seen("pgrecall_connections_max") >= 20
    assert seen("pgrecall_disk_size_bytes") > seen("pgrecall_disk_free_bytes") > 0
    assert seen("pgrecall_server_memory_bytes") > 2**20
    assert 0 <= seen("pgrecall_server_cpu_ratio") <= 1
    assert abs(seen("pgrecall_sample_timestamp_seconds") - time.time()) < 60
    assert {s.labels["collector"] for s in seen.samples if s.name == "pgrecall_collector_success"
            and s.value == 1} >= {"sizes", "state", "server", "learning", "operations"}  # fmt: skip


def test_names_are_as_prometheus_recommends(monitor: Monitor, promtool: str) -> None:
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=monitor.scrape(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.fixture
def promtool() -> str:
    import shutil

    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    return found


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


def test_a_collector_that_fails_spoils_nothing_else_and_heals(
    monitor: Monitor, admin: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    (role,) = admin.execute(
        "SELECT rolname FROM pg_roles WHERE rolname = "
        "left(pg_get_userbyid((SELECT datdba FROM pg_database WHERE datname = "
        "current_database())), -6) || '_monitor'"
    ).fetchone() or ("",)
    admin.execute(f'REVOKE SELECT ON pgrecall.task_status FROM "{role}"')
    with caplog.at_level(logging.INFO, logger="pgrecall.monitor"):
        for _ in range(3):
            seen = scrape(monitor)
        assert seen("pgrecall_collector_success", collector="tasks") == 0
        assert seen("pgrecall_collector_success", collector="sizes") == 1
        assert not any(name.startswith("pgrecall_task") for name in seen.names)
        admin.execute(f'GRANT SELECT ON pgrecall.task_status TO "{role}"')
        assert scrape(monitor)("pgrecall_collector_success", collector="tasks") == 1
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "collector tasks fails: permission denied for view task_status",
        "collector tasks works again",
    ]


def test_a_statement_that_hangs_is_given_up(
    pgrecall_database: Database, admin: psycopg.Connection[Any]
) -> None:
    watching = Monitor(
        MonitorRequest(dsn=pgrecall_database.role_dsn("monitor"), port=0, timeout=0.3)
    )
    try:
        with psycopg.connect(pgrecall_database.admin_dsn) as blocker:
            blocker.execute("LOCK TABLE agent_episodes")
            seen = scrape(watching)
            assert seen("pgrecall_collector_success", collector="learning") == 0
            assert seen("pgrecall_collector_success", collector="server") == 1
            assert seen("pgrecall_oldest_transaction_seconds") > 0
        assert scrape(watching)("pgrecall_collector_success", collector="learning") == 1
    finally:
        watching.close()


def test_slow_collectors_show_what_they_saw(
    monitor: Monitor, memory: Memory, make_episode: MakeEpisode
) -> None:
    assert scrape(monitor)("pgrecall_episodes") == 0
    memory.episodes.record(**make_episode())
    assert scrape(monitor)("pgrecall_episodes") == 0
    assert scrape(monitor)("pgrecall_embeddings_waiting", table="agent_episodes") == 0


def test_scrapes_at_the_same_time_wait_for_each_other(monitor: Monitor) -> None:
    seen: list[Scrape] = []
    threads = [threading.Thread(target=lambda: seen.append(scrape(monitor))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one("pgrecall_up") for one in seen] == [1] * 8


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
    assert "an exact search of 200 rows would take about 0.0 s, more than the budget" in told


def test_it_watches_a_pooler(pgrecall_database: Database, pooler: PgBouncer) -> None:
    agent = pooler.through(pgrecall_database.dsn)
    watching = Monitor(
        MonitorRequest(
            dsn=pooler.through(pgrecall_database.role_dsn("monitor")),
            port=0,
            pooler_dsn=f"host=127.0.0.1 port={pooler.port}",
        )
    )
    try:
        with psycopg.connect(agent) as busy:
            busy.execute("SELECT 1")
            seen = scrape(watching)
            where = {"database": pgrecall_database.name, "user": busy.info.user}
            assert seen("pgrecall_pooler_clients", state="active", **where) == 1
            assert seen("pgrecall_pooler_servers", state="active", **where) == 1
            assert seen("pgrecall_pooler_client_wait_seconds", **where) == 0
            # The monitor itself came through the pooler.
            assert seen("pgrecall_up") == 1
            assert seen("pgrecall_collector_success", collector="pooler") == 1
        pooler.process.terminate()
        pooler.process.wait()
        assert scrape(watching)("pgrecall_up") == 0
    finally:
        watching.close()


@pytest.fixture
def pooler(pgrecall_template: Template, pgrecall_database: Database) -> Iterator[PgBouncer]:
    """A PgBouncer of its own in front of the test's database."""
    with public_directory() as directory:
        report = generate(
            pgrecall_template.admin_dsn,
            pgrecall_template.settings,
            directory,
            also=(pgrecall_database.name,),
        )
        with running(report.configuration) as started:
            yield started


def test_the_console_is_asked_as_the_monitor() -> None:
    dsn = console_dsn("host=pooler port=6432", "postgresql://m:secret@db:5432/agent_memory")
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    assert parts == {
        "host": "pooler",
        "port": "6432",
        "user": "m",
        "password": "secret",
        "dbname": "pgbouncer",
    }
    other = console_dsn("host=pooler user=stats", "postgresql://m@db/agent_memory")
    assert psycopg.conninfo.conninfo_to_dict(other)["user"] == "stats"


@pytest.mark.parametrize(
    ("name", "value"), [("interval", 0), ("timeout", -1), ("probe_interval", -1)]
)
def test_times_that_cannot_be(name: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=name):
        MonitorRequest(dsn="", **{name: value})  # type: ignore[arg-type]


def test_a_port_that_is_taken_is_said(request_: MonitorRequest) -> None:
    import dataclasses
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        request = dataclasses.replace(request_, port=taken.getsockname()[1])
        with pytest.raises(ConfigurationError, match="Address already in use") as caught:
            run(request, threading.Event(), lambda _: None)
    assert "--port" in str(caught.value.hint)


def test_the_server_may_go_and_come_back(tmp_path: Path) -> None:
    """The process is started before the database is there, outlives it, and ends on a signal."""
    directory = tmp_path / "server"
    tmp_path.chmod(0o755)
    server = EmbeddedServer(directory)
    environment = {
        **os.environ,
        "PGRECALL_DATA_DIR": str(directory),
        "PGRECALL_CONFIG_DIR": str(tmp_path / "config"),
        "PGRECALL_LOG_FORMAT": "json",
    }
    command = [sys.executable, "-m", "pgrecall.cli"]
    subprocess.run(
        [*command, "init", "--dimensions", "64"],
        env=environment, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    process = subprocess.Popen(
        [*command, "monitor", "--port", "0", "--interval", "0.2"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        address = process.stdout.readline().removeprefix("metrics: ").strip()

        def up() -> float:
            with urlopen(address, timeout=20) as page:
                return Scrape(page.read().decode())("pgrecall_up")

        wait_until(lambda: up() == 1, "the database was not seen")
        server.stop(force=True)
        wait_until(lambda: up() == 0, "its absence was not seen")
        server.start()
        wait_until(lambda: up() == 1, "its return was not seen")
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=30)
        assert process.returncode == 0, told
        lines = [json.loads(line) for line in told.splitlines() if line]
        assert any("the database fails" in line["message"] for line in lines)
        assert any("works again" in line["message"] for line in lines)
        assert "password" not in told
    finally:
        process.kill()
        process.wait()
        server.destroy(force=True)


def test_once_prints_the_metrics_and_samples(
    pgrecall_database: Database, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGRECALL_MONITOR_DSN", pgrecall_database.role_dsn("monitor"))
    done = subprocess.run(
        [sys.executable, "-m", "pgrecall.cli", "monitor", "--once"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Scrape(done.stdout)("pgrecall_up") == 1
    assert len(memory.metrics.list(operation_type="sample").items) == 1
    monkeypatch.setenv("PGRECALL_MONITOR_DSN", make_conninfo("", host="127.0.0.1", port=1))
    failed = subprocess.run(
        [sys.executable, "-m", "pgrecall.cli", "monitor", "--once"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert failed.returncode == 1
    assert Scrape(failed.stdout)("pgrecall_up") == 0


def test_verify_sees_the_monitor_by_its_samples(
    pgrecall_database: Database, monitor: Monitor, admin: psycopg.Connection[Any]
) -> None:
    def step() -> Check:
        checks = verify(pgrecall_database.owner_dsn, settings=pgrecall_database.settings)
        (found,) = [check for check in checks if check.id == "step-8"]
        return found

    assert step().status == "not configured"
    assert "pgrecall monitor" in (step().remedy or "")
    monitor.sampler.sample()
    assert step().status == "passed"
    assert "0 episodes" in step().evidence
    admin.execute("UPDATE agent_memory_metrics SET timestamp = now() - interval '11 minutes'")
    assert step().status == "failed"


def test_a_mistake_of_ours_is_not_hidden(request_: MonitorRequest) -> None:
    from pgrecall.ops.monitor.collectors import Source

    def broken(_: object) -> Any:
        raise ZeroDivisionError

    link = Link(request_.dsn, timeout_seconds=5)
    try:
        exposition = Exposition(link, [Source(name="broken", collect=broken)], Troubles())
        with pytest.raises(ZeroDivisionError):
            exposition.collect()
    finally:
        link.close()


def test_a_disk_that_is_not_there_is_a_failure(request_: MonitorRequest, tmp_path: Path) -> None:
    link = Link(request_.dsn, timeout_seconds=5)
    try:
        with link.transaction() as statements, pytest.raises(FileNotFoundError):
            list(Host(tmp_path / "nowhere").collect(statements))
    finally:
        link.close()
