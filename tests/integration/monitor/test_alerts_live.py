"""Every alert fires when its fault is made for real, and clears when it is mended."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psycopg
import pytest
from tests.integration.monitor.conftest import QUICK
from tests.integration.monitor.stack import Stack

from pgrecall.ops.monitor.alerts import alerts

pytestmark = pytest.mark.timeout(900)

PATIENCE = 60.0


@dataclass
class Times:
    """How long each alert took to fire, and to clear again, in seconds."""

    fired: dict[str, float] = field(default_factory=dict)
    cleared: dict[str, float] = field(default_factory=dict)


@contextmanager
def expect(stack: Stack, times: Times, *names: str) -> Iterator[None]:
    """Wait until alerts fire after the body made a fault; see that they did not before."""
    for name in names:
        _wait(stack, partial(_is_over, stack, name), f"{name} fires without a fault")
    start = time.monotonic()
    yield
    for name in names:
        _wait(stack, partial(_fires, stack, name), f"{name} does not fire")
        times.fired[name] = time.monotonic() - start
    for alert in stack.ask("alerts")["alerts"]:
        for text in alert["annotations"].values():
            assert not re.search("<no value>|<error|%!", text), text


def expect_clear(stack: Stack, times: Times, *names: str) -> None:
    """Wait until alerts are over after a fault was mended."""
    start = time.monotonic()
    for name in names:
        _wait(stack, partial(_is_over, stack, name), f"{name} does not clear")
        times.cleared[name] = time.monotonic() - start


def _fires(stack: Stack, name: str) -> bool:
    return name in stack.firing()


def _is_over(stack: Stack, name: str) -> bool:
    return name not in stack.firing()


def _wait(stack: Stack, condition: Callable[[], object], what: str) -> None:
    def holds() -> object:
        # Whatever else is broken on purpose, Prometheus is not.
        assert stack.prometheus.runs, stack.prometheus.output[-2000:]
        return condition()

    stack.wait(holds, what, seconds=PATIENCE)


@pytest.fixture(scope="module")
def times(stack: Stack) -> Iterator[Times]:
    """What the tests of this module measured, printed at the end."""
    _succeed(stack, "backup")
    _succeed(stack, "restore_drill")
    stack.wait(lambda: not stack.firing(), "something fires without a fault")
    measured = Times()
    yield measured
    print("\nalert                         fires after  clears after")
    for name, seconds in measured.fired.items():
        print(f"{name:30}{seconds:9.1f} s{measured.cleared.get(name, float('nan')):12.1f} s")


def _succeed(stack: Stack, task: str) -> None:
    stack.execute(f"SELECT pgrecall.record_run('{task}', now() - interval '2 seconds')")


def test_tasks(stack: Stack, times: Times) -> None:
    names = ("PgrecallBackupOld", "PgrecallRestoreDrillOld")
    with expect(stack, times, *names):
        stack.execute(  # time goes by
            "UPDATE pgrecall.task_runs SET started_at = started_at - interval '1 day', "
            "finished_at = finished_at - interval '1 day'"
        )
    _succeed(stack, "backup")
    _succeed(stack, "restore_drill")
    expect_clear(stack, times, *names)
    with expect(stack, times, "PgrecallTaskFailed"):
        stack.execute("SELECT pgrecall.record_run('nightly_report', now(), false)")
    _succeed(stack, "nightly_report")
    expect_clear(stack, times, "PgrecallTaskFailed")
    with expect(stack, times, "PgrecallBackupSlow"):
        stack.execute("SELECT pgrecall.record_run('backup', now() - interval '10 minutes')")
    _succeed(stack, "backup")
    expect_clear(stack, times, "PgrecallBackupSlow")


def test_rows_that_nobody_tends(stack: Stack, times: Times) -> None:
    names = ("PgrecallEmbeddingsLate", "PgrecallSessionsOverdue", "PgrecallMigrationPending")
    (revision,) = stack.execute("SELECT version_num FROM pgrecall.alembic_version")[0]
    with expect(stack, times, *names):
        stack.agent.say("later 2")  # and nobody makes their vectors
        stack.execute(
            "INSERT INTO agent_working_memory (project_id, expires_at) "
            "VALUES ('late', now() - interval '1 minute')"
        )
        stack.execute("UPDATE pgrecall.alembic_version SET version_num = '1.1.0'")
    stack.execute(
        "UPDATE agent_episodes SET embedding = array_fill(1, ARRAY[64])::vector "
        "WHERE embedding IS NULL"
    )
    stack.execute("SELECT cleanup_expired_working_memory()")
    stack.execute(f"UPDATE pgrecall.alembic_version SET version_num = '{revision}'")
    expect_clear(stack, times, *names)


def test_an_index_that_is_gone(stack: Stack, times: Times) -> None:
    (definition,) = stack.execute(
        "SELECT indexdef FROM pg_indexes WHERE indexname = 'idx_knowledge_embedding'"
    )[0]
    with expect(stack, times, "PgrecallVectorIndexUnusable"):
        stack.execute("DROP INDEX idx_knowledge_embedding")
    stack.execute(definition)
    expect_clear(stack, times, "PgrecallVectorIndexUnusable")


def test_an_index_that_finds_too_little(stack: Stack, times: Times) -> None:
    with expect(stack, times, "PgrecallRecallQualityLow"):
        # What a probe writes that found three of ten; a memory of this size is searched exactly.
        stack.execute(
            "INSERT INTO agent_memory_metrics (operation_type, latency_ms, results_count, "
            "recall_accuracy, precision) "
            "SELECT 'recall_similar', 2, 10, 0.3, 0.3 FROM generate_series(1, 100)"
        )
    stack.execute("DELETE FROM agent_memory_metrics WHERE recall_accuracy IS NOT NULL")
    expect_clear(stack, times, "PgrecallRecallQualityLow")


def _reconnect(stack: Stack, role: str) -> None:
    """Let the settings of a role take effect, which they do when it connects."""
    stack.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
    )


def test_rights_that_were_taken_away(stack: Stack, times: Times) -> None:
    names = ("PgrecallSamplerStale", "PgrecallOperationsFailing", "PgrecallCollectorFailing")
    sample = "pgrecall.record_sample(double precision, double precision)"
    with expect(stack, times, *names):
        stack.execute(f"REVOKE EXECUTE ON FUNCTION {sample} FROM agent_memory_monitor")
        stack.execute("REVOKE INSERT ON agent_working_memory FROM agent_memory_app")
        stack.execute("REVOKE SELECT ON pgrecall.task_status FROM agent_memory_monitor")
    # What reads it in the monitor, and in the exporter.
    wanted = {"sampler", "tasks", "postgres-exporter"}
    _wait(stack, lambda: wanted <= _collectors(stack), "not every collector is named")
    stack.execute(f"GRANT EXECUTE ON FUNCTION {sample} TO agent_memory_monitor")
    stack.execute("GRANT INSERT ON agent_working_memory TO agent_memory_app")
    stack.execute("GRANT SELECT ON pgrecall.task_status TO agent_memory_monitor")
    expect_clear(stack, times, *names)


def test_an_exporter_that_is_away(stack: Stack, times: Times) -> None:
    with expect(stack, times, "PgrecallCollectorFailing"):
        stack.postgres_exporter.stop()
    assert _collectors(stack) == {"exporter"}
    stack.postgres_exporter.start()
    expect_clear(stack, times, "PgrecallCollectorFailing")


def _collectors(stack: Stack) -> set[str]:
    found = stack.firing().get("PgrecallCollectorFailing", [])
    return {labels["collector"] for labels in found}


def test_a_lock_that_makes_recall_slow(stack: Stack, times: Times) -> None:
    with expect(stack, times, "PgrecallRecallSlow"):
        deadline = time.monotonic() + PATIENCE
        while "PgrecallRecallSlow" not in stack.firing() and time.monotonic() < deadline:
            with psycopg.connect(stack.dsn("admin")) as blocker:
                blocker.execute("LOCK TABLE agent_episodes IN ACCESS EXCLUSIVE MODE")
                time.sleep(1)
            time.sleep(0.3)  # the agent goes on, to be locked out again
    expect_clear(stack, times, "PgrecallRecallSlow")


def test_full_pools(stack: Stack, times: Times) -> None:
    """A pool of one connection and many threads; a PgBouncer whose connections are all taken."""
    with expect(stack, times, "PgrecallPoolerQueue"), ExitStack() as held:
        for _ in range(6):
            connection = held.enter_context(psycopg.connect(stack.pooled_dsn("app")))
            connection.execute("SELECT 1")  # a transaction that stays open
        _wait(stack, lambda: "PgrecallPoolerQueue" in stack.firing(), "no queue is seen")
    expect_clear(stack, times, "PgrecallPoolerQueue")


def test_an_agent_that_waits_for_its_own_pool(stack: Stack, times: Times) -> None:
    crowd = stack.new_agent("crowd", "12", PGRECALL_POOL_MAX_SIZE="1")
    stack.agent.stop()
    try:
        with expect(stack, times, "PgrecallPoolWait"):
            crowd.start()
            with psycopg.connect(stack.dsn("admin")) as blocker:
                deadline = time.monotonic() + PATIENCE
                while "PgrecallPoolWait" not in stack.firing() and time.monotonic() < deadline:
                    blocker.execute("LOCK TABLE agent_episodes IN ACCESS EXCLUSIVE MODE")
                    time.sleep(1)
                    blocker.commit()
                    time.sleep(0.05)
    finally:
        crowd.stop()
        stack.agent.start()
    expect_clear(stack, times, "PgrecallPoolWait")


def test_the_server_itself(stack: Stack, times: Times) -> None:
    names = ("PgrecallConnectionsHigh", "PgrecallArchiveFailing")
    limit = stack.value("pgrecall_connections_max") or 0
    with ExitStack() as held, expect(stack, times, *names):
        for _ in range(int(limit * QUICK.connections_ratio) + 1):
            held.enter_context(psycopg.connect(stack.dsn("admin")))
        stack.execute("ALTER SYSTEM SET archive_command = '/bin/false'")
        stack.execute("SELECT pg_reload_conf()")
        stack.execute("SELECT pg_switch_wal()")
    stack.execute("ALTER SYSTEM SET archive_command = '/bin/true'")
    stack.execute("SELECT pg_reload_conf()")
    stack.execute("SELECT pg_switch_wal()")
    expect_clear(stack, times, *names)


def test_a_disk_that_fills(stack: Stack, times: Times) -> None:
    filler = stack.directory / "filler"
    with expect(stack, times, "PgrecallDiskFilling"):
        _fill(stack, filler)
    filler.unlink()
    expect_clear(stack, times, "PgrecallDiskFilling")


def _fill(stack: Stack, filler: Path) -> None:
    """Write until the alert fires: at 256 MB/s the disk would be full within the objective."""
    piece = b"\0" * 2**26
    with filler.open("wb") as file:
        while "PgrecallDiskFilling" not in stack.firing():
            file.write(piece)
            file.flush()
            assert file.tell() < 4 * 2**30, "no alert after 4 GiB"
            time.sleep(0.25)


def test_monitor_and_database_that_are_away(stack: Stack, times: Times) -> None:
    with expect(stack, times, "PgrecallDatabaseUnreachable"):
        stack.server.stop(force=True)
    stack.server.start()
    expect_clear(stack, times, "PgrecallDatabaseUnreachable")
    with expect(stack, times, "PgrecallMonitorDown"):
        stack.monitor.stop()
    stack.monitor.start()
    expect_clear(stack, times, "PgrecallMonitorDown")


def test_no_alert_was_left_out(times: Times) -> None:
    every = {alert.full_name for alert in alerts(QUICK)}
    assert set(times.fired) == every
    assert set(times.cleared) == every
