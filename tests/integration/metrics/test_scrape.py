"""Scrapes of `pgrecall monitor`: what they show, what they cost, and what fails in them."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.conftest import MakeEpisode
from tests.integration.metrics.scraping import scrape
from tests.integration.monitor.programs import wait_until

from pgrecall import Memory
from pgrecall.driver import Statements
from pgrecall.errors import ConfigurationError, InvalidInput
from pgrecall.ops.monitor.collectors import Source
from pgrecall.ops.monitor.exposition import Exposition, Seen, Troubles
from pgrecall.ops.monitor.host import Host
from pgrecall.ops.monitor.link import Link
from pgrecall.ops.monitor.service import Monitor, MonitorRequest, run
from pgrecall.telemetry.catalogue import MONITOR
from pgrecall.testing import Database

# Without an outcome, knowledge, a good run of a task, or a measurement.
SILENT = {
    "pgrecall_knowledge_confidence_ratio",
    "pgrecall_task_last_duration_seconds",
    "pgrecall_task_last_size_bytes",
    "pgrecall_index_recall_ratio",
    "pgrecall_index_precision_ratio",
}


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
    failed, healed = [record.getMessage() for record in caplog.records]
    assert "collector tasks fails: the role lacks a right: permission denied for view" in failed
    assert "pgrecall init" in failed
    assert healed == "collector tasks works again"


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
            assert "pgrecall_episodes" not in seen.names
        wait_until(
            lambda: scrape(watching)("pgrecall_collector_success", collector="learning") == 1,
            "the collector was not tried again",
        )
    finally:
        watching.close()


def test_a_slow_collector_that_fails_is_given_a_rest() -> None:
    failed = Seen(100.0, 0.5, None)
    assert failed.is_fresh(104.9, age_seconds=60)
    assert not failed.is_fresh(105.1, age_seconds=60)
    assert not failed.is_fresh(100.0, age_seconds=0)
    assert Seen(100.0, 0.5, ()).is_fresh(159.9, age_seconds=60)


def test_a_scrape_ends_in_time_and_tells_what_it_left_out(request_: MonitorRequest) -> None:
    def slow(statements: Statements) -> Iterator[Any]:
        statements.connection.execute("SELECT pg_sleep(0.4)")
        yield from ()

    link = Link(request_.dsn, timeout_seconds=5)
    try:
        sources = [Source(name=name, collect=slow) for name in ("a", "b", "c", "d")]
        exposition = Exposition(link, sources, Troubles(), budget_seconds=0.7)
        families = {family.name: family for family in exposition.collect()}
    finally:
        link.close()
    success = families["pgrecall_collector_success"].samples
    # The second ran out of time, and nothing was left for the others.
    assert {s.labels["collector"]: s.value for s in success} == {"a": 1, "b": 0, "c": 0, "d": 0}
    seconds = families["pgrecall_collector_duration_seconds"].samples
    assert seconds[3].value < 0.1


def test_slow_collectors_show_what_they_saw(
    monitor: Monitor, memory: Memory, make_episode: MakeEpisode
) -> None:
    assert scrape(monitor)("pgrecall_episodes") == 0
    memory.episodes.record(**make_episode())
    assert scrape(monitor)("pgrecall_episodes") == 0
    assert scrape(monitor)("pgrecall_embeddings_waiting", table="agent_episodes") == 0


def test_scrapes_at_the_same_time_share_one_reading(request_: MonitorRequest) -> None:
    begun, go_on, readings = threading.Event(), threading.Event(), []

    def read(_: Statements) -> Iterator[Any]:
        readings.append(time.monotonic())
        begun.set()
        assert go_on.wait(30)
        yield from ()

    link = Link(request_.dsn, timeout_seconds=60)
    sources = [Source(name="one", collect=read)]
    exposition = Exposition(link, sources, Troubles(), budget_seconds=60)
    asked = threading.Semaphore(0)
    seen: list[list[str]] = []

    def ask() -> None:
        asked.release()
        seen.append([family.name for family in exposition.collect()])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    try:
        threads[0].start()
        assert begun.wait(30)
        for thread in threads[1:]:
            thread.start()
        for _ in threads:
            assert asked.acquire(timeout=30)
        time.sleep(0.5)  # they have asked, and now wait
        go_on.set()
        for thread in threads:
            thread.join()
        assert len(readings) == 1
        assert len(seen) == 8
        ask()
        assert len(readings) == 2
    finally:
        go_on.set()
        link.close()


def test_a_mistake_of_ours_is_not_hidden(request_: MonitorRequest) -> None:
    def broken(_: object) -> Any:
        raise ZeroDivisionError

    link = Link(request_.dsn, timeout_seconds=5)
    try:
        exposition = Exposition(
            link, [Source(name="broken", collect=broken)], Troubles(), budget_seconds=5
        )
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


@pytest.mark.parametrize(
    ("name", "value"), [("interval", 0), ("timeout", -1), ("probe_interval", -1)]
)
def test_times_that_cannot_be(name: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=name):
        MonitorRequest(dsn="", **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["dsn", "pooler_dsn"])
def test_a_connection_string_that_cannot_be_read_is_not_repeated(name: str) -> None:
    given = {"dsn": "host=127.0.0.1", name: "postgresql://monitor:secret@[::1/memory"}
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        Monitor(MonitorRequest(**given))  # type: ignore[arg-type]
    assert "secret" not in "".join(traceback.format_exception(caught.value))


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
