"""``migrate``: from the revision that a database is at to the one that this version needs."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from pgrecall.config import Settings
from pgrecall.driver import connect, translate
from pgrecall.errors import OperationRefused
from pgrecall.migrations import HEAD, history
from pgrecall.ops.embedded import wanted_dimensions
from pgrecall.ops.provision import DEFAULT_DIMENSIONS, Progress
from pgrecall.sql import load


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationReport:
    """What a migration did.

    Attributes:
        applied: The revisions that were applied, oldest first; empty when there was nothing to do.
        revision: The revision that the schema is at now.
        backup: Name of the backup that was made before; None when there was nothing to do, or
            nothing to lose, or none was wanted.
    """

    applied: tuple[str, ...]
    revision: str
    backup: str | None = None


def upgrade(
    owner_dsn: str, *, settings: Settings, backup: bool = True, progress: Progress | None = None
) -> MigrationReport:
    """Apply the revisions that are missing, after a backup of what is there.

    Args:
        owner_dsn: Connection string of the owner, to the server itself.
        settings: Name the embedder, whose dimensions an empty database gets, and where backups go.
        backup: Whether to make one first, if there is anything to migrate.
        progress: Called with a line of text for each step.

    Raises:
        OperationRefused: The tables were made by hand, or the connection leads through a pooler
            or to a standby, or no backup could be made.
        SchemaTooNew: A newer version migrated the database.
        MigrationError: A revision failed.
        Unavailable: The server could not be reached.
    """
    from pgrecall.migrations import runner  # Alembic takes a third of a second to load

    revision, dimensions = _look(owner_dsn, settings)
    made = None
    if backup and revision not in (None, HEAD):
        from pgrecall.ops.backup import precaution

        made = precaution.back_up(owner_dsn, settings=settings, progress=progress)
    applied = runner.upgrade(owner_dsn, dimensions=dimensions, progress=progress)
    return MigrationReport(applied=tuple(applied), revision=HEAD, backup=made)


def script(owner_dsn: str, *, settings: Settings) -> str:
    """Return as SQL for ``psql`` what :func:`upgrade` would run.

    Raises:
        OperationRefused: The tables were made by hand.
        Unavailable: The server could not be reached.
    """
    from pgrecall.migrations import runner  # Alembic takes a third of a second to load

    revision, dimensions = _look(owner_dsn, settings)
    return runner.script(dimensions, revision)


def _look(owner_dsn: str, settings: Settings) -> tuple[str | None, int]:
    """Return the database's revision, and its dimensions or those that it should get."""
    try:
        with connect(owner_dsn, purpose="migrate") as connection:
            row = connection.execute(load("connection")["describe"]).fetchone()
            revision = history.current(connection)
            if revision is not None:
                history.pending(connection)
    except psycopg.Error as error:
        raise translate(error) from error
    found = row or {}
    if found.get("has_episodes") and revision is None:
        raise OperationRefused(
            "the tables of this database were made by hand, so no revision is known",
            hint="take them over with: pgrecall init --dsn ADMIN_DSN",
        )
    dimensions = found.get("dimensions") or wanted_dimensions(settings) or DEFAULT_DIMENSIONS
    return revision, int(dimensions)
