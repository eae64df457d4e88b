"""An administrator who isn't superuser, as on managed servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from pgrecall.config import Settings
from pgrecall.errors import OperationRefused
from pgrecall.migrations import HEAD
from pgrecall.ops.provision import destroy, dsn_for, init


@pytest.fixture
def admin(server: Any) -> str:
    return str(server.role("admin", "LOGIN CREATEDB CREATEROLE"))


@pytest.fixture
def database(server: Any, admin: str) -> str:
    """A superuser made the database and the extension; the rest is the administrator's."""
    name = str(server.name())
    server.run(f'CREATE DATABASE "{name}" OWNER "{admin}" TEMPLATE template0 ENCODING \'UTF8\'')
    server.run("CREATE EXTENSION vector", name)
    return name


def test_everything_works(server: Any, settings: Settings, admin: str, database: str) -> None:
    dsn, user = server.dsn_of(user=admin), server.role("chronicle")
    report = init(dsn, database=database, grant_to=[user], settings=settings)
    assert report.revision == HEAD
    reduced = "\n".join(report.reduced)
    assert "pg_monitor" in reduced
    assert "pg_read_all_data" in reduced
    assert "BYPASSRLS" in reduced

    with psycopg.connect(dsn_for(settings, "app")) as connection:
        assert connection.execute("SHOW hnsw.ef_search").fetchone() == ("100",)
        connection.execute(
            "INSERT INTO agent_episodes (project_id, perception, reasoning, action, "
            "agent_version) VALUES ('p', '{}', '{}', '{}', '1')"
        )
    with psycopg.connect(dsn_for(settings, "backup")) as connection:
        for table in ("agent_episodes", "schema_version", "pgrecall.alembic_version"):
            connection.execute(f"SELECT * FROM {table}")
    with psycopg.connect(dsn_for(settings, "monitor")) as connection:
        connection.execute("SELECT * FROM pgrecall.memory_size")
    server.run(
        f'SET SESSION AUTHORIZATION "{user}"; CREATE TABLE t (i int); DROP TABLE t', database
    )

    before = server.snapshot(database)
    second = init(dsn, database=database, grant_to=[user], settings=settings)
    assert not second.changed
    assert second.reduced == report.reduced
    assert server.snapshot(database) == before


def test_a_superuser_completes_it(
    server: Any, settings: Settings, admin: str, database: str
) -> None:
    init(server.dsn_of(user=admin), database=database, settings=settings)
    report = init(server.dsn, database=database, settings=settings)
    changed = {(step.what, step.target) for step in report.steps if step.state != "unchanged"}
    assert changed == {
        ("membership", f"{database}_monitor in pg_monitor"),
        ("membership", f"{database}_backup in pg_read_all_data"),
        ("attribute", f"{database}_backup"),
    }
    assert not any("BYPASSRLS" in text for text in report.reduced)


def test_a_dry_run(server: Any, settings: Settings, admin: str, database: str) -> None:
    before = server.snapshot(database)
    report = init(server.dsn_of(user=admin), database=database, settings=settings, dry_run=True)
    assert report.changed
    assert server.snapshot(database) == before


def test_adoption_by_its_single_user(
    server: Any, settings: Settings, by_hand: Callable[..., tuple[str, str]]
) -> None:
    """The specification's user may be all the administrator there is."""
    database, user = by_hand(as_user=True)
    dsn = server.dsn_of(user=user)
    server.run(f'ALTER ROLE "{user}" CREATEROLE')
    with pytest.raises(OperationRefused, match="may not change the owner"):
        init(dsn, database=database, settings=settings)
    server.run(f'ALTER ROLE "{user}" CREATEDB')
    report = init(dsn, database=database, settings=settings)
    assert report.adopted
    assert not init(dsn, database=database, settings=settings).changed
    with server.connect(database, user=user) as connection:
        connection.execute("INSERT INTO agent_working_memory (project_id) VALUES ('p')")
        connection.execute("CREATE TABLE test_table (id int)")


def test_destroy(server: Any, settings: Settings, admin: str, database: str) -> None:
    dsn = server.dsn_of(user=admin)
    init(dsn, database=database, settings=settings)
    assert len(destroy(dsn, database=database, settings=settings).dropped) == 6
    assert [row["name"] for row in server.snapshot() if row["kind"] == "role"] == [admin]
