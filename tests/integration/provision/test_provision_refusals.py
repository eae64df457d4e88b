"""Each refusal names its reason and its remedy, and leaves nothing behind."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pgrecall.config import Settings
from pgrecall.errors import (
    ConfigurationError,
    InvalidInput,
    OperationRefused,
    PgrecallError,
    Unavailable,
)
from pgrecall.migrations import runner
from pgrecall.ops.provision import init
from pgrecall.ops.provision.checks import check_version, parse_version

OLD_BINARIES = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture
def refused(server: Any, settings: Settings) -> Callable[..., PgrecallError]:
    """Return a function that expects init to refuse and to change nothing."""

    def expect(*, inside: str | None = None, dsn: str | None = None, **wishes: Any) -> Any:
        before = server.snapshot(inside)
        wishes.setdefault("database", server.name())
        with pytest.raises((OperationRefused, InvalidInput)) as refusal:
            init(dsn or server.dsn, settings=settings, **wishes)
        assert server.snapshot(inside) == before
        assert not settings.config_dir.exists()
        assert refusal.value.hint
        return refusal.value

    return expect


@pytest.mark.parametrize(
    ("number", "text"), [(150018, "15.18"), (160004, "16.4"), (169999, "16.99")]
)
def test_old_versions(number: int, text: str) -> None:
    with pytest.raises(OperationRefused, match=text):
        check_version(number, text)


def test_supported_versions() -> None:
    check_version(170000, "17.0")
    check_version(180006, "18.6")


def test_versions_are_compared_as_numbers() -> None:
    assert parse_version("0.10.0") > (0, 8) > parse_version("0.7.4")


@pytest.fixture(scope="module")
def old_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """PostgreSQL 15 on a socket of its own."""
    if not (OLD_BINARIES / "initdb").exists():
        pytest.skip("not run: PostgreSQL 15 is not installed (postgresql-15)")
    if os.geteuid() != 0:
        pytest.skip("not run: needs root, to run PostgreSQL as its own user")
    import tempfile

    user = pwd.getpwnam("postgres")
    home = Path(tempfile.mkdtemp(prefix="pg15", dir="/tmp"))
    os.chown(home, user.pw_uid, user.pw_gid)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    def run(*command: str) -> None:
        subprocess.run(
            command, check=True, capture_output=True, user=user.pw_uid, group=user.pw_gid, cwd=home
        )

    data = str(home / "data")
    run(str(OLD_BINARIES / "initdb"), "-D", data, "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
    options = f"-k {home} -p {port} -c listen_addresses='' -c fsync=off"
    log = str(home / "log")
    run(str(OLD_BINARIES / "pg_ctl"), "-D", data, "-o", options, "-l", log, "-w", "start")
    try:
        yield f"host={home} port={port} user=postgres dbname=postgres"
    finally:
        run(str(OLD_BINARIES / "pg_ctl"), "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(home)


def test_an_old_server(old_server: str, refused: Callable[..., PgrecallError]) -> None:
    error = refused(dsn=old_server)
    assert "PostgreSQL 15" in error.message
    assert "17" in error.message


def test_a_server_without_pgvector(server: Any, refused: Callable[..., PgrecallError]) -> None:
    if server.value("SELECT current_setting('server_version_num')::int") < 180000:
        pytest.skip("not run: only PostgreSQL 18 can hide its extensions from a session")
    error = refused(dsn=server.dsn_of(options="-c extension_control_path=/nonexistent"))
    assert "pgvector" in error.message


def test_a_pooler(pooled_dsn: str, refused: Callable[..., PgrecallError]) -> None:
    assert "pooler" in refused(dsn=pooled_dsn).message


def test_migrations_refuse_a_pooler(server: Any, pooled_dsn: str) -> None:
    server.run(f'CREATE DATABASE "{server.name()}"')
    before = server.snapshot(server.name())
    with pytest.raises(OperationRefused, match="pooler"):
        runner.upgrade(f"{pooled_dsn} dbname={server.name()}", dimensions=3)
    assert server.snapshot(server.name()) == before


def test_no_server(settings: Settings) -> None:
    with pytest.raises(Unavailable):
        init("host=127.0.0.1 port=1 user=nobody", settings=settings)
    assert not settings.config_dir.exists()


@pytest.mark.parametrize("text", ["hast=127.0.0.1", "host=h password", "postgresql://u:unspoken@["])
def test_an_unreadable_connection_string(settings: Settings, text: str) -> None:
    for attempt in (
        lambda: init(text, settings=settings),
        lambda: runner.upgrade(text, dimensions=3),
    ):
        with pytest.raises(ConfigurationError, match="cannot be read") as refusal:
            attempt()
        assert "unspoken" not in str(refusal.value)
        assert refusal.value.__suppress_context__


def test_an_administrator_without_rights(
    server: Any, refused: Callable[..., PgrecallError]
) -> None:
    weak = server.role("weak")
    error = refused(dsn=server.dsn_of(user=weak))
    assert "may not create the database" in error.message
    assert "may not create roles" in error.message
    assert "may not create the extension vector" in error.message
    assert "CREATEDB" in str(error.hint)
    assert "CREATEROLE" in str(error.hint)


def test_an_administrator_who_may_not_create_vector(
    server: Any, refused: Callable[..., PgrecallError]
) -> None:
    admin = server.role("admin", "LOGIN CREATEDB CREATEROLE")
    error = refused(dsn=server.dsn_of(user=admin))
    assert "extension vector" in error.message
    assert "CREATE EXTENSION vector" in str(error.hint)


def test_an_administrator_of_other_roles(
    server: Any, refused: Callable[..., PgrecallError]
) -> None:
    admin = server.role("admin", "LOGIN CREATEDB CREATEROLE")
    server.role("db_app")
    assert "db_app" in refused(dsn=server.dsn_of(user=admin)).message


def test_the_database_of_another(server: Any, refused: Callable[..., PgrecallError]) -> None:
    admin, database = server.role("admin", "LOGIN CREATEDB CREATEROLE"), server.name()
    server.run(f"CREATE DATABASE \"{database}\" TEMPLATE template0 ENCODING 'UTF8'")
    server.run("CREATE EXTENSION vector", database)
    assert "may not take over" in refused(dsn=server.dsn_of(user=admin)).message


def test_the_encoding(server: Any, refused: Callable[..., PgrecallError]) -> None:
    server.run(
        f"CREATE DATABASE \"{server.name()}\" TEMPLATE template0 ENCODING 'LATIN1' "
        "LOCALE_PROVIDER libc LOCALE 'C'"
    )
    assert "LATIN1" in refused().message


def test_a_locale_that_is_not_there(refused: Callable[..., PgrecallError]) -> None:
    error = refused(locale="tlh_QO.UTF-8")
    assert "tlh_QO.UTF-8" in error.message
    assert "--locale" in str(error.hint)


@pytest.mark.parametrize(
    ("planted", "named"),
    [
        ("CREATE TABLE agent_episodes (id int)", "agent_episodes.project_id is missing"),
        ("CREATE TABLE schema_version (version int)", "schema_version.version is integer"),
        ("CREATE VIEW agent_knowledge AS SELECT 1", "agent_knowledge is a view"),
        ("CREATE TABLE v_memory_system_health (id int)", "v_memory_system_health is a table"),
        (
            "CREATE FUNCTION cleanup_expired_working_memory() RETURNS int RETURN 1",
            "missing are table agent_episodes",
        ),
    ],
)
def test_something_else_under_our_names(
    server: Any, refused: Callable[..., PgrecallError], planted: str, named: str
) -> None:
    database = server.name()
    server.run(f"CREATE DATABASE \"{database}\" TEMPLATE template0 ENCODING 'UTF8'")
    server.run(planted, database)
    assert named in refused(inside=database).message


def test_other_dimensions(server: Any, refused: Callable[..., PgrecallError]) -> None:
    database = server.name()
    server.run(f"CREATE DATABASE \"{database}\" TEMPLATE template0 ENCODING 'UTF8'")
    runner.upgrade(server.dsn_of(database), dimensions=1024)
    error = refused(inside=database, dimensions=1536)
    assert "1024" in error.message
    assert "1536" in error.message


def test_columns_of_two_dimensions(server: Any, refused: Callable[..., PgrecallError]) -> None:
    database = server.name()
    server.run(f"CREATE DATABASE \"{database}\" TEMPLATE template0 ENCODING 'UTF8'")
    runner.upgrade(server.dsn_of(database), dimensions=8)
    server.run("ALTER TABLE agent_knowledge ALTER COLUMN embedding TYPE vector(9)", database)
    assert "no common dimension" in refused(inside=database).message


def test_a_newer_schema(server: Any, refused: Callable[..., PgrecallError]) -> None:
    database = server.name()
    server.run(f"CREATE DATABASE \"{database}\" TEMPLATE template0 ENCODING 'UTF8'")
    runner.upgrade(server.dsn_of(database), dimensions=8)
    server.run("UPDATE pgrecall.alembic_version SET version_num = '9.0.0'", database)
    assert "9.0.0" in refused(inside=database).message


def test_a_role_that_does_not_exist(refused: Callable[..., PgrecallError]) -> None:
    error = refused(grant_to=["nobody_knows_her"])
    assert "nobody_knows_her" in error.message
    assert "CREATE ROLE" in str(error.hint)


def test_granting_to_a_role_of_its_own(server: Any, refused: Callable[..., PgrecallError]) -> None:
    assert "db_app" in refused(grant_to=[server.name("db_app")]).message


@pytest.mark.parametrize("dimensions", [0, -1, 2001])
def test_dimensions_without_an_index(
    refused: Callable[..., PgrecallError], dimensions: int
) -> None:
    assert str(dimensions) in refused(dimensions=dimensions).message


@pytest.mark.parametrize(
    "name", ["", " padded", "a\nb", "postgres", "template1", "x" * 55, "ö" * 28]
)
def test_impossible_names(refused: Callable[..., PgrecallError], name: str) -> None:
    refused(database=name)


def test_all_reasons_at_once(refused: Callable[..., PgrecallError]) -> None:
    message = refused(grant_to=["nobody_knows_her"], locale="tlh_QO.UTF-8").message
    assert "nobody_knows_her" in message
    assert "tlh_QO.UTF-8" in message
