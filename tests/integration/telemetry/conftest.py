"""What the tests of telemetry share: memories with parts of it switched on, and a scraper."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Protocol
from urllib.request import urlopen

import pytest
from prometheus_client import start_http_server
from prometheus_client.parser import text_string_to_metric_families

from pgrecall import Memory
from pgrecall.testing import Database, HashEmbedder

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def read(port: int) -> Samples:
    """Scrape a process as Prometheus does."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Scraper:
    """Reads this process's metrics over HTTP, and how they changed since the test began."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._before = read(port)

    def value(self, name: str, **labels: str) -> float:
        """Return a sample as it stands; 0 if there is none."""
        return read(self.port).get((name, frozenset(labels.items())), 0.0)

    def change(self, name: str, **labels: str) -> float:
        """Return by how much a sample grew."""
        key = (name, frozenset(labels.items()))
        return read(self.port).get(key, 0.0) - self._before.get(key, 0.0)

    def counted(self) -> dict[str, int]:
        """Return the operations that succeeded since the test began, by name."""
        name = "pgrecall_operation_duration_seconds_count"
        return {key: int(by) for key, by in self._changes(name, "operation").items()}

    def failures(self) -> dict[str, int]:
        """Return the failures since the test began, by kind."""
        name = "pgrecall_operation_failures_total"
        return {key: int(by) for key, by in self._changes(name, "error").items()}

    def _changes(self, name: str, label: str) -> dict[str, float]:
        changes: dict[str, float] = {}
        for (sample, labels), value in read(self.port).items():
            by = value - self._before.get((sample, labels), 0.0)
            if sample == name and by:
                key = dict(labels)[label]
                changes[key] = changes.get(key, 0.0) + by
        return changes


@pytest.fixture(scope="session")
def exposed() -> Iterator[int]:
    """The port at which this process exposes its registry, as an application would."""
    server, thread = start_http_server(0, addr="127.0.0.1")
    yield int(server.server_port)
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def scraper(exposed: int) -> Scraper:
    return Scraper(exposed)


class OpenMemory(Protocol):
    """Opens a memory in the test's database with other settings; closed after the test."""

    def __call__(self, **settings: Any) -> Memory: ...


@pytest.fixture
def open_memory(pgrecall_database: Database) -> Iterator[OpenMemory]:
    with ExitStack() as stack:

        def opened(dsn: str | None = None, **changes: Any) -> Memory:
            settings = pgrecall_database.settings.model_copy(update=changes)
            return stack.enter_context(
                Memory.open(
                    dsn or pgrecall_database.dsn, embedder=HashEmbedder(), settings=settings
                )
            )

        yield opened


@pytest.fixture
def program(pgrecall_database: Database) -> Callable[..., str]:
    """Run a program in a process of its own, with the DSN as ``sys.argv[1]``."""

    def run(text: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", text, pgrecall_database.dsn],
            capture_output=True, text=True, timeout=100, check=False,
            env={**os.environ, **environment},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
