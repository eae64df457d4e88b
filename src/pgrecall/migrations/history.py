"""What a database says of its revisions; needs no Alembic, so that looking costs nothing."""

from __future__ import annotations

from typing import Any

import psycopg

from pgrecall.errors import SchemaTooNew
from pgrecall.migrations import HEAD, REVISIONS, SQL_PACKAGE
from pgrecall.sql import load

_QUERIES = load("bookkeeping", SQL_PACKAGE)


def current(connection: psycopg.Connection[Any]) -> str | None:
    """Return the revision that the database is at, or None when it has never been migrated."""
    with connection.cursor(row_factory=psycopg.rows.tuple_row) as cursor:
        cursor.execute(_QUERIES["version_table_exists"])
        if cursor.fetchone() != (True,):
            return None
        row = cursor.execute(_QUERIES["version"]).fetchone()
    return None if row is None else str(row[0])


def dimensions_of(connection: psycopg.Connection[Any]) -> int | None:
    """Return the dimensions of the embeddings that a database holds, or None where it has none."""
    with connection.cursor(row_factory=psycopg.rows.tuple_row) as cursor:
        row = cursor.execute(_QUERIES["dimensions"]).fetchone()
    return None if row is None or row[0] < 1 else int(row[0])


def pending(connection: psycopg.Connection[Any]) -> list[str]:
    """Return the revisions that have not been applied, oldest first.

    Raises:
        SchemaTooNew: The database is at a revision that this version does not know.
    """
    revision = current(connection)
    if revision is None:
        return list(REVISIONS)
    if revision not in REVISIONS:
        raise SchemaTooNew(
            f"the database is at revision {revision}, this version knows none after {HEAD}",
            hint="upgrade pgrecall here to the version that migrated the database",
        )
    return list(REVISIONS[REVISIONS.index(revision) + 1 :])
