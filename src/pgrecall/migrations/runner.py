"""Runs the revisions, one caller at a time, on a connection that no pooler stands in.

Each revision commits together with its row in ``schema_version``. What must run outside of a
transaction (building an index while agents keep writing) comes before that commit and finds its
own traces when it is run again, so a run that was killed is completed by the next.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import psycopg
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import ScriptDirectory
from psycopg import sql
from psycopg.rows import tuple_row

from pgrecall.driver import connect, require_session
from pgrecall.errors import MigrationError, OperationRefused
from pgrecall.migrations import HEAD, REVISIONS, SQL_PACKAGE, VERSION_SCHEMA
from pgrecall.migrations.history import current, pending
from pgrecall.migrations.steps import execute, statements
from pgrecall.sql import load

Progress = Callable[[str], None]
"""Receives one line of text for each step."""

_QUERIES = load("bookkeeping", SQL_PACKAGE)
_LOCK_WAIT_SECONDS = 600.0
_LOCK_POLL_SECONDS = 0.2


def upgrade(
    dsn: str,
    *,
    dimensions: int,
    progress: Progress | None = None,
    target: str = "head",
    role: str | None = None,
) -> list[str]:
    """Apply the revisions that are missing, up to ``target``.

    Args:
        dsn: Connection string of the owner (or of one who may become it) to the server itself.
        dimensions: Dimensions of the embeddings, for the revision that creates the tables.
        progress: Called with a line for each step.
        target: A revision, or ``"head"`` for the newest.
        role: Role to become first, so that it owns what is created.

    Returns:
        The revisions that were applied, oldest first; empty when there was nothing to do.

    Raises:
        OperationRefused: The connection goes through a pooler, or to a standby.
        SchemaTooNew: The database was migrated by a newer pgrecall.
        MigrationError: A revision failed; run again once its cause is gone.
        Unavailable: The server could not be reached.
    """
    say = progress or _silent
    applied: list[str] = []

    def note(step: MigrationInfo, **_: object) -> None:
        revision = str(step.up_revision_id)
        applied.append(revision)
        say(f"revision {revision} applied")

    with _session(dsn, role, say) as connection:
        pending(_driver(connection))
        config = _config(dimensions, connection=connection, on_version_apply=note)
        with _explained("the migration"):
            command.upgrade(config, target)
    return applied


def adopt(dsn: str, *, dimensions: int, role: str | None = None) -> None:
    """Take over a schema that the specification's own SQL made: correct it and call it 1.0.0.

    Args:
        dsn: Connection string of the owner (or of one who may become it) to the server itself.
        dimensions: Dimensions of the existing embeddings.
        role: Role to become first; it must own the tables.

    Raises:
        OperationRefused: Revisions are recorded already, or the connection is not a direct one.
        MigrationError: A correction failed; nothing was changed.
    """
    with _session(dsn, role, _silent) as connection:
        raw = _driver(connection)
        revision = current(raw)
        if revision is not None:
            raise OperationRefused(
                f"the database is at revision {revision} already, so there is nothing to adopt"
            )
        with _explained("the adoption"), connection.begin():
            execute(raw, statements("1.0.0_corrections", dimensions=dimensions))
            context = MigrationContext.configure(
                connection, opts={"version_table_schema": VERSION_SCHEMA}
            )
            directory = ScriptDirectory.from_config(_config(dimensions))
            context.stamp(directory, REVISIONS[0])


def script(dimensions: int, start: str | None = None) -> str:
    """Return as SQL for ``psql`` what :func:`upgrade` would run.

    Args:
        dimensions: Dimensions of the embeddings.
        start: The revision that the database is at; None for an empty database.

    Raises:
        OperationRefused: ``start`` is not a revision.
    """
    if start is not None and start not in REVISIONS:
        raise OperationRefused(
            f"{start!r} is not a revision", hint=f"known are {', '.join(REVISIONS)}"
        )
    if start == HEAD:
        return f"-- The database is at {HEAD}: nothing to do.\n"
    output = io.StringIO()
    config = _config(dimensions)
    config.output_buffer = output
    command.upgrade(config, f"{start or 'base'}:head", sql=True)
    prologue = ";\n\n".join(_QUERIES[name] for name in ("lock_or_fail", "session", "create_schema"))
    return (
        f"-- pgrecall, revisions {start or 'none'} to {HEAD}, for vectors of {dimensions} "
        "dimensions.\n-- Run it with psql as the owner of the database, not through a pooler.\n"
        f"\\set ON_ERROR_STOP on\n\n{prologue};\n\n{output.getvalue()}{_QUERIES['unlock']};\n"
    )


def _config(dimensions: int, **attributes: object) -> Config:
    config = Config()
    config.set_main_option("script_location", "pgrecall:migrations")
    config.attributes.update(attributes, dimensions=dimensions)
    return config


@contextmanager
def _session(dsn: str, role: str | None, progress: Progress) -> Iterator[sqlalchemy.Connection]:
    """Connect directly, become ``role``, and be the only migrator until the block ends."""
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: _connect(dsn), poolclass=sqlalchemy.NullPool
    )
    with engine.connect() as connection:
        raw = _driver(connection)
        # Between revisions no transaction stays open; Alembic opens one for each.
        raw.autocommit = True
        with _explained("preparing the migration"):
            _refuse_indirect(raw)
            if role is not None:
                raw.execute(sql.SQL(_QUERIES["set_role"]).format(role=sql.Identifier(role)))
            _take_lock(raw, progress)
        raw.execute(_QUERIES["session"])
        if raw.execute(_QUERIES["schema_exists"]).fetchone() != (True,):
            raw.execute(_QUERIES["create_schema"])
        raw.autocommit = False
        # Closing the session releases the lock, also when the process dies.
        yield connection


def _connect(dsn: str) -> psycopg.Connection[Any]:
    connection = connect(dsn, purpose="migrate")
    # SQLAlchemy takes it from here and expects it as psycopg makes it.
    connection.autocommit = False
    connection.row_factory = tuple_row  # type: ignore[assignment]
    return connection


def _driver(connection: sqlalchemy.Connection) -> psycopg.Connection[Any]:
    return cast("psycopg.Connection[Any]", connection.connection.driver_connection)


def _refuse_indirect(connection: psycopg.Connection[Any]) -> None:
    ((backend, standby),) = connection.execute(_QUERIES["server"]).fetchall()
    require_session(connection, backend)
    if standby:
        raise OperationRefused(
            "the server is a standby and accepts no changes", hint="connect to the primary"
        )


def _take_lock(connection: psycopg.Connection[Any], progress: Progress) -> None:
    deadline = time.monotonic() + _LOCK_WAIT_SECONDS
    waiting = False
    while connection.execute(_QUERIES["try_lock"]).fetchone() != (True,):
        if not waiting:
            progress("another migration of this database is running; waiting for it")
            waiting = True
        if time.monotonic() > deadline:
            raise MigrationError(
                f"another migration has held its lock for {_LOCK_WAIT_SECONDS:.0f} seconds",
                hint="see who holds an advisory lock in pg_locks, then run this again",
            )
        time.sleep(_LOCK_POLL_SECONDS)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn a driver's error into ours, keeping it as the cause."""
    try:
        yield
    except (psycopg.Error, sqlalchemy.exc.SQLAlchemyError) as error:
        cause = getattr(error, "orig", None) or error
        hint = "correct the cause, then run it again: it goes on where it stopped"
        if isinstance(cause, psycopg.errors.LockNotAvailable):
            hint = "a table is in use by a long transaction; run it again when that has ended"
        elif isinstance(cause, psycopg.errors.InsufficientPrivilege):
            hint = "run it as the owner of the database"
        raise MigrationError(f"{what} stopped: {str(cause).strip()}", hint=hint) from error


def _silent(_: str) -> None:
    """Drop the progress of a caller who wants none."""
