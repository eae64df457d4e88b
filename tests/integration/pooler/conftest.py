"""A test's database behind a real PgBouncer, with the configuration that the product writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.pgbouncer import PgBouncer, generate, public_directory, running

from pgrecall.ops.pooler import PoolerReport
from pgrecall.testing import Database, Template


@dataclass(frozen=True)
class Served:
    """A database and the pooler in front of it."""

    pooler: PgBouncer
    report: PoolerReport
    database: Database

    @property
    def dsn(self) -> str:
        """Of the application role, through the pooler."""
        return self.pooler.through(self.database.dsn)


Serve = Callable[..., Served]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that PgBouncer's user can read."""
    with public_directory() as path:
        yield path


@pytest.fixture
def serve(
    pgrecall_template: Template, pgrecall_database: Database, directory: Path
) -> Iterator[Serve]:
    """Start a PgBouncer in front of the test's database; takes options of ``pooler config``."""
    with ExitStack() as stack:

        def start(**options: Any) -> Served:
            report = generate(
                pgrecall_template.admin_dsn,
                pgrecall_template.settings,
                directory,
                also=(pgrecall_database.name,),
                **options,
            )
            pooler = stack.enter_context(running(report.configuration))
            return Served(pooler, report, pgrecall_database)

        yield start


@pytest.fixture
def served(serve: Serve) -> Served:
    """The test's database behind a PgBouncer as it is generated."""
    return serve()
