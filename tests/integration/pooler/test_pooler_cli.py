"""The command itself: what it prints, and that what it prints works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.pgbouncer import USER, free_port, needs_pgbouncer, running
from typer.testing import CliRunner

from pgrecall.cli.app import app
from pgrecall.testing import Database, Template


@pytest.fixture
def environment(pgrecall_template: Template, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGRECALL_ADMIN_DSN", pgrecall_template.admin_dsn)
    monkeypatch.setenv("PGRECALL_DATABASE", pgrecall_template.name)
    monkeypatch.setenv("PGRECALL_CONFIG_DIR", str(pgrecall_template.settings.config_dir))
    monkeypatch.setenv("COLUMNS", "250")


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, words, prog_name="pgrecall")
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


@pytest.mark.usefixtures("environment")
def test_it_says_what_it_did_and_what_comes_next(
    pgrecall_template: Template, directory: Path
) -> None:
    words = ("pooler", "config", str(directory), "--pgbouncer-version", "1.18")
    data = json.loads(run(*words, "--json"))
    assert data["changed"] is True
    assert data["configuration"] == str(directory / "pgbouncer.ini")
    assert data["users"] == str(directory / "userlist.txt")
    name = pgrecall_template.name
    assert data["dsn"] == f"postgresql://{name}_app@127.0.0.1:6432/{name}"
    assert {step["what"] for step in data["steps"]} == {
        "password", "role", "access", "function", "file",
    }  # fmt: skip
    table = run(*words, "--table")
    assert "Nothing was changed." in table
    assert f"start      {data['start']}" in table
    assert f"PGRECALL_DSN={data['dsn']}" in table
    assert 'PGRECALL_DIRECT_DSN="$(pgrecall dsn --role owner)"' in table
    passwords = [
        line.split(":")[4]
        for line in pgrecall_template.settings.password_file.read_text().splitlines()
    ]
    assert not [word for word in passwords if word in table + json.dumps(data)]


@pytest.mark.usefixtures("environment")
def test_without_a_directory_it_goes_beside_the_other_files(pgrecall_template: Template) -> None:
    data = json.loads(run("pooler", "config", "--json", "--set", "reserve_pool_size=3"))
    place = Path(pgrecall_template.settings.config_dir) / "pgbouncer"
    assert Path(data["configuration"]) == place / "pgbouncer.ini"
    assert "\nreserve_pool_size = 3\n" in (place / "pgbouncer.ini").read_text()


@pytest.mark.usefixtures("environment")
def test_a_setting_that_is_none(directory: Path) -> None:
    assert "is no setting" in run("pooler", "config", str(directory), "--set", "x", code=2)
    assert "hint:" in run("pooler", "config", str(directory), "--host", "x.invalid", code=1)


@needs_pgbouncer
@pytest.mark.usefixtures("environment")
def test_what_it_prints_works(
    pgrecall_template: Template,
    pgrecall_database: Database,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["pooler", "config", str(directory), "--listen-port", str(free_port())]
    if directory.owner() == "root":
        words += ["--owner", USER]
    data = json.loads(run(*words, "--also", pgrecall_database.name, "--json"))
    password = conninfo_to_dict(pgrecall_database.dsn)["password"]
    dsn = make_conninfo(data["dsn"], password=password)
    with running(Path(data["configuration"])):
        with psycopg.connect(dsn) as connection:
            row: Any = connection.execute("SELECT current_database()").fetchone()
            assert row == (pgrecall_template.name,)
        monkeypatch.delenv("PGRECALL_ADMIN_DSN")
        monkeypatch.setenv("PGRECALL_DSN", make_conninfo(dsn, dbname=pgrecall_database.name))
        monkeypatch.setenv("PGRECALL_OWNER_DSN", pgrecall_database.owner_dsn)
        # Nobody says that there is a pooler; it is noticed.
        checks = {check["id"]: check for check in json.loads(run("verify", "--json"))}
        assert checks["step-6"]["status"] == "passed"
        assert "through the pooler: median" in checks["TC-DB-004"]["evidence"]
        monkeypatch.setenv("PGRECALL_DIRECT_DSN", pgrecall_database.owner_dsn)
        checks = {check["id"]: check for check in json.loads(run("verify", "--json"))}
        assert checks["step-6"]["status"] == "passed"
        assert checks["catalog-unknown"]["status"] == "passed"
        found = {check["id"]: check for check in json.loads(run("doctor", "--json"))}
        assert found["connection"]["status"] == "passed"
    # Straight to the server, where nobody claims otherwise.
    monkeypatch.delenv("PGRECALL_DIRECT_DSN")
    monkeypatch.setenv("PGRECALL_DSN", pgrecall_database.dsn)
    checks = {check["id"]: check for check in json.loads(run("verify", "--json"))}
    assert checks["step-6"]["status"] == "not configured"
    assert "pgrecall pooler config" in checks["step-6"]["remedy"]
