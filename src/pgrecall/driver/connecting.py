"""The connections of operators' commands, and the statements that they run on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, LiteralString, TypeAlias

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from pgrecall.driver.failures import translate_connect
from pgrecall.driver.patience import transport_options
from pgrecall.errors import ConfigurationError

Row: TypeAlias = dict[str, Any]

CONNECT_TIMEOUT = 10
"""Seconds that an operator's command waits for a server that lets nobody in, unless told."""


def connect(dsn: str, *, purpose: str, database: str | None = None) -> psycopg.Connection[Row]:
    """Open a connection in autocommit that prepares nothing and returns rows by name.

    Args:
        dsn: Connection string.
        purpose: What it is for; the server shows it as the application.
        database: Another database than the one that ``dsn`` names.

    Raises:
        ConfigurationError: The connection string cannot be read.
        Unavailable: The server could not be reached.
    """
    try:
        return psycopg.connect(
            make_conninfo(dsn, dbname=database) if database is not None else dsn,
            autocommit=True,
            row_factory=dict_row,
            prepare_threshold=None,
            application_name=f"pgrecall {purpose}",
            **transport_options(dsn, connect_timeout=CONNECT_TIMEOUT),
        )
    except psycopg.Error as error:
        ours = translate_connect(error)
        raise ours from (None if isinstance(ours, ConfigurationError) else error)


@dataclass(frozen=True, slots=True)
class Statements:
    """A connection with the named statements of one ``.sql`` file."""

    connection: psycopg.Connection[Row]
    texts: Mapping[str, LiteralString]

    def rows(self, name: str, params: Mapping[str, object] | None = None) -> list[Row]:
        """Return all rows of a query."""
        return self.connection.execute(self.texts[name], params).fetchall()

    def one(self, name: str, params: Mapping[str, object] | None = None) -> Row:
        """Return the only row of a query."""
        (row,) = self.rows(name, params)
        return row

    def value(self, name: str, params: Mapping[str, object] | None = None) -> Any:
        """Return the only value of a query."""
        (value,) = self.one(name, params).values()
        return value


class Commands(Statements):
    """The same, with statements that name objects of the database."""

    __slots__ = ()

    def run(self, name: str, /, **parts: sql.Composable) -> None:
        """Run a statement, filling its braces with quoted identifiers and literals."""
        self.connection.execute(sql.SQL(self.texts[name]).format(**parts))

    def verifier(self, role: str, password: str) -> sql.Literal:
        """Compute a SCRAM verifier here, so that no password reaches the server or its log."""
        encrypted = self.connection.pgconn.encrypt_password(
            password.encode(), role.encode(), b"scram-sha-256"
        )
        return sql.Literal(encrypted.decode("ascii"))
