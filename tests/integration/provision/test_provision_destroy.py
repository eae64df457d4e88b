"""What init made goes away again, and nothing else does."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pgrecall.config import Settings
from pgrecall.errors import ConfigurationError, OperationRefused
from pgrecall.ops.provision import destroy, dsn_for, init


@pytest.fixture
def database(server: Any, settings: Settings) -> str:
    init(server.dsn, database=server.name(), dimensions=3, settings=settings)
    return str(server.name())


def test_nothing_stays(server: Any, settings: Settings, database: str) -> None:
    report = destroy(server.dsn, database=database, settings=settings)
    assert report.dropped[0] == f"database {database}"
    assert len(report.dropped) == 6
    assert server.snapshot() == []
    assert settings.password_file.read_text() == ""
    with pytest.raises(ConfigurationError, match="pgrecall_app"):
        dsn_for(settings, "app")
    assert destroy(server.dsn, database=database, settings=settings).dropped == ()


def test_it_can_be_made_again(server: Any, settings: Settings, database: str) -> None:
    destroy(server.dsn, database=database, settings=settings)
    assert init(server.dsn, database=database, dimensions=4, settings=settings).dimensions == 4


def test_a_database_of_others(server: Any, settings: Settings) -> None:
    server.run(f'CREATE DATABASE "{server.name()}"')
    before = server.snapshot(server.name())
    with pytest.raises(OperationRefused, match="was not provisioned"):
        destroy(server.dsn, database=server.name(), settings=settings)
    assert server.snapshot(server.name()) == before


@pytest.mark.parametrize(
    "plant",
    [
        'CREATE SCHEMA x AUTHORIZATION "{role}"',
        'CREATE TABLE x (i int); GRANT SELECT ON x TO "{role}"',
        'GRANT CREATE ON DATABASE "{other}" TO "{role}"',
    ],
)
def test_roles_that_hold_something_elsewhere(
    server: Any, settings: Settings, database: str, plant: str
) -> None:
    other = server.name("other")
    server.run(f'CREATE DATABASE "{other}"')
    server.run(plant.format(role=f"{database}_app", other=other), other)
    with pytest.raises(OperationRefused, match=f"{database}_app in {other}"):
        destroy(server.dsn, database=database, settings=settings)
    with psycopg.connect(dsn_for(settings, "app")) as connection:
        connection.execute("SELECT * FROM agent_episodes")


def test_from_inside(server: Any, settings: Settings, database: str) -> None:
    with pytest.raises(OperationRefused, match="itself"):
        destroy(server.dsn_of(database), database=database, settings=settings)


def test_in_use(server: Any, settings: Settings, database: str) -> None:
    with psycopg.connect(dsn_for(settings, "app")):
        with pytest.raises(OperationRefused, match="other sessions"):
            destroy(server.dsn, database=database, settings=settings)
        assert destroy(server.dsn, database=database, settings=settings, force=True).dropped


def test_the_way_to_another_database_stays(server: Any, settings: Settings, database: str) -> None:
    other = server.name("other")
    init(server.dsn, database=other, dimensions=3, settings=settings)
    assert destroy(server.dsn, database=database, settings=settings).forgotten == ()
    assert database + ":" not in settings.password_file.read_text()
    with psycopg.connect(dsn_for(settings, "app")) as connection:
        assert connection.info.dbname == other
