"""The connection that ``verify`` works on, and how a single look is run and timed.

Everything happens in one transaction that is always rolled back. Each look has a savepoint of
its own, so that one that fails cannot spoil the next, and its settings end with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import LiteralString

import psycopg

from pgrecall.driver import Statements, connect, translate
from pgrecall.ops.checks import Check, Seen
from pgrecall.sql import load

QUERIES: Mapping[str, LiteralString] = load("verify")


class Session(Statements):
    """An open transaction that will be rolled back, with the statements of ``verify.sql``."""

    __slots__ = ()

    def run(self, name: str, params: Mapping[str, object] | None = None) -> None:
        """Run a statement for its effect."""
        self.connection.execute(self.texts[name], params)

    def run_text(self, statement: str) -> None:
        """Run a statement that was made from one of the database's own definitions."""
        self.connection.execute(statement)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Undo what the body did when it ends, well or not."""
        with self.connection.transaction(force_rollback=True):
            yield

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Let the body write to temporary tables only; PostgreSQL itself refuses the rest."""
        with self.attempt():
            self.run("read_only")
            yield


@contextmanager
def open_session(dsn: str) -> Iterator[Session]:
    """Connect, and give a transaction that is rolled back at the end.

    Raises:
        ConfigurationError: The connection string cannot be read.
        Unavailable: The server could not be reached.
        DatabaseError: The connection broke on the way.
    """
    connection = connect(dsn, purpose="verify")
    try:
        with connection, connection.transaction(force_rollback=True):
            session = Session(connection, QUERIES)
            session.run("session")
            yield session
    except psycopg.Error as error:
        raise translate(error) from error


def look(id_: str, title: str, observe: Callable[[], Seen], session: Session) -> Check:
    """Run one look and time it; an error of the server is what it saw, and a failure.

    Args:
        id_: The check's stable name.
        title: The check's title.
        observe: Looks, and says what it saw.
        session: Undo what the look does in it.

    Raises:
        psycopg.Error: The connection broke, so nothing more can be seen.
    """
    started = time.perf_counter()
    try:
        with session.attempt():
            seen = observe()
    except psycopg.Error as error:
        if session.connection.broken:
            raise
        seen = Seen("failed", describe(error), _remedy(error))
    return Check(
        id=id_,
        title=title,
        status=seen.status,
        evidence=seen.evidence,
        remedy=seen.remedy,
        duration_ms=(time.perf_counter() - started) * 1000,
    )


def describe(error: psycopg.Error) -> str:
    """Return the server's words, in one line with its code."""
    primary = error.diag.message_primary or str(error).strip().split("\n")[0]
    detail = f" ({error.diag.message_detail})" if error.diag.message_detail else ""
    return f"{error.sqlstate or 'no SQLSTATE'}: {primary}{detail}"


def _remedy(error: psycopg.Error) -> str:
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return "run `pgrecall init` again to restore the grants"
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return "another session holds a lock on the table; run `pgrecall verify` again later"
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return "connect to the primary server, with a role that is not set read-only"
    return "mend first what the checks of the catalog below name, then run `pgrecall verify` again"
