"""Everything that watches a memory, running for real: what the alerts and dashboards are tested on.

An embedded server, PgBouncer from `pgrecall pooler config`, `pgrecall monitor`, both exporters of
others, an agent, and Prometheus, each on a free port.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import psycopg
import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.integration.monitor.programs import Program, environment, find, stop_all, wait_until
from tests.pgbouncer import MISSING, PROGRAM, PgBouncer, free_port, generate, public_directory
from tests.pgbouncer import running as running_pgbouncer

from pgrecall.config import Settings, load_settings
from pgrecall.engine import EmbeddedServer
from pgrecall.ops import embedded
from pgrecall.ops.monitor.alerts import rule_file
from pgrecall.ops.monitor.objectives import Objectives
from pgrecall.ops.provision import dsn_for

ROOT = Path(__file__).resolve().parents[3]
QUERIES = ROOT / "deploy" / "prometheus" / "postgres-exporter-queries.yaml"
DIMENSIONS = 64
MONITOR_OPTIONS = (
    "--interval", "1", "--probe-interval", "2", "--operations-lag", "1", "--timeout", "2",
)  # fmt: skip


class Stack:
    """The parts, each of which can be stopped and started again.

    Args:
        directory: Where all of them keep what they write; open to other users of the system.
        objectives: What the alerts follow from.
        pooler: PgBouncer, in front of the server.
        settings: Of the memory on the server.
        server: The server.
    """

    def __init__(
        self,
        directory: Path,
        objectives: Objectives,
        pooler: PgBouncer,
        settings: Settings,
        server: EmbeddedServer,
    ) -> None:
        self.directory = directory
        self.objectives = objectives
        self.pooler = pooler
        self.settings = settings
        self.server = server
        self.ports = {
            name: free_port()
            for name in ("prometheus", "monitor", "agents", "postgres", "pgbouncer")
        }
        python = sys.executable
        self.monitor = self._program(
            "monitor",
            [python, "-m", "pgrecall.cli", "monitor", "--port", str(self.ports["monitor"]),
             *MONITOR_OPTIONS],
            PGRECALL_MONITOR_DSN=self.dsn("monitor"),
            PGRECALL_MONITOR_POOLER_DSN=f"host=127.0.0.1 port={pooler.port}",
        )  # fmt: skip
        self.agent = self.new_agent(PGRECALL_POOL_MAX_SIZE="4")
        self.postgres_exporter = self._program(
            "postgres-exporter",
            [find("prometheus-postgres-exporter"), "--no-collector.bgwriter",
             f"--web.listen-address=127.0.0.1:{self.ports['postgres']}",
             f"--extend.query-path={QUERIES}"],
            DATA_SOURCE_NAME=self.dsn("monitor", sslmode="disable"),
        )  # fmt: skip
        self.pgbouncer_exporter = self._pgbouncer_exporter()
        self.prometheus = self._prometheus()

    @property
    def programs(self) -> tuple[Program, ...]:
        """All parts that are processes of their own, in the order of their start."""
        return (
            self.monitor, self.agent, self.postgres_exporter, self.pgbouncer_exporter,
            self.prometheus,
        )  # fmt: skip

    def _program(
        self, name: str, words: Sequence[str], *, listens: bool = False, **variables: str
    ) -> Program:
        return Program(
            words,
            self.directory / f"{name}.log",
            environment(PGRECALL_CONFIG_DIR=str(self.directory / "none"), **variables),
            listens=listens,
        )

    def new_agent(self, *words: str, **variables: str) -> Program:
        """Return an agent that shows its metrics where Prometheus looks; one runs at a time."""
        return self._program(
            "agent",
            [sys.executable, str(Path(__file__).with_name("agent.py")), *words],
            listens=True,
            PGRECALL_DSN=self.pooled_dsn("app"),
            PGRECALL_PROMETHEUS_PORT=str(self.ports["agents"]),
            **variables,
        )

    def _pgbouncer_exporter(self) -> Program:
        monitor = conninfo_to_dict(self.dsn("monitor"))
        return self._program(
            "pgbouncer-exporter",
            [find("prometheus-pgbouncer-exporter"), "--host", "127.0.0.1",
             "--port", str(self.ports["pgbouncer"]), "--pgbouncer-host", "127.0.0.1",
             "--pgbouncer-port", str(self.pooler.port), "--pgbouncer-user", str(monitor["user"])],
            PGPASSWORD=str(monitor["password"]),
        )  # fmt: skip

    def _prometheus(self) -> Program:
        configuration = {
            "global": {
                "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s",
            },
            "rule_files": [str(self.directory / "rules.yml")],
            "scrape_configs": [
                {
                    "job_name": f"pgrecall-{name}",
                    "static_configs": [{"targets": [f"127.0.0.1:{self.ports[name]}"]}],
                }
                # Not "pgbouncer": that exporter ends at once, and would be an alert from the start.
                for name in ("monitor", "agents", "postgres")
            ],
        }  # fmt: skip
        for name, content in (
            ("prometheus.yml", configuration),
            ("rules.yml", rule_file(self.objectives)),
        ):
            (self.directory / name).write_text(yaml.safe_dump(content), encoding="utf-8")
        return self._program(
            "prometheus",
            [find("prometheus"), f"--config.file={self.directory / 'prometheus.yml'}",
             f"--storage.tsdb.path={self.directory / 'tsdb'}",
             f"--web.listen-address=127.0.0.1:{self.ports['prometheus']}"],
        )  # fmt: skip

    def start(self) -> None:
        """Start all, and wait until Prometheus has seen each of them."""
        for program in self.programs:
            program.start()
        for job in ("monitor", "agents", "postgres"):
            self.wait(partial(self.up, job), f"Prometheus did not see {job}")

    def stop(self) -> None:
        """Stop all."""
        stop_all(self.programs)

    def up(self, job: str) -> bool:
        """Whether Prometheus can scrape a job now."""
        return self.value(f'up{{job="pgrecall-{job}"}}') == 1

    def dsn(self, role: str, **others: str) -> str:
        """Return the connection string of a role, straight to the server."""
        if role == "admin":
            return self.server.admin_dsn(self.settings.database)
        return make_conninfo(dsn_for(self.settings, role), **others)

    def pooled_dsn(self, role: str) -> str:
        """Return the connection string of a role, through PgBouncer."""
        return self.pooler.through(self.dsn(role))

    @contextmanager
    def connect(self, role: str = "admin") -> Iterator[psycopg.Connection[Any]]:
        """Connect to the memory's database, straight, in autocommit."""
        with psycopg.connect(self.dsn(role), autocommit=True) as connection:
            yield connection

    def execute(self, statement: str, *values: object, role: str = "admin") -> list[Any]:
        """Run one statement, and return its rows if it has any."""
        with self.connect(role) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def wait(self, condition: Callable[[], Any], what: str, *, seconds: float = 60.0) -> Any:
        """Wait until a condition holds."""
        return wait_until(condition, what, seconds=seconds)

    def ask(self, path: str, **parameters: str) -> Any:
        """Ask Prometheus's interface, and return its data."""
        address = f"http://127.0.0.1:{self.ports['prometheus']}/api/v1/{path}"
        with urlopen(f"{address}?{urlencode(parameters)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expr: str) -> list[tuple[Mapping[str, str], float]]:
        """Return labels and values of an expression, now."""
        try:
            data = self.ask("query", query=expr)
        except (URLError, ConnectionError):
            return []  # it is being started
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(row["metric"], float(row["value"][1])) for row in data["result"]]

    def value(self, expr: str) -> float | None:
        """Return the only value of an expression; None where there is none."""
        rows = self.query(expr)
        return rows[0][1] if len(rows) == 1 else None

    def query_range(self, expr: str, *, seconds: float, step: float = 1.0) -> list[Any]:
        """Return the series of an expression over the last seconds."""
        end = time.time()
        data = self.ask(
            "query_range",
            query=expr, start=str(end - seconds), end=str(end), step=f"{step:g}",
        )  # fmt: skip
        return list(data["result"])

    def firing(self) -> dict[str, list[Mapping[str, str]]]:
        """Return the labels of the alerts that fire now, by their names."""
        found: dict[str, list[Mapping[str, str]]] = {}
        for alert in self.ask("alerts")["alerts"]:
            if alert["state"] == "firing":
                found.setdefault(alert["labels"]["alertname"], []).append(alert["labels"])
        return found


def place() -> Path:
    """Return where everything is put: memory, where that is a file system to write to."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


@contextmanager
def running(objectives: Objectives | None = None) -> Iterator[Stack]:
    """Start everything, and stop it at the end."""
    if PROGRAM is None:
        pytest.skip(MISSING)
    for program in ("prometheus", "prometheus-postgres-exporter", "prometheus-pgbouncer-exporter"):
        find(program)
    with (
        tempfile.TemporaryDirectory(prefix="pgrecall-stack-", dir=place()) as name,
        public_directory() as files,
    ):
        directory = Path(name)
        directory.chmod(0o755)
        settings = load_settings(
            config_dir=directory / "config", data_dir=directory / "server", database="agent_memory"
        )
        server = embedded.server_of(settings)
        try:
            _provision(settings, server)
            report = generate(server.admin_dsn(), settings, files, default_pool_size=6)
            with running_pgbouncer(report.configuration) as pooler:
                stack = Stack(directory, objectives or Objectives(), pooler, settings, server)
                try:
                    stack.start()
                    yield stack
                finally:
                    stack.stop()
        finally:
            server.destroy(force=True)


def _provision(settings: Settings, server: EmbeddedServer) -> None:
    server.start()
    with psycopg.connect(server.admin_dsn(), autocommit=True) as admin:
        # It takes a restart to begin archiving; a test changes the command only.
        admin.execute("ALTER SYSTEM SET archive_mode = on")
        admin.execute("ALTER SYSTEM SET archive_command = '/bin/true'")
    server.stop(force=True)
    embedded.provision(settings, dimensions=DIMENSIONS)
