"""A monitor on the test's own database, in the tests' process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.pgbouncer import PgBouncer, generate, public_directory, running

from pgrecall.ops.monitor.service import Monitor, MonitorRequest
from pgrecall.testing import Database, Template


@pytest.fixture
def request_(pgrecall_database: Database) -> MonitorRequest:
    return MonitorRequest(
        dsn=pgrecall_database.role_dsn("monitor"), port=0, operations_lag=0.0, timeout=5.0
    )


@pytest.fixture
def monitor(request_: MonitorRequest) -> Iterator[Monitor]:
    watching = Monitor(request_)
    yield watching
    watching.close()


@pytest.fixture
def pooler(pgrecall_template: Template, pgrecall_database: Database) -> Iterator[PgBouncer]:
    """A PgBouncer of its own in front of the test's database."""
    with public_directory() as directory:
        report = generate(
            pgrecall_template.admin_dsn,
            pgrecall_template.settings,
            directory,
            also=(pgrecall_database.name,),
        )
        with running(report.configuration) as started:
            yield started
