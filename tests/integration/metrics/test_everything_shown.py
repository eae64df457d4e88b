"""Every metric that is documented is there, on a memory that is used: agent, monitor, exporter."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psycopg
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.integration.metrics.scraping import DURATION, Scrape
from tests.integration.monitor import agent
from tests.integration.monitor.programs import Program, environment, find, wait_until
from tests.pgbouncer import PgBouncer, free_port

from pgrecall.ops.monitor.files import QUERIES, shipped
from pgrecall.ops.monitor.service import Monitor, MonitorRequest
from pgrecall.telemetry.catalogue import AGENT, MONITOR
from pgrecall.testing import Database

Start = Callable[..., "Shown"]

LAG = "7"
"""Seconds; an agent writes down what it did within five."""


class Shown:
    """A program that shows metrics."""

    def __init__(self, program: Program, port: int) -> None:
        self.program = program
        self.port = port

    def read(self) -> str:
        """Return the text that Prometheus would get."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as page:
            return str(page.read().decode())

    def answers(self) -> bool:
        """Whether it is there."""
        try:
            self.read()
        except OSError:
            return False
        return True

    def say(self, command: str) -> None:
        """Give the agent a command, and wait until it is done."""
        answer = f"done: {command}\n"
        before = self.program.output.count(answer)
        self.program.say(command)
        self.program.wait_until(
            lambda: self.program.output.count(answer) > before, f"{command} was not done"
        )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a program that shows metrics at a port; it is stopped after the test."""
    started: list[Program] = []

    def begin(name: str, words: list[str], port: int, **variables: str) -> Shown:
        program = Program(
            words,
            tmp_path / f"{name}.log",
            environment(PGRECALL_CONFIG_DIR=str(tmp_path / "nothing"), **variables),
            listens=True,
        )
        started.append(program)
        shown = Shown(program, port)
        program.start()
        program.wait_until(shown.answers, f"{name} does not answer")
        return shown

    yield begin
    for program in reversed(started):
        program.stop()


def start_agent(start: Start, dsn: str) -> Shown:
    port = free_port()
    assert agent.__file__ is not None
    return start(
        "agent", [sys.executable, agent.__file__], port,
        PGRECALL_DSN=dsn, PGRECALL_PROMETHEUS_PORT=str(port),
    )  # fmt: skip


def start_exporter(start: Start, dsn: str) -> Shown:
    port = free_port()
    words = [
        find("prometheus-postgres-exporter"),
        f"--web.listen-address=127.0.0.1:{port}",
        f"--extend.query-path={shipped() / 'prometheus' / QUERIES}",
        "--no-collector.bgwriter",
    ]
    dsn = make_conninfo(dsn, sslmode="disable")  # its driver wants TLS unless told otherwise
    return start("exporter", words, port, DATA_SOURCE_NAME=dsn)


def direct(database: Database, role: str) -> str:
    """Return a role's connection string straight to the server, whatever the tests run behind."""
    server = conninfo_to_dict(database.admin_dsn)
    return make_conninfo(database.role_dsn(role), host=server["host"], port=server["port"])


def await_all(shown: Shown, names: set[str]) -> None:
    """Wait until all metrics are shown."""
    missing = {*names}

    def complete() -> bool:
        missing.difference_update(Scrape(shown.read()).names)
        return not missing

    try:
        wait_until(complete, "metrics are missing")
    except pytest.fail.Exception:
        pytest.fail(f"never shown: {sorted(missing)}\n{shown.program.output[-2000:]}")


def check_names(text: str) -> str:
    done = subprocess.run(
        [find("promtool"), "check", "metrics"],
        input=text, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_every_metric_of_the_catalogue(
    pgrecall_database: Database, pooler: PgBouncer, start: Start
) -> None:
    at_work = start_agent(start, pooler.through(pgrecall_database.dsn))
    with psycopg.connect(direct(pgrecall_database, "backup"), autocommit=True) as backup:
        backup.execute(
            "SELECT pgrecall.record_run('backup', now() - interval '3 seconds', true, 4096)"
        )
    # The monitor keeps for a minute what it has read of knowledge.
    applied = {"operation": "apply_knowledge"}
    wait_until(
        lambda: any(applied.items() <= s.labels.items() for s in Scrape(at_work.read()).samples),
        "the agent does not learn",
    )
    port = free_port()
    watching = start(
        "monitor",
        [sys.executable, "-m", "pgrecall.cli", "monitor", "--port", str(port), "--interval", "0.5",
         "--probe-interval", "1", "--operations-lag", LAG],
        port,
        PGRECALL_MONITOR_DSN=direct(pgrecall_database, "monitor"),
        PGRECALL_MONITOR_POOLER_DSN=f"host=127.0.0.1 port={pooler.port}",
    )  # fmt: skip
    at_work.say("fail")
    wait_until(lambda: "EmbeddingError" in at_work.program.output, "nothing failed")
    at_work.say("heal")

    for shown, metrics in ((at_work, AGENT), (watching, MONITOR)):
        wanted = {name for metric in metrics for name in metric.samples}
        await_all(shown, wanted)
    seen = Scrape(watching.read())
    success = {
        sample.labels["collector"]: sample.value
        for sample in seen.samples
        if sample.name == "pgrecall_collector_success"
    }
    assert set(success) == {metric.source for metric in MONITOR if metric.source} | {
        "sampler", "probe",
    }  # fmt: skip
    assert set(success.values()) == {1}
    # What is shown is in the catalogue, by name, kind and text; and as Prometheus recommends.
    for shown, metrics in ((at_work, AGENT), (watching, MONITOR)):
        text = shown.read()
        described = {
            family.name: (family.type, family.documentation)
            for family in text_string_to_metric_families(text)
            if family.name.startswith("pgrecall_") and not family.name.endswith("_created")
        }
        assert described == {
            metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name: (
                metric.kind, metric.help,
            )
            for metric in metrics
        }  # fmt: skip
        ours = "\n".join(line for line in text.splitlines() if "pgrecall_" in line) + "\n"
        assert check_names(ours) == ""


def test_agent_and_monitor_count_the_same(
    pgrecall_database: Database, request_: MonitorRequest, start: Start
) -> None:
    watching = Monitor(replace(request_, operations_lag=float(LAG)))
    try:
        watching.scrape()  # counting begins
        at_work = start_agent(start, pgrecall_database.dsn)

        def counts(text: str, name: str) -> dict[str, float]:
            return {
                sample.labels["operation"]: sample.value
                for sample in Scrape(text).samples
                if sample.name == name
            }

        own = "pgrecall_operation_duration_seconds"
        wait_until(lambda: sum(counts(at_work.read(), f"{own}_count").values()) > 200)
        at_work.say("pause")
        told = at_work.read()
        expected = counts(told, f"{own}_count")
        assert {"recall_similar", "record_episode", "apply_knowledge"} <= set(expected)
        wait_until(
            lambda: counts(watching.scrape(), f"{DURATION}_count") == expected,
            "the monitor does not count what the agent does",
        )
        text = watching.scrape()
    finally:
        watching.close()
    assert counts(text, f"{DURATION}_sum") == pytest.approx(counts(told, f"{own}_sum"), rel=1e-6)
    results = "pgrecall_recorded_operation_results_total"
    assert counts(text, results).items() >= counts(told, "pgrecall_operation_results_total").items()


def test_every_metric_of_the_exporter_s_queries(pgrecall_database: Database, start: Start) -> None:
    queries = yaml.safe_load((shipped() / "prometheus" / QUERIES).read_text(encoding="utf-8"))
    wanted = {
        f"{group}_{name}": how["usage"]
        for group, query in queries.items()
        for metric in query["metrics"]
        for name, how in metric.items()
        if how["usage"] != "LABEL"
    }
    assert {"pg_database", "agent_memory_episodes"} <= set(queries)
    at_work = start_agent(start, pgrecall_database.dsn)
    work = "pgrecall_operation_duration_seconds_count"
    wait_until(lambda: work in Scrape(at_work.read()).names, "the agent does not work")
    at_work.say("pause")
    at_work.say("later 3")
    # It keeps for a minute what it has read of episodes.
    exporter = start_exporter(start, direct(pgrecall_database, "monitor"))
    await_all(exporter, {*wanted})
    text = exporter.read()
    seen = Scrape(text)
    # The exporter's own collectors run beside ours, and none of all fails.
    assert seen("pg_up") == 1
    assert seen("pg_exporter_last_scrape_error") == 0
    assert seen("pg_exporter_user_queries_load_error") == 0
    assert {
        sample.labels["collector"]: sample.value
        for sample in seen.samples
        if sample.name == "pg_scrape_collector_success"
    } == {"database": 1}
    assert seen("pg_database_size_bytes", datname=pgrecall_database.name) > 1_000_000
    # They tell what is there.
    assert seen("agent_memory_episodes_rows") > 3
    assert seen("agent_memory_embeddings_waiting", table="agent_episodes") == 3
    assert seen("agent_memory_vector_index_usable", index="idx_episodes_embedding") == 1
    assert seen("agent_memory_task_last_success_timestamp_seconds", task="backup") == 0
    ours = [line for line in text.splitlines() if any(name in line for name in wanted)]
    assert check_names("\n".join(ours) + "\n") == ""


def test_the_exporter_tells_when_a_right_is_missing(
    pgrecall_database: Database, start: Start, admin: psycopg.Connection[Any]
) -> None:
    dsn = direct(pgrecall_database, "monitor")
    exporter = start_exporter(start, dsn)
    role = conninfo_to_dict(dsn)["user"]
    admin.execute(f'REVOKE SELECT ON pgrecall.task_status FROM "{role}"')
    seen = Scrape(exporter.read())
    assert seen("pg_exporter_last_scrape_error") == 1
    assert not any(name.startswith("agent_memory_task") for name in seen.names)
    assert "agent_memory_table_rows" in seen.names
