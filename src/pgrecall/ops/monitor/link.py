"""The monitor's connection: opened when needed, opened again when it broke, cut when it hangs."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgrecall.driver import Row, Statements, connect, translate_connect
from pgrecall.sql import load

ANSWER_SECONDS = 3
"""When a server that has not said anything counts as away."""

_LOCK_SHARE = 10
# A tenth of the time for a lock: what reads several locked tables must not use up all of it.


class Link:
    """One connection as the monitor role, for short transactions, by one thread at a time.

    It may lead through a pooler: nothing of a session is used.

    Args:
        dsn: Connection string.
        timeout_seconds: After which a statement is given up.

    Raises:
        ConfigurationError: The connection string cannot be read.
    """

    def __init__(self, dsn: str, *, timeout_seconds: float) -> None:
        self._dsn = make_conninfo("", **{"connect_timeout": ANSWER_SECONDS, **parts_of(dsn)})
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
                with self.watched(ANSWER_SECONDS):
                    self._connection.execute(load("connection")["open_transaction"])
            except psycopg.Error:
                self.close()  # whatever was wrong with it: a new one tells
        if self._connection is None:
            self._connection = connect(self._dsn, purpose="monitor")
        return self._connection

    @contextmanager
    def transaction(self, *, timeout_seconds: float | None = None) -> Iterator[Statements]:
        """Give the monitor's statements in a transaction whose statements are timed out.

        Args:
            timeout_seconds: Another time-out than the connection's.

        Raises:
            Unavailable: The database does not answer.
        """
        seconds = self._timeout if timeout_seconds is None else timeout_seconds
        connection = self.open()
        milliseconds = max(1, round(seconds * 1000))
        patience = {"statement": milliseconds, "lock": max(1, milliseconds // _LOCK_SHARE)}
        with self.watched(seconds + ANSWER_SECONDS), connection.transaction():
            statements = Statements(connection, load("monitor"))
            statements.rows("patience", patience)
            yield statements

    @contextmanager
    def watched(self, seconds: float) -> Iterator[None]:
        """Cut the connection where the body takes longer, which then sees it broken.

        A server that is frozen, or behind a broken network, does not even tell of a time-out.
        """
        watchdog = threading.Timer(seconds, self._cut)
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()
            watchdog.join()  # else it could cut what is opened next

    def _cut(self) -> None:
        if self._connection is None:
            return
        # It may have broken by itself at this very moment.
        with (
            contextlib.suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(self._connection.fileno())) as line,
        ):
            line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def parts_of(dsn: str) -> dict[str, str | int | None]:
    """Return what a connection string says.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        return {**conninfo_to_dict(dsn)}
    except psycopg.ProgrammingError as error:
        # The driver quotes the string, password included.
        raise translate_connect(error) from None
