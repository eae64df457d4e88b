"""A real PgBouncer for tests, started from what ``pgrecall pooler config`` writes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import ClientCursor, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from pgrecall.config import Settings
from pgrecall.ops.pooler import PoolerReport, PoolerRequest, configure
from pgrecall.ops.pooler.version import find_program

if TYPE_CHECKING:  # pytest must be the first to import its plugin
    from pgrecall.testing import Database, Template

PROGRAM = find_program()
MISSING = "PgBouncer is not installed: apt-get install pgbouncer"
USER = "nobody"
PATIENCE = 15.0

needs_pgbouncer = pytest.mark.skipif(PROGRAM is None, reason=MISSING)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def public_directory() -> Iterator[Path]:
    """Give a directory that PgBouncer's user can read as well; pytest's are closed to others."""
    directory = Path(tempfile.mkdtemp(prefix="pgrecall-pooler-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def generate(admin_dsn: str, memory: Settings, directory: Path, **options: Any) -> PoolerReport:
    """Let the product write the configuration, on a free port."""
    request = PoolerRequest(
        admin_dsn=admin_dsn,
        database=memory.database,
        directory=directory,
        **{
            "listen_port": free_port(),
            "owner": USER if os.geteuid() == 0 else None,
            **options,
        },
    )
    return configure(request, settings=memory)


@dataclass(frozen=True, slots=True)
class PgBouncer:
    """A PgBouncer that runs."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def through(self, dsn: str, **others: Any) -> str:
        """Return a connection string that leads through it."""
        return make_conninfo(dsn, host="127.0.0.1", port=self.port, **others)

    def console(self, dsn: str, command: str) -> list[dict[str, Any]]:
        """Run a command in its console, as the role of ``dsn``."""
        with psycopg.connect(
            self.through(dsn, dbname="pgbouncer"),
            autocommit=True,
            row_factory=dict_row,
            cursor_factory=ClientCursor,  # it knows simple queries only
        ) as connection:
            cursor = connection.execute(command.encode())
            return cursor.fetchall() if cursor.description else []


@contextmanager
def running(configuration: Path, *, before: Sequence[str] = ()) -> Iterator[PgBouncer]:
    """Start PgBouncer, and stop it at the end.

    Args:
        configuration: Its ``pgbouncer.ini``.
        before: Words of a command that starts it in turn.
    """
    if PROGRAM is None:
        pytest.skip(MISSING)
    port = int(setting(configuration, "listen_port"))
    user = ["-u", USER] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="pgrecall-pooler-log-") as place:
        log = Path(place) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*before, PROGRAM, *user, str(configuration)], stdout=output, stderr=output
            )
        try:
            _wait(port, process, log)
            yield PgBouncer(port, process, log)
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE)


def setting(configuration: Path, name: str) -> str:
    """Return the value of a setting in a configuration."""
    for line in configuration.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == name:
            return value.strip()
    raise KeyError(name)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"PgBouncer ended at once:\n{log.read_text()}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > end:
                raise RuntimeError(f"PgBouncer does not listen:\n{log.read_text()}") from None
            time.sleep(0.05)
        else:
            return


@contextmanager
def pooled_template(template: Template) -> Iterator[Template]:
    """Give the same template, whose copies are reached through a PgBouncer.

    The owner and the administrator still connect straight to the server, as migrations must.
    """
    from pgrecall.testing import Database, Template

    class PooledDatabase(Database):
        def role_dsn(self, role: str) -> str:
            dsn = super().role_dsn(role)
            return dsn if role == "owner" else pooler.through(dsn)

    class PooledTemplate(Template):
        def _copy(self, admin: psycopg.Connection[dict[str, Any]], name: str) -> None:
            super()._copy(admin, name)
            admin.execute(
                sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(
                    sql.Identifier(name), sql.Identifier(f"{self.name}_pooler")
                )
            )

        def _database(self, name: str) -> Database:
            plain = super()._database(name)
            values = {field.name: getattr(plain, field.name) for field in fields(plain)}
            return PooledDatabase(**{**values, "dsn": pooler.through(plain.dsn)})

    with public_directory() as directory:
        report = generate(template.admin_dsn, template.settings, directory)
        add_fallback(report.configuration, template.admin_dsn)
        with running(report.configuration) as pooler:
            yield PooledTemplate(
                name=template.name, admin_dsn=template.admin_dsn, settings=template.settings
            )


def add_fallback(configuration: Path, dsn: str) -> None:
    """Let it serve every database of the server: those of tests have names made up as they run."""
    place = conninfo_to_dict(dsn)
    text = configuration.read_text(encoding="utf-8")
    line = f"[databases]\n* = host={place['host']} port={place['port']}\n"
    configuration.write_text(text.replace("[databases]\n", line), encoding="utf-8")
