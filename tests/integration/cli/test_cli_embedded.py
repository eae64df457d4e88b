"""The embedded server by commands alone: nobody configured anything."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict


class Done(Protocol):
    code: int
    out: str
    err: str
    data: Any


class Run(Protocol):
    def __call__(
        self, *words: str, stdin: str | bytes = "", code: int = 0, **variables: str
    ) -> Done: ...


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one server lives for all tests of this file, which build on each other."""
    return tmp_path_factory.mktemp("embedded")


@pytest.fixture(autouse=True)
def nothing_configured(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGRECALL_CONFIG_DIR", str(home / "config"))
    monkeypatch.setenv("PGRECALL_DATA_DIR", str(home / "data"))
    monkeypatch.setenv("PGRECALL_EMBEDDER", "python:pgrecall.testing:HashEmbedder")


@pytest.fixture(scope="module", autouse=True)
def stopped_at_the_end(home: Path) -> Iterator[None]:
    from pgrecall.engine import EmbeddedServer

    yield
    server = EmbeddedServer(home / "data")
    if server.status().created:
        server.destroy(force=True)


def works(dsn: str) -> str:
    with psycopg.connect(dsn.strip()) as connection:
        return f"{connection.info.user}@{connection.info.dbname}"


def test_looking_starts_nothing(run: Run, home: Path) -> None:
    assert run("status").data["created"] is False
    assert "pgrecall start makes one" in run("status", "--table").out
    planned = run("init", "--dry-run").data
    assert {step["state"] for step in planned["steps"]} == {"would create"}
    assert planned["dimensions"] == 64
    assert run("stop").data == {"stopped": False}
    assert not (home / "data").exists()
    assert not (home / "config").exists()


def test_asking_for_a_connection_string_starts_and_provisions(run: Run) -> None:
    assert works(run("dsn").out) == "agent_memory_app@agent_memory"
    assert works(run("dsn", "--role", "owner").out) == "agent_memory_owner@agent_memory"
    assert works(run("dsn", "--role", "admin").out) == "postgres@agent_memory"
    status = run("status").data
    assert status["running"] is True
    assert f"127.0.0.1:{status['port']}" in run("status", "--table").out
    assert run("start").data["started"] is False
    assert run("logs", "--lines", "3").out.count("\n") >= 1
    assert isinstance(run("logs", "--json").data, list)
    again = run("init").data
    assert not again["changed"]
    assert again["dimensions"] == 64


def test_the_memory_works_and_survives_a_stop(run: Run) -> None:
    recorded = run(
        *("episodes", "record", "--project", "p", "--agent-version", "1"),
        *("--perception", '{"backlog": "large"}', "--reasoning", "{}", "--action", "{}"),
    ).data
    with psycopg.connect(run("dsn").out.strip()):
        refused = run("stop", code=1)
        assert "1 client is connected" in refused.err
    assert run("stop").data == {"stopped": True}
    (hit,) = run("episodes", "recall", "large backlog").data  # starts it again
    assert hit["episode"]["episode_id"] == recorded["episode_id"]
    assert run("verify", "--table").out.endswith("not configured\n")


def test_the_services_follow_when_another_program_takes_the_port(run: Run) -> None:
    before = run("status").data["port"]
    run("stop")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", before))
        other.listen()
        for role in ("app", "owner", "readonly", "monitor", "backup", "admin"):
            printed = run("dsn", "--role", role).out
            assert conninfo_to_dict(printed.strip())["port"] != str(before)
            works(printed)
    assert not run("init").data["changed"]


def test_the_demo_leaves_a_configured_memory_alone(run: Run, home: Path) -> None:
    services = (home / "config" / "pg_service.conf").read_text()
    elsewhere = "postgresql://agent@db.invalid/agent_memory"
    played = run("demo", "--decisions", "3", "--json", PGRECALL_DSN=elsewhere).data
    assert played["database"] == "pgrecall_demo"
    assert played["decisions"] == 3
    again = run("demo", "--decisions", "3", PGRECALL_DSN=elsewhere).out
    assert "3 episodes recorded" in again
    assert "was not touched" in again
    assert (home / "config" / "pg_service.conf").read_text() == services


def test_destroy_takes_the_database_or_the_whole_server(run: Run, home: Path) -> None:
    dropped = run("destroy", "--yes").data
    assert "database agent_memory" in dropped["dropped"]
    assert run("status").data["running"] is True
    assert run("destroy", "--yes").data["dropped"] == []
    elsewhere = run("destroy", "--yes", code=1, PGRECALL_DSN="postgresql://agent@db.invalid/d")
    assert "needs an administrator" in elsewhere.err
    both = run("destroy", "--server", "--dsn", "host=x", "--yes", code=2)
    assert "cannot be given together" in both.err
    assert any(
        what.startswith("server ") for what in run("destroy", "--server", "--yes").data["dropped"]
    )
    assert not (home / "data").exists()
    assert "no embedded server" in run("destroy", "--server", "--yes", code=1).err
