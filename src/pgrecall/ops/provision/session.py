"""The administrator's connections, and how their errors become ours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import LiteralString

import psycopg
from psycopg import sql

from pgrecall.driver import Commands
from pgrecall.driver import connect as open_connection
from pgrecall.errors import (
    DatabaseError,
    OperationRefused,
    OutOfSpace,
    PermissionDenied,
    ReadOnlyServer,
    TimedOut,
    Unavailable,
)
from pgrecall.sql import load

QUERIES = load("provision")
_LOCK_WAIT_SECONDS = 600.0
_LOCK_POLL_SECONDS = 0.2


class Session(Commands):
    """One connection without open transactions, with statements from ``provision.sql``."""

    __slots__ = ()

    def run_text(self, statement: LiteralString) -> None:
        """Run a statement that PostgreSQL composed."""
        self.connection.execute(statement)

    @contextmanager
    def acting_as(self, role: str) -> Iterator[None]:
        """Become ``role`` for a while, so that it owns and grants."""
        self.run("set_role", role=sql.Identifier(role))
        try:
            yield
        finally:
            # A broken connection forgets its role by itself, and its error is on the way.
            if not self.connection.broken:
                self.run("reset_role")


@contextmanager
def connect(dsn: str, database: str | None = None) -> Iterator[Session]:
    """Connect as the administrator, to ``database`` or to the one that ``dsn`` names.

    Raises:
        ConfigurationError: The connection string cannot be read.
        Unavailable: The server could not be reached.
        PermissionDenied: The administrator lacks a right.
        DatabaseError: PostgreSQL refused a statement.
    """
    with open_connection(dsn, purpose="init", database=database) as connection, _explained():
        yield Session(connection, QUERIES)


def take_lock(session: Session, database: str) -> None:
    """Be the only one who provisions ``database`` until the session ends.

    Raises:
        OperationRefused: Another run has not ended in time.
    """
    deadline = time.monotonic() + _LOCK_WAIT_SECONDS
    # Asked for repeatedly: waiting inside a statement would hold a snapshot, which a concurrent
    # index build of the other run may wait for.
    while not session.value("try_lock", {"database": database}):
        if time.monotonic() > deadline:
            raise OperationRefused(
                f"another run has been provisioning {database!r} for "
                f"{_LOCK_WAIT_SECONDS:.0f} seconds",
                hint="see who holds an advisory lock in pg_locks, then run this again",
            )
        time.sleep(_LOCK_POLL_SECONDS)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn a driver's error into ours, keeping it as the cause."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise PermissionDenied(
            f"the administrator lacks a right: {_text(error)}",
            hint="connect as a role that has it; a run that stopped is completed by the next",
            sqlstate=error.sqlstate,
        ) from error
    except psycopg.errors.LockNotAvailable as error:
        raise TimedOut(
            f"a table is in use: {_text(error)}",
            hint="run it again when long transactions have ended",
            sqlstate=error.sqlstate,
        ) from error
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise ReadOnlyServer(
            f"the server accepts no changes: {_text(error)}",
            hint="connect to the primary, or end read-only mode",
            sqlstate=error.sqlstate,
        ) from error
    except (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory) as error:
        raise OutOfSpace(
            f"the server has no room: {_text(error)}",
            hint="free disk or memory there; a run that stopped is completed by the next",
            sqlstate=error.sqlstate,
        ) from error
    except psycopg.OperationalError as error:
        raise Unavailable(
            f"the connection failed: {_text(error)}",
            hint="run it again: a run that stopped is completed by the next",
            sqlstate=error.sqlstate,
        ) from error
    except psycopg.Error as error:
        raise DatabaseError(
            f"PostgreSQL refused a step: {_text(error)}",
            hint="correct the cause and run it again: a run that stopped is completed by the next",
            sqlstate=error.sqlstate,
        ) from error


def _text(error: psycopg.Error) -> str:
    # The primary message alone: the full text may quote the statement.
    return error.diag.message_primary or str(error).strip()
