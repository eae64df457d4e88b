"""prometheus-postgres-exporter with our queries, and what is known of PgBouncer."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.request import urlopen

import psycopg
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.integration.monitor.programs import Program, environment, find
from tests.integration.monitor.stack import QUERIES, Stack
from tests.pgbouncer import free_port

TABLES = ("agent_episodes", "agent_knowledge", "agent_memory_metrics", "agent_working_memory")


@dataclass(frozen=True, slots=True)
class Page:
    """What the exporter showed."""

    text: str

    @property
    def families(self) -> list[Any]:
        return [*text_string_to_metric_families(self.text)]

    @property
    def samples(self) -> list[Any]:
        return [sample for family in self.families for sample in family.samples]

    @property
    def names(self) -> set[str]:
        return {sample.name for sample in self.samples}

    def __call__(self, name: str, **labels: str) -> float:
        """Return the value of the one series with this name and these labels."""
        (value,) = [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return float(value)


def read(port: int) -> Page:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as page:
        return Page(page.read().decode())


@contextmanager
def exporter(stack: Stack, name: str, *flags: str) -> Iterator[Page]:
    """Start one more exporter, and give what it shows."""
    port = free_port()
    program = Program(
        [find("prometheus-postgres-exporter"), "--no-collector.bgwriter",
         f"--web.listen-address=127.0.0.1:{port}", *flags],
        stack.directory / f"{name}.log",
        environment(DATA_SOURCE_NAME=stack.dsn("monitor", sslmode="disable")),
    )  # fmt: skip

    def answer() -> Page | None:
        try:
            return read(port)
        except OSError:
            return None

    try:
        program.start()
        yield program.wait_until(answer, "the exporter does not answer")
    finally:
        program.stop()


@pytest.fixture(scope="module")
def described() -> dict[str, tuple[str, str, frozenset[str]]]:
    """Kind, description and labels of every metric in the file, by name."""
    found = {}
    for namespace, query in yaml.safe_load(QUERIES.read_text(encoding="utf-8")).items():
        columns = {name: rest for entry in query["metrics"] for name, rest in entry.items()}
        labels = frozenset(name for name, rest in columns.items() if rest["usage"] == "LABEL")
        for name, rest in columns.items():
            if name not in labels:
                kind = rest["usage"].lower()
                found[f"{namespace}_{name}"] = (kind, rest["description"], labels)
    return found


@pytest.fixture(scope="module")
def rested(stack: Stack) -> Stack:
    """A memory with something of everything, on which nobody works any more."""
    stack.wait(
        lambda: stack.execute("SELECT 1 FROM agent_knowledge WHERE times_applied > 0"),
        "the agent learned nothing",
    )
    for recorded in ("recall_similar", "record_episode"):
        stack.wait(partial(_is_recorded, stack, recorded), f"no {recorded} was recorded")
    stack.wait(
        lambda: stack.execute("SELECT 1 FROM pgrecall.operations WHERE recall_accuracy > 0"),
        "nothing was probed",
    )
    for command in ("later 3", "pause"):
        stack.agent.say(command)
        stack.agent.wait_until(partial(_is_done, stack, command), f"{command} was not done")
    stack.execute(
        "INSERT INTO agent_working_memory (project_id, expires_at) "
        "VALUES ('late', now() - interval '1 minute'), ('on time', now() + interval '1 day')"
    )
    stack.execute(
        "SELECT pgrecall.record_run('backup', now() - interval '90 seconds', true, 1048576)"
    )
    stack.execute("SELECT pgrecall.record_run('nightly', now(), false)")
    return stack


def _is_recorded(stack: Stack, operation: str) -> bool:
    return bool(
        stack.execute(
            "SELECT 1 FROM pgrecall.operations "
            "WHERE operation_type = %s AND recall_accuracy IS NULL",
            operation,
        )
    )


def _is_done(stack: Stack, command: str) -> bool:
    return f"done: {command}\n" in stack.agent.output


@pytest.fixture(scope="module")
def page(rested: Stack) -> Page:
    """What the exporter shows of it, with nothing from before."""
    with exporter(rested, "fresh", f"--extend.query-path={QUERIES}") as shown:
        return shown


def test_every_metric_of_the_file_is_there(
    page: Page, described: dict[str, tuple[str, str, frozenset[str]]]
) -> None:
    assert page.names >= set(described)
    families = {family.name: family for family in page.families}
    for name, (kind, text, labels) in described.items():
        family = families[name]
        assert (family.type, family.documentation) == (kind, text)
        assert {frozenset(s.labels) for s in family.samples} == {labels | {"server"}}
        assert any(math.isfinite(sample.value) and sample.value >= 0 for sample in family.samples)


def test_the_values_are_those_of_the_memory(page: Page, rested: Stack) -> None:
    (counted,) = rested.execute(
        "SELECT count(*), count(outcome), count(outcome_quality), sum(outcome_quality) "
        "FROM agent_episodes"
    )
    shown = [
        page(f"agent_memory_episodes_{column}")
        for column in ("rows", "with_outcome", "with_quality", "quality_points")
    ]
    assert shown == pytest.approx([float(value) for value in counted])
    assert counted[0] > counted[1] > 0
    (known,) = rested.execute(
        "SELECT count(*), avg(confidence), sum(times_applied), sum(success_count), "
        "sum(failure_count) FROM agent_knowledge WHERE is_active AND knowledge_type = 'strategy'"
    )
    shown = [
        page(f"agent_memory_knowledge_{column}", type="strategy")
        for column in ("active", "confidence_ratio", "applied", "successes", "failures")
    ]
    assert shown == pytest.approx([float(value) for value in known])
    assert page("agent_memory_embeddings_waiting", table="agent_episodes") == 3
    assert page("agent_memory_embeddings_oldest_waiting_seconds", table="agent_episodes") > 0
    assert page("agent_memory_embeddings_waiting", table="agent_knowledge") == 0
    assert page("agent_memory_embeddings_oldest_waiting_seconds", table="agent_knowledge") == 0
    (active,) = rested.execute(
        "SELECT count(*) FROM agent_working_memory WHERE is_active AND expires_at > now()"
    )[0]
    assert page("agent_memory_sessions_active") == active >= 1
    assert page("agent_memory_sessions_overdue") == 1
    assert page("agent_memory_invalid_indexes") == 0


def test_sizes_and_indexes(page: Page, rested: Stack) -> None:
    tables = {s.labels["table"] for s in page.samples if s.name == "agent_memory_table_size_bytes"}
    assert tables == set(TABLES)
    for table in TABLES:
        assert page("agent_memory_table_size_bytes", table=table) >= 8192
        assert page("agent_memory_table_index_size_bytes", table=table) >= 8192
    whole = page("pg_database_size_bytes", datname="agent_memory")
    parts = sum(
        page(f"agent_memory_table_{part}", table=table)
        for part in ("size_bytes", "index_size_bytes")
        for table in TABLES
    )
    assert parts < whole
    for index in ("idx_episodes_embedding", "idx_knowledge_embedding"):
        assert page("agent_memory_vector_index_usable", index=index) == 1
        assert page("agent_memory_vector_index_size_bytes", index=index) >= 8192
    (age,) = rested.execute(
        "SELECT age(datfrozenxid) FROM pg_database WHERE datname = current_database()"
    )[0]
    assert 0 < page("pg_database_unfrozen_transactions", datname="agent_memory") <= age


def test_what_there_is_none_of_is_no_number(page: Page) -> None:
    assert math.isnan(page("agent_memory_knowledge_confidence_ratio", type="pattern"))
    assert page("agent_memory_knowledge_active", type="pattern") == 0
    assert page("agent_memory_task_last_success_timestamp_seconds", task="restore_drill") == 0
    assert math.isnan(page("agent_memory_task_last_duration_seconds", task="restore_drill"))
    assert page("agent_memory_task_last_failed", task="restore_drill") == 0
    assert page("agent_memory_task_last_failed", task="nightly") == 1
    assert page("agent_memory_task_last_failed", task="backup") == 0
    assert page("agent_memory_task_last_duration_seconds", task="backup") == pytest.approx(90)
    assert page("agent_memory_task_last_size_bytes", task="backup") == 1048576
    assert page("agent_memory_task_last_success_timestamp_seconds", task="backup") > 1e9


def test_operations_of_the_last_minutes(page: Page, rested: Stack) -> None:
    # None of a client, so that it is there once and for all.
    rested.execute(
        "INSERT INTO agent_memory_metrics (timestamp, operation_type, duration_ms, results_count) "
        "SELECT now() - interval '1 minute', 'plan', n, 2 FROM generate_series(1, 100) AS n "
        "UNION ALL SELECT now() - interval '6 minutes', 'plan', 9000, 2"
    )
    with exporter(rested, "recent", f"--extend.query-path={QUERIES}") as recent:
        assert recent("agent_memory_recent_operations", operation="plan") == 100
        assert recent("agent_memory_recent_results", operation="plan") == 200
        assert recent("agent_memory_recent_busy_seconds", operation="plan") == pytest.approx(5.05)
        assert recent("agent_memory_recent_p95_seconds", operation="plan") == pytest.approx(0.09505)
    assert "sample" not in operations(page)
    assert {"recall_similar", "record_episode"} <= operations(page)


def operations(page: Page) -> set[str]:
    name = "agent_memory_recent_operations"
    return {sample.labels["operation"] for sample in page.samples if sample.name == name}


def test_probes_are_shown_apart(rested: Stack) -> None:
    def probes() -> int:
        return int(rested.execute("SELECT count(recall_accuracy) FROM pgrecall.operations")[0][0])

    rested.execute(
        "INSERT INTO agent_memory_metrics (operation_type, duration_ms, recall_accuracy, precision)"
        " VALUES ('probed_plan', 1, 0.5, 0.5)"
    )
    before = probes()
    with exporter(rested, "probes", f"--extend.query-path={QUERIES}") as page:
        assert before <= page("agent_memory_index_probes") <= probes()
        assert "probed_plan" not in operations(page)
        for ratio in ("recall_ratio", "precision_ratio"):
            assert 0 < page(f"agent_memory_index_{ratio}") < 1


def test_the_exporter_finds_nothing_wrong(page: Page, rested: Stack) -> None:
    assert page("pg_up") == 1
    assert page("pg_exporter_last_scrape_error") == 0
    assert page("pg_exporter_user_queries_load_error") == 0
    working = [s.value for s in page.samples if s.name == "pg_scrape_collector_success"]
    assert working
    assert set(working) == {1}
    # Prometheus has it too, and in time.
    assert rested.up("postgres")
    assert rested.value('pg_exporter_last_scrape_error{job="pgrecall-postgres"}') == 0
    log = rested.postgres_exporter.output
    assert "level=info" in log
    assert "level=error" not in log, log[-2000:]


def test_nothing_is_there_twice(
    page: Page, rested: Stack, described: dict[str, tuple[str, str, frozenset[str]]]
) -> None:
    series = [(s.name, *sorted(s.labels.items())) for s in page.samples]
    assert len(series) == len(set(series))
    with exporter(rested, "plain") as plain:
        assert not plain.names & set(described)
        # Nor is anything lost by our queries.
        assert plain.names <= page.names
        assert plain("pg_database_size_bytes", datname="agent_memory") > 0


def test_names_are_as_prometheus_recommends(
    page: Page, described: dict[str, tuple[str, str, frozenset[str]]]
) -> None:
    done = subprocess.run(
        [find("promtool"), "check", "metrics"],
        input=page.text, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr  # 3: the exporter's own names are not all
    complaints = (done.stdout + done.stderr).splitlines()
    ours = [line for line in complaints if line.split(" ")[0] in described]
    assert not ours


def test_other_databases_are_left_alone(rested: Stack) -> None:
    flags = (f"--extend.query-path={QUERIES}", "--auto-discover-databases")
    with exporter(rested, "discovering", *flags) as page:
        assert page("pg_exporter_last_scrape_error") == 0
        assert page("pg_up") == 1
        assert page("agent_memory_episodes_rows") > 0


def test_a_query_that_fails_shows_and_spoils_no_other(rested: Stack) -> None:
    def shown() -> Page:
        return read(rested.ports["postgres"])

    rested.execute("REVOKE SELECT ON pgrecall.task_status FROM agent_memory_monitor")
    try:
        failing = shown()
    finally:
        rested.execute("GRANT SELECT ON pgrecall.task_status TO agent_memory_monitor")
    assert failing("pg_exporter_last_scrape_error") == 1
    assert "agent_memory_task_last_failed" not in failing.names
    assert failing("agent_memory_vector_index_usable", index="idx_episodes_embedding") == 1
    healed = shown()
    assert healed("pg_exporter_last_scrape_error") == 0
    assert healed("agent_memory_task_last_failed", task="backup") == 0


@pytest.mark.parametrize("table", [*TABLES, "pgrecall.task_runs"])
def test_the_exporters_role_reads_no_rows_of_agents(stack: Stack, table: str) -> None:
    with (
        psycopg.connect(stack.dsn("monitor")) as monitor,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        monitor.execute(f"SELECT 1 FROM {table}".encode())


def test_the_file_says_which_flags_it_needs(rested: Stack) -> None:
    """The exporter of the stack has those of the file's head, and no others."""
    head = QUERIES.read_text(encoding="utf-8").split("\n\n")[0]
    command = head.split("prometheus-postgres-exporter \\")[1].split("#\n")[0]
    flags = set(re.findall(r"--[\w.-]+", command))
    words = rested.postgres_exporter.process.args
    assert isinstance(words, list)
    used = {str(word).split("=")[0] for word in words[1:]}
    assert flags == used - {"--web.listen-address"}


def test_pools_of_pgbouncer_are_seen(stack: Stack) -> None:
    """By the monitor: Debian's exporter asks for columns that PgBouncer has no more."""
    app = '{database="agent_memory",user="agent_memory_app"}'
    stack.wait(lambda: stack.query(f"pgrecall_pooler_clients{app}"), "no pool was seen")
    states = {labels["state"] for labels, _ in stack.query(f"pgrecall_pooler_clients{app}")}
    assert states == {"active", "waiting"}
    states = {labels["state"] for labels, _ in stack.query(f"pgrecall_pooler_servers{app}")}
    assert states >= {"active", "idle"}
    assert (stack.value(f"sum(pgrecall_pooler_servers{app})") or 0) >= 1
    assert stack.value(f"pgrecall_pooler_client_wait_seconds{app}") is not None
