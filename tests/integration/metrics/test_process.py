"""`pgrecall monitor` as a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest
from psycopg.conninfo import make_conninfo
from tests.integration.metrics.scraping import Scrape
from tests.integration.monitor.programs import wait_until

from pgrecall import Memory
from pgrecall.engine import EmbeddedServer
from pgrecall.testing import Database


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
        with frozen(server):
            wait_until(lambda: up() == 0, "a server that hangs was not seen")
        wait_until(lambda: up() == 1, "that it goes on was not seen")
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


@contextmanager
def frozen(server: EmbeddedServer) -> Iterator[None]:
    """Let all processes of a server hang."""
    postmaster = psutil.Process(server.status().pid)
    postmaster.suspend()  # first, so that no others come
    try:
        for process in postmaster.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # one that was just ending
                process.suspend()
        yield
    finally:
        for process in (*postmaster.children(recursive=True), postmaster):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


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
