"""A backup holds one moment, whole, or it is none."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg
import pyrage
import pytest
from psycopg import sql
from tests.integration.backup.conftest import EPISODES, Create, Drill, failures, file_of
from tests.pgbouncer import generate, needs_pgbouncer, public_directory, running

from pgrecall.errors import BackupError, ConfigurationError, InvalidInput, OperationRefused
from pgrecall.ops import backup
from pgrecall.ops.backup import tools
from pgrecall.testing import Database


def test_the_manifest_says_what_there_is(filled: Database, create: Create, location: str) -> None:
    report = create(filled)
    made = report.manifest
    rows = {table.full_name: table.rows for table in made.memory.tables}
    assert rows["public.agent_episodes"] == EPISODES
    assert rows["public.agent_knowledge"] == rows["public.agent_working_memory"] == 1
    vectors = {table.name: table.vectors for table in made.memory.tables if table.vectors}
    assert vectors == {"agent_episodes": EPISODES * 9 // 10, "agent_knowledge": 1}
    assert made.memory.dimensions == 64
    assert made.memory.revision
    assert made.memory.owner.endswith("_owner")
    assert len(made.memory.probes) == 5
    roles = {role.name.rsplit("_", 1)[1] for role in made.roles}
    assert roles >= {"owner", "app", "readonly", "monitor", "backup"}  # and a pooler's, if any
    assert file_of(location, report).stat().st_size == made.memory.bytes
    assert json.loads((Path(location) / made.name / "manifest.json").read_text())["format"] == 1


def test_it_is_private(filled: Database, create: Create, location: str) -> None:
    file = file_of(location, create(filled))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_the_run_is_recorded(filled: Database, create: Create) -> None:
    report = create(filled)
    assert report.recorded
    with psycopg.connect(filled.role_dsn("monitor")) as connection:
        row = connection.execute(
            "SELECT last_success_bytes, last_failed FROM pgrecall.task_status WHERE task = 'backup'"
        ).fetchone()
    assert row == (report.manifest.bytes, False)


def test_under_write_load_it_is_one_moment(filled: Database, create: Create, drill: Drill) -> None:
    # Each transaction moves quality from one episode to another: their sum is always the same.
    stop = threading.Event()
    written = [0]

    def write() -> None:
        with psycopg.connect(filled.dsn) as connection:
            while not stop.is_set():
                with connection.transaction():
                    connection.execute(
                        "INSERT INTO agent_episodes (project_id, perception, reasoning, action,"
                        " agent_version) VALUES ('load', '{}', '{}', '{}', '1')"
                    )
                    connection.execute(
                        "INSERT INTO agent_working_memory (project_id, session_id, expires_at)"
                        " VALUES ('load', gen_random_uuid(), now() + interval '1 day')"
                    )
                written[0] += 1

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        while written[0] < 20:
            time.sleep(0.01)
        made = create(filled).manifest
        before = written[0]
        while written[0] < before + 20:
            time.sleep(0.01)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    rows = {table.name: table.rows for table in made.memory.tables}
    # Both halves of every transaction, or neither.
    assert rows["agent_episodes"] - EPISODES == rows["agent_working_memory"] - 1
    assert 0 < rows["agent_working_memory"] - 1 < written[0]
    report = drill(filled)
    assert report.succeeded, failures(report)


def test_hidden_rows_are_refused(filled: Database, create: Create, location: str) -> None:
    backup_role = psycopg.conninfo.conninfo_to_dict(filled.role_dsn("backup"))["user"]
    role = sql.Identifier(str(backup_role))
    with psycopg.connect(filled.admin_dsn, autocommit=True) as admin:
        admin.execute("ALTER TABLE agent_episodes ENABLE ROW LEVEL SECURITY")
        admin.execute(sql.SQL("ALTER ROLE {} NOBYPASSRLS").format(role))
        try:
            with pytest.raises(
                BackupError, match=r"hides rows of public\.agent_episodes"
            ) as caught:
                create(filled)
        finally:
            admin.execute(sql.SQL("ALTER ROLE {} BYPASSRLS").format(role))
    assert "BYPASSRLS" in str(caught.value.hint)
    assert backup.list_backups(backup.open_storage(location)) == []
    assert create(filled).manifest.memory.rows > EPISODES  # as a role that sees all


def test_the_failure_is_recorded(filled: Database, create: Create) -> None:
    with pytest.raises(BackupError):
        create(filled, compress="brotli")
    with psycopg.connect(filled.owner_dsn) as connection:
        row = connection.execute(
            "SELECT succeeded, detail->>'error' FROM pgrecall.task_runs WHERE task = 'backup'"
        ).fetchone()
    assert row is not None
    assert row[0] is False
    assert "brotli" in row[1]


def test_encrypted_nothing_is_readable(filled: Database, create: Create, location: str) -> None:
    key = pyrage.x25519.Identity.generate()
    plain = file_of(location, create(filled))
    time.sleep(1.1)  # names carry seconds
    report = create(filled, recipients=(str(key.to_public()),))
    secret = file_of(location, report)
    assert plain.read_bytes().startswith(b"PGDMP")
    assert secret.read_bytes().startswith(b"age-encryption.org/v1")
    assert b"agent_episodes" not in secret.read_bytes()
    assert report.manifest.recipients == (str(key.to_public()),)


@pytest.mark.parametrize("key", ["age1nonsense", "ssh-ed25519 nonsense"])
def test_a_wrong_public_key(filled: Database, create: Create, location: str, key: str) -> None:
    with pytest.raises(ConfigurationError, match="is no public key"):
        create(filled, recipients=(key,))
    assert not Path(location).exists()


def test_a_secret_key_is_not_repeated(filled: Database, create: Create) -> None:
    secret = str(pyrage.x25519.Identity.generate())
    with pytest.raises(ConfigurationError) as caught:
        create(filled, recipients=(secret,))
    assert secret not in str(caught.value)


def test_no_password_lies_on_a_disk(filled: Database) -> None:
    with psycopg.connect(filled.role_dsn("backup")) as connection:
        password = connection.info.password
        with tools.environment(connection) as env:
            path = Path(env["PGSERVICEFILE"])
            assert f"password={password}" in path.read_text()
            assert "memfd" in str(path.readlink())
            assert password not in "".join(env.values())
            program = tools.find("pg_isready", filled.settings)
            assert "accepting" in tools.run(program, [], env=env, doing="ask")
    assert not path.exists()


def test_other_databases_beside_it(
    filled: Database, create: Create, drill: Drill, admin_dsn: str, new_name: str
) -> None:
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(new_name)))
    with psycopg.connect(psycopg.conninfo.make_conninfo(admin_dsn, dbname=new_name)) as own:
        own.execute("CREATE TABLE bookings (id int PRIMARY KEY, at timestamptz, price money)")
        own.execute("INSERT INTO bookings SELECT i, now(), i FROM generate_series(1, 50) AS i")
    report = create(filled, also=(new_name,))
    other = report.manifest.databases[1]
    assert (other.name, other.kind, other.rows) == (new_name, "also", 50)
    tried = drill(filled)
    assert tried.succeeded, failures(tried)
    assert f"rows:{new_name}" in {check.id for check in tried.checks}


def test_the_memory_itself_is_no_other(filled: Database, create: Create) -> None:
    with pytest.raises(InvalidInput, match="backed up anyway"):
        create(filled, also=(filled.name,))


def test_no_directory_to_write_to(filled: Database, create: Create, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with pytest.raises(BackupError, match=str(in_the_way)):
        create(filled, location=str(in_the_way))


@needs_pgbouncer
def test_not_through_a_pooler(filled: Database, create: Create) -> None:
    with public_directory() as directory:
        generate(filled.admin_dsn, filled.settings, directory, also=(filled.name,))
        with running(directory / "pgbouncer.ini") as pooler:
            through = pooler.through(filled.role_dsn("backup"))
            with pytest.raises(OperationRefused, match="pooler"):
                create(filled, dsn=through)


def test_killed_half_way_it_is_no_backup(filled: Database, create: Create, location: str) -> None:
    # A lock makes pg_dump wait in the middle of its work.
    with psycopg.connect(filled.admin_dsn) as blocker:
        blocker.execute("LOCK TABLE agent_episodes IN ACCESS EXCLUSIVE MODE")
        process = subprocess.Popen(
            [sys.executable, "-m", "pgrecall.cli", "backup", "create", "--to", location],
            env={**os.environ, "PGRECALL_BACKUP_DSN": filled.role_dsn("backup")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + 60
        while not list(Path(location).glob("*/*.partial")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    (remains,) = backup.list_backups(backup.open_storage(location))
    assert remains.manifest is None
    assert "interrupted" in str(remains.problem)
    time.sleep(1.1)
    made = create(filled).manifest
    found = backup.list_backups(backup.open_storage(location))
    assert [entry.name for entry in found if entry.problem is None] == [made.name]
    # What is young may be a backup in the making; what is old goes.
    kept = backup.prune(location, daily=1, weekly=0, monthly=0)
    assert all(fate.kept for fate in kept)
    folder = Path(location) / remains.name
    for path in (*folder.iterdir(), folder):
        os.utime(path, (0, 0))
    backup.prune(location, daily=1, weekly=0, monthly=0)
    assert [entry.name for entry in backup.list_backups(backup.open_storage(location))] == [
        made.name
    ]
