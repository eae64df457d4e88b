"""Step 6 of ``verify`` with a real PgBouncer, and with connection strings that lead elsewhere."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgrecall.ops.checks import Check
from pgrecall.ops.verify import verify
from pgrecall.testing import Database

ById = Callable[[list[Check]], dict[str, Check]]
PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

CONFIGURATION = """
[databases]
{name} = host={host} port={port} dbname={name} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = 2
ignore_startup_parameters = extra_float_digits
server_reset_query_always = 0
"""


@pytest.fixture
def start_pooler(pgrecall_database: Database) -> Iterator[Callable[[str], str]]:
    """Start a PgBouncer in a pool mode; return a connection string through it."""
    if PGBOUNCER is None:
        pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
    program: str = PGBOUNCER
    processes: list[subprocess.Popen[bytes]] = []
    # As root it becomes nobody, who cannot read below pytest's own directory.
    directory = Path(tempfile.mkdtemp(prefix="pgrecall-pooler-"))
    directory.chmod(0o755)

    def start(mode: str) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with psycopg.connect(pgrecall_database.owner_dsn) as connection:
            info = connection.info
            text = CONFIGURATION.format(
                name=pgrecall_database.name,
                host=info.host,
                port=info.port,
                user=info.user,
                password=conninfo_to_dict(pgrecall_database.owner_dsn).get("password", ""),
                listen=port,
                mode=mode,
            )
        configuration = directory / "pgbouncer.ini"
        configuration.write_text(text, encoding="utf-8")
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        processes.append(
            subprocess.Popen([program, "-q", *user, str(configuration)], stderr=subprocess.DEVNULL)
        )
        dsn = make_conninfo(
            "", host="127.0.0.1", port=port, dbname=pgrecall_database.name, user="anyone"
        )
        _wait(dsn)
        return dsn

    yield start
    for process in processes:
        process.terminate()
        process.wait(timeout=10)
    shutil.rmtree(directory)


def _wait(dsn: str) -> None:
    end = time.monotonic() + 15
    while True:
        try:
            psycopg.connect(dsn).close()
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return


def test_transaction_pooling(
    start_pooler: Callable[[str], str], pgrecall_database: Database, by_id: ById
) -> None:
    check = by_id(
        verify(
            pgrecall_database.owner_dsn,
            settings=pgrecall_database.settings,
            pooler_dsn=start_pooler("transaction"),
        )
    )["step-6"]
    assert check.status == "passed", check
    assert "4 clients shared" in check.evidence
    assert "40 transactions" in check.evidence


def test_no_pooler_there(pgrecall_database: Database, by_id: ById) -> None:
    check = by_id(
        verify(
            pgrecall_database.owner_dsn,
            settings=pgrecall_database.settings,
            pooler_dsn=pgrecall_database.owner_dsn,
        )
    )["step-6"]
    assert check.status == "failed"
    assert "straight to the server" in check.evidence


def test_pooler_of_another_database(
    pgrecall_database: Database, empty_database: str, by_id: ById
) -> None:
    check = by_id(
        verify(
            pgrecall_database.owner_dsn,
            settings=pgrecall_database.settings,
            pooler_dsn=empty_database,
        )
    )["step-6"]
    assert check.status == "failed"
    assert "another database" in check.evidence


def test_pooler_that_does_not_answer(pgrecall_database: Database, by_id: ById) -> None:
    check = by_id(
        verify(
            pgrecall_database.owner_dsn,
            settings=pgrecall_database.settings,
            pooler_dsn="host=127.0.0.1 port=1 user=x password=secret-word",
        )
    )["step-6"]
    assert check.status == "failed"
    assert check.remedy
    assert "secret-word" not in check.evidence
