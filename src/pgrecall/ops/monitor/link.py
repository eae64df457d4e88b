"""The monitor's connection: opened when needed, opened again when it broke."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgrecall.driver import Row, Statements, connect
from pgrecall.sql import load

_CONNECT_SECONDS = 5


class Link:
    """One connection as the monitor role, for short transactions, by one thread at a time.

    It may lead through a pooler: nothing of a session is used.

    Args:
        dsn: Connection string.
        timeout_seconds: After which a statement is given up.
    """

    def __init__(self, dsn: str, *, timeout_seconds: float) -> None:
        self._dsn = make_conninfo(
            "", **{"connect_timeout": _CONNECT_SECONDS, **conninfo_to_dict(dsn)}
        )
        self._timeout = timeout_seconds
        self._connection: psycopg.Connection[Row] | None = None

    def open(self, *, checked: bool = True) -> psycopg.Connection[Row]:
        """Return the connection, which answers or is a new one.

        Args:
            checked: Ask it first whether it answers.

        Raises:
            Unavailable: The database does not answer.
        """
        if self._connection is not None and checked:
            try:
                self._connection.execute(load("connection")["open_transaction"])
            except psycopg.Error:
                self.close()  # whatever was wrong with it: a new one tells
        if self._connection is None:
            self._connection = connect(self._dsn, purpose="monitor")
        return self._connection

    @contextmanager
    def transaction(self, *, timeout_seconds: float | None = None) -> Iterator[Statements]:
        """Give the monitor's statements in a transaction whose statements are timed out.

        Raises:
            Unavailable: The database does not answer.
        """
        seconds = self._timeout if timeout_seconds is None else timeout_seconds
        connection = self.open()
        with connection.transaction():
            statements = Statements(connection, load("monitor"))
            statements.rows("patience", {"milliseconds": round(seconds * 1000)})
            yield statements

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
