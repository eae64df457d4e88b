"""The embedded server in ordinary life: start, use, stop, delete."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import pgrecall
from pgrecall.engine import EmbeddedServer, ServerInfo
from pgrecall.errors import EngineError, OperationRefused

SOURCE = Path(pgrecall.__file__).parents[1]
START = """
import json, sys
from pathlib import Path
from pgrecall.engine import EmbeddedServer
info = EmbeddedServer(Path(sys.argv[1])).start()
print(json.dumps([info.started, info.port]))
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that every user can enter, with a short path."""
    made = Path(tempfile.mkdtemp(prefix="pgr-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[EmbeddedServer]:
    """One server for the module, created by three starters at once."""
    made = EmbeddedServer(place / "data")
    yield made
    made.destroy(force=True)
    assert not made.data_dir.exists()


@pytest.fixture
def info(server: EmbeddedServer) -> ServerInfo:
    """The server, running."""
    return server.start()


def ask(dsn: str, query: str) -> str:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return str(row[0])


def test_three_starters_at_once_make_one_server(server: EmbeddedServer) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), *sys.path[1:]])}
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", START, str(server.data_dir)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(3)
    ]
    answers = []
    for starter in starters:
        out, errors = starter.communicate(timeout=60)
        assert starter.returncode == 0, errors
        assert errors == ""
        answers.append(json.loads(out))
    assert sorted(started for started, _ in answers) == [False, False, True]
    assert len({port for _, port in answers}) == 1
    assert ask(server.admin_dsn(), "select 1") == "1"


def test_a_second_start_changes_nothing(server: EmbeddedServer, info: ServerInfo) -> None:
    again = server.start()
    assert not again.started
    assert again.port == info.port
    status = server.status()
    assert status.running
    assert status.phase == "ready"
    assert status.pid
    assert status.since
    assert status.connections == 0
    assert status.port == info.port
    assert status.version == info.version


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("data_checksums", "on"),
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("listen_addresses", "127.0.0.1"),
        ("shared_preload_libraries", "pg_stat_statements"),
        ("server_encoding", "UTF8"),
        ("unix_socket_permissions", "0700"),
    ],
)
def test_settings(server: EmbeddedServer, info: ServerInfo, setting: str, value: str) -> None:
    assert ask(server.admin_dsn(), f"show {setting}") == value


def test_locale_and_extensions(server: EmbeddedServer, info: ServerInfo) -> None:
    dsn = server.admin_dsn()
    assert ask(dsn, "select datlocprovider from pg_database where datname = 'template1'") == "b"
    assert ask(dsn, "select datlocale from pg_database where datname = 'template1'") == "C.UTF-8"
    with psycopg.connect(dsn) as connection:
        connection.execute("create extension vector")
        connection.execute("create extension pg_stat_statements")
        row = connection.execute("select '[1,2]'::vector <=> '[1,2]'::vector").fetchone()
        assert row == (0.0,)
        connection.rollback()


def test_every_way_in_asks_for_the_password(server: EmbeddedServer, info: ServerInfo) -> None:
    hba = (server.data_dir / "cluster" / "pg_hba.conf").read_text()
    rules = [line.split() for line in hba.splitlines() if line and not line.startswith("#")]
    assert {rule[-1] for rule in rules} == {"scram-sha-256"}
    for host in (info.host, str(info.socket_dir)):
        for password in ("wrong", ""):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(host=host, port=info.port, user="postgres", password=password)
    right = psycopg.conninfo.conninfo_to_dict(server.admin_dsn())["password"]
    psycopg.connect(
        host=str(info.socket_dir), port=info.port, user="postgres", password=str(right)
    ).close()


def test_the_password_is_seen_nowhere(server: EmbeddedServer, info: ServerInfo) -> None:
    password = str(psycopg.conninfo.conninfo_to_dict(server.admin_dsn())["password"])
    assert len(password) >= 32
    state = server.data_dir / "state.json"
    assert password in state.read_text()
    assert state.stat().st_mode & 0o777 == 0o600
    assert password not in "\n".join(server.logs(10_000))
    assert password not in repr(server) + repr(info) + repr(server.status())
    assert password.encode() not in Path(f"/proc/{server.status().pid}/environ").read_bytes()
    server.stop()  # a running one makes and deletes files while we read them
    holders = [
        path
        for path in server.data_dir.rglob("*")
        if path.is_file() and password.encode() in path.read_bytes()
    ]
    assert holders == [state]


def test_the_server_inherits_no_secrets(server: EmbeddedServer, info: ServerInfo) -> None:
    environment = Path(f"/proc/{server.status().pid}/environ").read_bytes()
    names = {entry.split(b"=")[0].decode() for entry in environment.split(b"\0") if entry}
    assert {name for name in names if not name.startswith("PG")} <= {
        "PATH", "LC_ALL", "HOME", "LD_LIBRARY_PATH", "PWD", "OLDPWD", "SHLVL", "_",
    }  # fmt: skip


def test_only_the_servers_user_enters_its_directories(
    server: EmbeddedServer, info: ServerInfo
) -> None:
    for path in (server.data_dir / "cluster", info.socket_dir):
        assert path.stat().st_mode & 0o777 == 0o700
    if os.geteuid() == 0:
        assert (server.data_dir / "cluster").owner() == "pgrecall"
        assert server.data_dir.stat().st_mode & 0o777 == 0o711
    else:
        assert server.data_dir.stat().st_mode & 0o777 == 0o700


def test_a_killed_client_leaves_the_server_usable(server: EmbeddedServer, info: ServerInfo) -> None:
    script = (
        "import psycopg, sys, time\n"
        "c = psycopg.connect(sys.argv[1], application_name='victim')\n"
        "c.execute('create table half (n int)')\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", script, server.admin_dsn()], stdout=subprocess.PIPE
    )
    assert client.stdout
    assert client.stdout.readline() == b"ready\n"
    client.send_signal(signal.SIGKILL)
    client.wait()
    client.stdout.close()
    assert not server.start().started
    assert ask(server.admin_dsn(), "select to_regclass('half')") == "None"


def test_stop_refuses_while_others_are_connected(server: EmbeddedServer, info: ServerInfo) -> None:
    with psycopg.connect(server.admin_dsn(), application_name="planner"):
        assert server.status().connections == 1
        with pytest.raises(OperationRefused, match=r"1 client is connected: 1 x planner as postg"):
            server.stop()
        with pytest.raises(OperationRefused, match="1 client"):
            server.destroy()
        assert server.status().running


def test_stop_by_force_and_start_again_on_the_same_port(
    server: EmbeddedServer, info: ServerInfo
) -> None:
    with psycopg.connect(server.admin_dsn()) as connection:
        assert server.stop(force=True)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
    assert server.stop() is False
    status = server.status()
    assert (status.running, status.pid, status.since) == (False, None, None)
    assert status.created
    told: list[str] = []
    again = server.start(progress=told.append)
    assert again.started
    assert again.port == info.port
    assert told
    assert not any("creating" in line for line in told)


def test_a_taken_port_is_replaced_for_good(server: EmbeddedServer, info: ServerInfo) -> None:
    server.stop()
    with socket.create_server((info.host, info.port)):
        moved = server.start()
    assert moved.port != info.port
    assert ask(server.admin_dsn(), "show port") == str(moved.port)
    server.stop()
    assert server.start().port == moved.port


def test_a_service_environment_does_not_lead_astray(
    server: EmbeddedServer, info: ServerInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PGSSLMODE": "verify-full",
        "PGHOST": "192.0.2.1",
        "PGPORT": "1",
        "PGDATABASE": "nowhere",
        "PGOPTIONS": "-c no.such=1 -c wrong",
        "PGDATA": "/nowhere",
    }.items():
        monkeypatch.setenv(name, value)
    server.stop()
    assert server.start().started
    assert server.status().connections == 0


def test_programs_and_logs(server: EmbeddedServer, info: ServerInfo) -> None:
    dump = subprocess.run(
        [server.bin_dir() / "pg_dump", "--version"], capture_output=True, text=True, check=True
    )
    assert info.version in dump.stdout
    assert server.bin_dir().is_relative_to(server.data_dir)
    with psycopg.connect(server.admin_dsn()) as connection, pytest.raises(psycopg.Error):
        connection.execute("select no_such_column")
    assert any("no_such_column" in line for line in server.logs(10))
    assert len(server.logs(3)) == 3


def test_a_wrong_state_file_is_explained(server: EmbeddedServer, info: ServerInfo) -> None:
    server.stop()
    path = server.data_dir / "state.json"
    original = path.read_text()
    state = json.loads(original)
    path.write_text(json.dumps({**state, "admin_password": "another"}))
    try:
        with pytest.raises(EngineError, match=r"refuses its administrator.*does not fit"):
            server.start()
    finally:
        path.write_text(original)
    assert not server.start().started
    assert ask(server.admin_dsn(), "select 1") == "1"


def test_destroy_spares_what_is_not_ours(place: Path) -> None:
    data_dir = place / "adopted"
    data_dir.mkdir(mode=0o755)
    server = EmbeddedServer(data_dir)
    server.start()
    (data_dir / "notes.txt").write_text("mine")
    server.destroy()
    assert [entry.name for entry in data_dir.iterdir()] == ["notes.txt"]
    assert not server.status().running
