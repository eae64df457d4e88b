"""Connections of the backup, with the statements of ``backup.sql``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg

from pgrecall.driver import Commands, translate
from pgrecall.driver.sessions import connect_session
from pgrecall.errors import PermissionDenied
from pgrecall.sql import load

QUERIES = load("backup")


class Session(Commands):
    """One connection, in autocommit until a statement begins a transaction."""

    __slots__ = ()

    def composed(self, statement: str) -> Mapping[str, Any]:
        """Return the only row of a query that PostgreSQL composed."""
        (row,) = self.connection.execute(statement).fetchall()
        return row


@contextmanager
def open_session(dsn: str, database: str | None = None) -> Iterator[Session]:
    """Connect; errors of the driver in the block become ours.

    Args:
        dsn: Connection string.
        database: Another database than the one it names.

    Raises:
        ConfigurationError: The connection string cannot be read.
        OperationRefused: It leads through a pooler.
        Unavailable: The server could not be reached, or the connection broke.
        PermissionDenied: The role lacks a right.
        DatabaseError: PostgreSQL refused a statement.
    """
    with connect_session(dsn, purpose="backup", database=database) as connection:
        try:
            yield Session(connection, QUERIES)
        except psycopg.errors.InsufficientPrivilege as error:
            raise PermissionDenied(
                f"{connection.info.user} lacks a right in {connection.info.dbname}: "
                f"{error.diag.message_primary}",
                hint="back up as a role that sees everything (`pgrecall dsn --role backup`), and "
                "restore as an administrator",
                sqlstate=error.sqlstate,
            ) from error
        except psycopg.Error as error:
            raise translate(error) from error
