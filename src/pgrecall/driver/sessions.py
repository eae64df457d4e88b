"""Whether a connection has a session of the server to itself, or borrows one per transaction.

Behind a transaction pooler each transaction may run in another session: a setting or a lock that
should outlive it reaches other clients, and notifications arrive nowhere, without an error.
"""

from __future__ import annotations

from typing import Any

import psycopg

from pgrecall.driver.connecting import Row, connect
from pgrecall.driver.failures import translate
from pgrecall.errors import OperationRefused
from pgrecall.sql import load


def is_pooled(connection: psycopg.BaseConnection[Any], backend_pid: int) -> bool:
    """Tell whether a pooler stands between.

    Args:
        connection: Knows the process id that was announced when it connected; a pooler makes one
            up.
        backend_pid: What ``pg_backend_pid()`` answered on it.
    """
    return connection.info.backend_pid != backend_pid


def require_session(connection: psycopg.BaseConnection[Any], backend_pid: int) -> None:
    """Refuse a connection that leads through a pooler.

    Args:
        connection: As for :func:`is_pooled`.
        backend_pid: As for :func:`is_pooled`.

    Raises:
        OperationRefused: It does.
    """
    if is_pooled(connection, backend_pid):
        raise OperationRefused(
            "the connection goes through a pooler, where locks and settings reach other clients "
            "and notifications get lost",
            hint="give the address of the server itself: in PGRECALL_DIRECT_DSN for the owner, "
            "with --dsn for an administrator",
        )


def connect_session(
    dsn: str, *, purpose: str, database: str | None = None
) -> psycopg.Connection[Row]:
    """Open a connection for work that needs a session: migrations, advisory locks, LISTEN.

    Args:
        dsn: Connection string.
        purpose: As for :func:`pgrecall.driver.connect`, which this calls.
        database: Another database than the one that ``dsn`` names.

    Raises:
        OperationRefused: It leads through a pooler.
        ConfigurationError: The connection string cannot be read.
        Unavailable: The server could not be reached.
    """
    connection = connect(dsn, purpose=purpose, database=database)
    try:
        (row,) = connection.execute(load("connection")["backend"]).fetchall()
        require_session(connection, row["backend_pid"])
    except psycopg.Error as error:
        connection.close()
        raise translate(error) from error
    except BaseException:
        connection.close()
        raise
    return connection
