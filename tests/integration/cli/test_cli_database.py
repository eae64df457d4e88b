"""From nothing to a verified database and back, on a server that was there before."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest

from pgrecall.migrations import HEAD
from pgrecall.testing import Database


class Done(Protocol):
    code: int
    out: str
    err: str
    data: Any


class Run(Protocol):
    def __call__(
        self, *words: str, stdin: str | bytes = "", code: int = 0, **variables: str
    ) -> Done: ...


@pytest.fixture
def fresh(
    admin_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> Iterator[str]:
    """The name of a database that does not exist, with a configuration of its own."""
    name = f"pgrecall_cli_{secrets.token_hex(4)}"
    monkeypatch.setenv("PGRECALL_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("PGRECALL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PGRECALL_ADMIN_DSN", admin_dsn)
    yield name
    run("destroy", "--database", name, "--yes", "--force")


def states(report: Any) -> set[str]:
    return {step["state"] for step in report["steps"]}


def test_from_nothing_to_a_verified_database_and_back(
    run: Run, fresh: str, admin_dsn: str, tmp_path: Path
) -> None:
    words = ["init", "--database", fresh, "--dimensions", "64"]
    planned = run(*words, "--dry-run").data
    assert planned["dry_run"]
    assert planned["changed"]
    assert states(planned) <= {"would create", "would change", "unchanged"}
    assert not (tmp_path / "config").exists()
    first = run(*words).data
    assert first["revision"] == HEAD
    assert first["dimensions"] == 64
    second = run(*words).data
    assert not second["changed"]
    assert states(second) == {"unchanged"}
    assert "nothing was changed" in run(*words, "--table").out

    for role in ("app", "owner", "readonly", "monitor", "backup"):
        printed = run("dsn", "--role", role).out
        assert printed.count("\n") == 1
        with psycopg.connect(printed.strip()) as connection:
            assert connection.info.dbname == fresh
            assert connection.info.user == f"{fresh}_{role}"
    assert run("dsn").out == run("dsn", "--role", "app").out
    assert run("dsn", "--json").data == {"role": "app", "dsn": run("dsn").out.strip()}
    assert "embedded server only" in run("dsn", "--role", "admin", code=2).err
    assert "no role 'root'" in run("dsn", "--role", "root", code=2).err

    assert run("migrate").data == {"applied": [], "revision": HEAD, "backup": None}
    assert "nothing to do" in run("migrate", "--sql").out
    checks = run("verify").data
    assert {"passed"} <= {check["status"] for check in checks} <= {"passed", "not configured"}

    refused = run("destroy", "--database", fresh, code=2)
    assert "nobody can be asked" in refused.err
    dropped = run("destroy", "--database", fresh, "--yes").data["dropped"]
    assert f"database {fresh}" in dropped
    with psycopg.connect(admin_dsn) as connection:
        query = "SELECT count(*) FROM pg_roles WHERE starts_with(rolname, %s)"
        assert connection.execute(query, [fresh]).fetchone() == (0,)
    assert "nothing was changed" in run("destroy", "--database", fresh, "--yes", "--table").out


def test_init_refuses_before_it_creates_anything(run: Run, fresh: str, admin_dsn: str) -> None:
    refused = run("init", "--database", fresh, "--dimensions", "99999", code=2)
    assert "99999" in refused.err
    assert run("init", "--dsn", "not a dsn", "--database", fresh, code=2).err.startswith("error:")
    nobody = run("init", "--dsn", "host=127.0.0.1 port=1", "--database", fresh, code=1)
    assert "hint:" in nobody.err
    with psycopg.connect(admin_dsn) as connection:
        query = "SELECT count(*) FROM pg_database WHERE datname = %s"
        assert connection.execute(query, [fresh]).fetchone() == (0,)


def test_the_configured_embedder_gives_the_dimensions(run: Run, fresh: str) -> None:
    embedder = "python:pgrecall.testing:HashEmbedder"
    assert run("init", "--database", fresh, "--embedder", embedder).data["dimensions"] == 64
    # A database that exists keeps its own.
    assert run("init", "--database", fresh, "--embedder", "builtin").data["dimensions"] == 64


def test_migrate_prints_everything_for_an_empty_database(
    run: Run, fresh: str, admin_dsn: str
) -> None:
    script = run("migrate", "--sql", PGRECALL_OWNER_DSN=admin_dsn).out
    assert "agent_episodes" in script
    assert HEAD in script
    assert "vector(1536)" in script


def test_verify_and_doctor_fail_when_something_is_broken(
    run: Run, pgrecall_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGRECALL_DSN", pgrecall_database.dsn)
    monkeypatch.setenv("PGRECALL_OWNER_DSN", pgrecall_database.owner_dsn)
    assert all(check["status"] != "failed" for check in run("verify").data)
    assert all(check["status"] != "failed" for check in run("doctor").data)
    with psycopg.connect(pgrecall_database.admin_dsn, autocommit=True) as connection:
        connection.execute("DROP INDEX idx_episodes_embedding")
    failed = [check for check in run("verify", code=1).data if check["status"] == "failed"]
    assert "idx_episodes_embedding" in " ".join(check["evidence"] for check in failed)
    for command in ("verify", "doctor"):
        for width in ("60", "100"):
            monkeypatch.setenv("COLUMNS", width)
            text = run(command, "--table", code=1).out
            assert "failed" in text
            assert "→" in text
            assert max(map(len, text.splitlines())) <= int(width)


def test_a_memory_that_was_never_provisioned(run: Run, admin_dsn: str) -> None:
    done = run("episodes", "list", "--dsn", admin_dsn, code=1)
    assert "holds no agent memory" in done.err
    assert "pgrecall init" in done.err
