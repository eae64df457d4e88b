"""Clients that take a call back, or are gone amid one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pgrecall.testing import Database

COMMAND = ("-m", "pgrecall.cli", "mcp", "--project", "apollo", "--embedder", "none")
PATIENCE = 20


class Server:
    """`pgrecall mcp`, spoken to line by line, so that a call can be left unanswered."""

    def __init__(self, database: Database) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PGRECALL_DSN": database.dsn},
        )
        self.send(1, "initialize", protocolVersion="2025-06-18", capabilities={},
                  clientInfo={"name": "test", "version": "1"})  # fmt: skip
        assert self.read()["id"] == 1
        self.send(None, "notifications/initialized")

    def send(self, number: int | None, method: str, **parameters: Any) -> None:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": parameters}
        if number is not None:
            message["id"] = number
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def read(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def record(self, number: int) -> None:
        self.send(number, "tools/call", name="memory_record",
                  arguments={"situation": {"n": number}, "action": {"done": True}})  # fmt: skip


@pytest.fixture
def server(pgrecall_database: Database) -> Iterator[Server]:
    server = Server(pgrecall_database)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        for pipe in (server.process.stdin, server.process.stdout):
            assert pipe is not None
            pipe.close()


def waits(admin: psycopg.Connection[Any], expected: int) -> None:
    """Wait until so many backends wait for a lock."""
    end = time.monotonic() + PATIENCE
    while True:
        row = admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND wait_event_type = 'Lock'"
        ).fetchone()
        if row == (expected,):
            return
        assert time.monotonic() < end, row
        time.sleep(0.05)


def locked(database: Database) -> psycopg.Connection[Any]:
    owner = psycopg.connect(database.owner_dsn)
    owner.execute("LOCK TABLE agent_episodes IN ACCESS EXCLUSIVE MODE")
    return owner


def count(admin: psycopg.Connection[Any]) -> Any:
    return admin.execute("SELECT count(*) FROM agent_episodes").fetchone()


def test_a_call_that_is_taken_back_is_not_done(
    server: Server, pgrecall_database: Database, admin: psycopg.Connection[Any]
) -> None:
    with locked(pgrecall_database) as owner:
        server.record(2)
        waits(admin, 1)
        server.send(None, "notifications/cancelled", requestId=2, reason="no longer wanted")
        waits(admin, 0)  # the statement too is taken back
        server.send(3, "ping")
        while (answer := server.read())["id"] != 3:
            assert answer["id"] == 2
            assert "error" in answer
        owner.rollback()
    assert count(admin) == (0,)
    server.record(4)
    while (answer := server.read())["id"] != 4:
        assert answer["id"] == 2
    assert not answer["result"]["isError"]
    assert count(admin) == (1,)


def test_a_client_that_is_gone_amid_a_call_leaves_nothing_behind(
    server: Server, pgrecall_database: Database, admin: psycopg.Connection[Any]
) -> None:
    with locked(pgrecall_database) as owner:
        server.record(2)
        waits(admin, 1)
        assert server.process.stdin is not None
        server.process.stdin.close()
        server.process.wait(timeout=PATIENCE)
        waits(admin, 0)
        owner.rollback()
    assert count(admin) == (0,)
