"""PostgreSQL 17 and 18: the same memory, and a backup that goes from one to the other."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.integration.backup.conftest import EPISODES, FILL, failures
from tests.postgresql_17 import memory_on_17, programs

from pgrecall.config import Settings
from pgrecall.errors import OperationRefused
from pgrecall.ops import backup
from pgrecall.ops.backup.scratch import scratch_server
from pgrecall.ops.provision import dsn_for
from pgrecall.ops.verify import verify


@pytest.fixture(scope="module")
def seventeen() -> Iterator[Settings]:
    pg_bin = programs()
    with (
        tempfile.TemporaryDirectory(prefix="pgrecall-17-") as directory,
        memory_on_17(Path(directory), pg_bin) as settings,
    ):
        with psycopg.connect(dsn_for(settings, "owner")) as connection:
            connection.execute(FILL, {"episodes": EPISODES})
        backup.create(
            backup.BackupRequest(
                dsn=dsn_for(settings, "backup"), location=settings.backup_location
            ),
            settings=settings,
        )
        yield settings


@pytest.fixture
def eighteen(seventeen: Settings) -> Settings:
    """The same settings, with the embedded server's own programs."""
    return seventeen.model_copy(update={"pg_bin": None})


def test_the_schema_is_the_same_on_17(seventeen: Settings) -> None:
    checks = verify(dsn_for(seventeen, "owner"))
    assert [check for check in checks if check.status == "failed"] == []


@pytest.mark.parametrize("target", ["seventeen", "eighteen"])
def test_a_backup_of_17_is_restored(
    seventeen: Settings, target: str, request: pytest.FixtureRequest
) -> None:
    settings: Settings = request.getfixturevalue(target)
    report = backup.drill(
        backup.DrillRequest(
            location=seventeen.backup_location, source_dsn=dsn_for(seventeen, "backup")
        ),
        settings=settings,
    )
    assert report.succeeded, failures(report)


def test_a_rehearsal_of_the_next_major(eighteen: Settings) -> None:
    report = backup.rehearse(eighteen.backup_location, settings=eighteen)
    assert report.succeeded, [check for check in report.checks if check.status == "failed"]


def test_not_back_to_an_older_major(
    seventeen: Settings, eighteen: Settings, tmp_path: Path
) -> None:
    location = str(tmp_path / "of-18")
    with scratch_server(eighteen, lambda _: None) as server:
        backup.create(
            backup.BackupRequest(dsn=server.admin_dsn(), location=location, memory=False),
            settings=eighteen,
        )
    with pytest.raises(OperationRefused, match="comes from PostgreSQL 18"):
        backup.drill(backup.DrillRequest(location=location), settings=seventeen)
