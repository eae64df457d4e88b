"""Nothing is changed on a server that holds data before a backup of it stands."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.integration.cli.conftest import Done, invoke

from pgrecall.config import Settings, load_settings
from pgrecall.errors import OperationRefused
from pgrecall.migrations import HEAD, REVISIONS, runner
from pgrecall.ops import backup
from pgrecall.ops.migrate import upgrade
from pgrecall.ops.provision import destroy


@pytest.fixture
def place(admin_dsn: str, tmp_path: Path) -> Iterator[Settings]:
    """Settings of a database of one's own, which is dropped afterwards."""
    settings = load_settings(
        config_dir=tmp_path / "config",
        database=f"pre_{secrets.token_hex(4)}",
        backups=str(tmp_path / "backups"),
    )
    yield settings
    destroy(admin_dsn, database=settings.database, settings=settings, force=True)


def made(settings: Settings) -> list[backup.Stored]:
    return backup.list_backups(backup.open_storage(settings.backup_location))


def old_database(admin_dsn: str, settings: Settings) -> str:
    """Make a database at the first revision."""
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(settings.database)))
    dsn = make_conninfo(admin_dsn, dbname=settings.database)
    runner.upgrade(dsn, dimensions=3, target=REVISIONS[0])
    return dsn


def test_migrate(admin_dsn: str, place: Settings) -> None:
    dsn = old_database(admin_dsn, place)
    report = upgrade(dsn, settings=place)
    (kept,) = made(place)
    assert report.applied == REVISIONS[1:]
    assert report.backup == kept.name
    assert kept.manifest is not None
    assert kept.manifest.memory.revision == REVISIONS[0]
    assert upgrade(dsn, settings=place).backup is None
    assert len(made(place)) == 1


def test_migrate_without(admin_dsn: str, place: Settings) -> None:
    dsn = old_database(admin_dsn, place)
    assert upgrade(dsn, settings=place, backup=False).backup is None
    assert made(place) == []


def test_no_backup_no_migration(admin_dsn: str, place: Settings) -> None:
    dsn = old_database(admin_dsn, place)
    Path(place.backup_location).write_text("in the way")
    with pytest.raises(OperationRefused, match="no backup could be made") as caught:
        upgrade(dsn, settings=place)
    assert "--no-backup" in str(caught.value.hint)
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT version_num FROM pgrecall.alembic_version").fetchone()
    assert row == (REVISIONS[0],)


def run(settings: Settings, *words: str) -> Done:
    variables = {
        "PGRECALL_CONFIG_DIR": str(settings.config_dir),
        "PGRECALL_DATABASE": settings.database,
        "PGRECALL_BACKUPS": settings.backup_location,
    }
    return invoke(*words, code=0, **variables)


def test_init_beside_an_application(admin_dsn: str, place: Settings, new_name: str) -> None:
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(new_name)))
    dsn = make_conninfo(admin_dsn, dbname=new_name)
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE chronicle AS SELECT * FROM generate_series(1, 9) AS n")
    options = ("init", "--dsn", dsn, "--dimensions", "3", "--json")
    report = run(place, *options).data
    (kept,) = made(place)
    assert report["backups"] == [kept.name]
    assert kept.manifest is not None
    (database,) = kept.manifest.databases
    assert (database.name, database.kind, database.rows) == (new_name, "also", 9)
    # What changes nothing needs no backup.
    assert run(place, *options).data["backups"] == []
    assert len(made(place)) == 1


def test_init_on_a_server_with_nothing_to_lose(admin_dsn: str, place: Settings) -> None:
    report = run(place, "init", "--dsn", admin_dsn, "--dimensions", "3", "--json")
    assert report.data["backups"] == []
    assert made(place) == []


def test_init_of_an_older_memory(admin_dsn: str, place: Settings) -> None:
    old_database(admin_dsn, place)
    options = ("init", "--dsn", admin_dsn, "--json")
    assert run(place, *options, "--dry-run").data["backups"] == []
    report = run(place, *options).data
    assert report["revision"] == HEAD
    (kept,) = made(place)
    assert report["backups"] == [kept.name]


def test_init_told_not_to(admin_dsn: str, place: Settings) -> None:
    old_database(admin_dsn, place)
    report = run(place, "init", "--dsn", admin_dsn, "--no-backup", "--json").data
    assert report["backups"] == []
    assert made(place) == []


def test_a_rehearsal_migrates_the_copy(admin_dsn: str, place: Settings) -> None:
    dsn = old_database(admin_dsn, place)
    backup.create(backup.BackupRequest(dsn=dsn, location=place.backup_location), settings=place)
    report = backup.rehearse(place.backup_location, settings=place)
    assert (report.revision_before, report.revision_after) == (REVISIONS[0], HEAD)
    assert report.applied == REVISIONS[1:]
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT version_num FROM pgrecall.alembic_version").fetchone()
    assert row == (REVISIONS[0],)  # the source is as it was
