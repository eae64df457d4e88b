"""The command as a process: terminal and pipe, interruption, unknown errors."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol

import psycopg
import pytest

from pgrecall.testing import Database

pytestmark = pytest.mark.usefixtures("configured")

COMMAND = [sys.executable, "-m", "pgrecall.cli"]


class Done(Protocol):
    code: int
    out: str
    err: str
    data: Any


class Run(Protocol):
    def __call__(
        self, *words: str, stdin: str | bytes = "", code: int = 0, **variables: str
    ) -> Done: ...


def on_terminal(*words: str) -> tuple[int, str]:
    """Run a command with a terminal of 100 columns as its output."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm"}
    with subprocess.Popen(
        [*COMMAND, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        code = process.wait(timeout=60)
        text = b"".join(_all(ours)).decode()
    os.close(ours)
    return code, text


def _all(descriptor: int) -> Iterator[bytes]:
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # how a terminal says that its other side is closed
            return
        if not part:
            return
        yield part


def test_a_terminal_gets_tables_and_a_pipe_json(run: Run, run_process: Run) -> None:
    run(
        *("episodes", "record", "--project", "tty", "--agent-version", "1", "--quality", "0.9"),
        *("--perception", "{}", "--reasoning", "{}", "--action", '{"done": "tested it"}'),
    )
    code, text = on_terminal("episodes", "list", "--project", "tty")
    assert code == 0
    assert "what was done" in text
    assert "tested it" in text
    assert re.search(r"\x1b\[32m *0\.90", text)
    code, text = on_terminal("episodes", "list", "--project", "tty", "--json")
    assert json.loads(text[text.index("{") :])["items"]
    assert len(run_process("episodes", "list", "--project", "tty").data["items"]) == 1


def test_the_whole_command_line_is_there(run_process: Run) -> None:
    import pgrecall

    assert run_process("--version").out == f"{pgrecall.__version__}\n"
    assert "episodes" in run_process("--help").out
    usage = run_process("nonsense", code=2)
    assert "No such command 'nonsense'" in usage.err


def test_a_reader_that_leaves_is_no_error(configured: object) -> None:
    write = (
        "import sys; from pgrecall.cli import output\n"
        "from pgrecall.cli.app import app\n"
        "@app.command()\n"
        "def much() -> None:\n"
        "    for _ in range(100_000): output.printer().plain('x' * 100)\n"
        "app(['much'])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", write], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        complaints = process.stderr.read()
        assert process.wait(timeout=60) == 141
    assert complaints == b""


def await_client(database: Database) -> None:
    """Wait until somebody has the memory open."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name = %s"
    with psycopg.connect(database.admin_dsn, autocommit=True) as connection:
        deadline = time.monotonic() + 60
        while connection.execute(query, [database.name, "pgrecall"]).fetchone() == (0,):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_an_interruption_ends_quietly(configured: Database) -> None:
    with subprocess.Popen(
        [*COMMAND, "episodes", "import", "-", "--project", "p"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(os.environ),
    ) as process:
        await_client(configured)
        time.sleep(0.5)  # it waits for lines that never come
        process.send_signal(signal.SIGINT)
        assert process.stdin is not None
        assert process.stderr is not None
        assert process.wait(timeout=60) == 130
        assert b"Traceback" not in process.stderr.read()


def test_known_errors_show_a_traceback_only_on_request(run_process: Run) -> None:
    words = ["episodes", "show", "nonsense"]
    assert "Traceback" not in run_process(*words, code=2).err
    assert "Traceback" in run_process(*words, code=1, PGRECALL_DEBUG="1").err
