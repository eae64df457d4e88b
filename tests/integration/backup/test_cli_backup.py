"""The commands, on the embedded server as a person would use it: nothing but defaults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.integration.backup.conftest import FILL

from pgrecall.engine import EmbeddedServer

Run = Callable[..., str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    directory = tmp_path_factory.mktemp("cli")
    variables = {
        "PGRECALL_DATA_DIR": str(directory / "server"),
        "PGRECALL_CONFIG_DIR": str(directory / "config"),
        "PGRECALL_EMBEDDER": "none",
    }
    yield variables
    EmbeddedServer(directory / "server").destroy(force=True)


@pytest.fixture(scope="module")
def run(place: dict[str, str]) -> Run:
    def start(*words: str, code: int = 0, **more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pgrecall.cli", *words],
            env={**os.environ, **place, **more},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout if code == 0 or done.stdout else done.stderr

    start("init", "--dimensions", "64")
    dsn = start("dsn", "--role", "owner").strip()
    with psycopg.connect(dsn) as connection:
        connection.execute(FILL, {"episodes": 50})
    return start


def data(text: str) -> Any:
    return json.loads(text)


def test_from_one_end_to_the_other(run: Run, place: dict[str, str]) -> None:
    made = data(run("backup", "create", "--json"))
    assert made["location"] == place["PGRECALL_DATA_DIR"] + "-backups"
    assert not made["encrypted"]
    assert made["recorded"]
    (listed,) = data(run("backup", "list", "--json"))
    assert (listed["name"], listed["problem"]) == (made["name"], None)
    drill = data(run("backup", "verify", "--json"))
    assert drill["succeeded"]
    assert {check["id"]: check["status"] for check in drill["checks"]}["recalls"] == "passed"
    restored = data(run("backup", "restore", "--to", "again", "--json"))
    assert (restored["database"], restored["backup"]) == ("again", made["name"])
    assert "exists" in run("backup", "restore", "--to", "again", code=1)
    replaced = data(run("backup", "restore", "--to", "again", "--replace", "--json"))
    assert replaced["replaced"].startswith("again-")
    rehearsed = data(run("backup", "rehearse", made["name"], "--json"))
    assert rehearsed["succeeded"]
    fates = data(run("backup", "prune", "--keep-daily", "1", "--dry-run", "--json"))
    assert all(fate["kept"] for fate in fates)  # each is the newest of its database
    step = {check["id"]: check for check in data(run("verify", "--json"))}["step-9"]
    assert step["status"] == "passed", step


def test_a_damaged_one_gives_exit_code_1(run: Run, tmp_path: Path) -> None:
    made = data(run("backup", "create", "--to", str(tmp_path), "--json"))
    (file,) = (tmp_path / made["name"]).glob("*.dump")
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    drill = data(run("backup", "verify", "--from", str(tmp_path), "--json", code=1))
    assert not drill["succeeded"]
    table = run("backup", "verify", "--from", str(tmp_path), "--table", code=1, COLUMNS="120")
    assert "CANNOT BE RELIED ON" in table
    file.unlink()
    listed = run("backup", "list", "--from", str(tmp_path), "--table", COLUMNS="140")
    assert "is missing" in listed


def test_what_is_missing_is_named(run: Run, tmp_path: Path) -> None:
    assert "holds no backup" in run("backup", "verify", "--from", str(tmp_path), code=1)
    assert "no backup 'x'" in run("backup", "restore", "x", "--to", "y", code=1)
    said = run("backup", "create", "--recipient", "age1nonsense", code=2)
    assert "is no public key" in said
    assert "There is no backup" in run("backup", "list", "--from", str(tmp_path), "--table")
