"""Running commands: within the tests' process for speed, or as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from typer.testing import CliRunner

from pgrecall.cli.app import app
from pgrecall.testing import Database, Template

EMBEDDER = "python:pgrecall.testing:HashEmbedder"


@dataclass(frozen=True)
class Done:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


def invoke(*words: str, stdin: str | bytes = "", code: int = 0, **variables: str) -> Done:
    result = CliRunner().invoke(app, words, input=stdin, env=variables, prog_name="pgrecall")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    done = Done(result.exit_code, result.stdout, result.stderr)
    assert done.code == code, done
    return done


@pytest.fixture
def run() -> Run:
    """Run a command in this process and expect an exit code, 0 unless told otherwise."""
    return invoke


@pytest.fixture
def run_process() -> Run:
    """Run a command as a process of its own."""

    def start(*words: str, stdin: str = "", code: int = 0, **variables: str) -> Done:
        result = subprocess.run(
            [sys.executable, "-m", "pgrecall.cli", *words],
            input=stdin,
            capture_output=True,
            text=True,
            env={**os.environ, **variables},
            timeout=120,
            check=False,
        )
        done = Done(result.returncode, result.stdout, result.stderr)
        assert done.code == code, done
        return done

    return start


@pytest.fixture(scope="module")
def shared_database(pgrecall_template: Template) -> Iterator[Database]:
    """A provisioned database that a module shares."""
    with pgrecall_template.clone() as database:
        yield database


@pytest.fixture
def configured(shared_database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Let the commands find the module's database, and embed fast."""
    monkeypatch.setenv("PGRECALL_DSN", shared_database.dsn)
    monkeypatch.setenv("PGRECALL_OWNER_DSN", shared_database.owner_dsn)
    monkeypatch.setenv("PGRECALL_EMBEDDER", EMBEDDER)
    return shared_database
