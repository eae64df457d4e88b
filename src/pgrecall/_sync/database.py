# Generated from pgrecall/_async/database.py by tools/unasync.py. Do not edit.
"""The way to the database: a pool of our own, or a connection that the caller lends."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString, TypeVar

import psycopg
from pgvector.psycopg.vector import register_vector_info
from psycopg import Connection, Cursor
from psycopg.pq import TransactionStatus
from psycopg.rows import BaseRowFactory, dict_row
from psycopg.types import TypeInfo
from psycopg_pool import ConnectionPool

from pgrecall._sync.runtime import check_alive
from pgrecall.config import Settings
from pgrecall.driver import translate
from pgrecall.driver.facts import Facts, check_schema, needs_local_settings
from pgrecall.errors import InvalidInput, SchemaMissing
from pgrecall.sql import load

Row = TypeVar("Row")


class Database:
    """Runs statements, on the pool or on a caller's connection, and speaks our errors.

    The pool's connections are in autocommit: a statement alone is a transaction of its own.
    """

    def __init__(self, dsn: str, settings: Settings, facts: Facts) -> None:
        self.facts = facts
        self.settings = settings
        self._dsn = dsn
        self._pid = os.getpid()
        self._pool = self._new_pool()

    @classmethod
    def open(cls, dsn: str, settings: Settings) -> Database:
        """Learn what stands behind ``dsn`` and open a pool to it.

        Raises:
            Unavailable: No connection could be had.
            SchemaMismatch: The database is not provisioned, or for another version.
        """
        database = cls(dsn, settings, _explore(dsn, settings))
        database._open_pool()
        return database

    def _new_pool(self) -> ConnectionPool[Connection[Any]]:
        return ConnectionPool(
            self._dsn,
            min_size=min(self.settings.pool_min_size, self.settings.pool_max_size),
            max_size=self.settings.pool_max_size,
            timeout=self.settings.connect_timeout,
            kwargs={
                "autocommit": True,
                "connect_timeout": max(2, round(self.settings.connect_timeout)),
                "application_name": "pgrecall",
                # Behind a pooler a prepared statement may not be there at the next call.
                "prepare_threshold": None if self.facts.pooled else 2,
            },
            configure=self._configure,
            check=check_alive,
            open=False,
            name="pgrecall",
        )

    def _open_pool(self) -> None:
        try:
            self._pool.open(wait=True, timeout=self.settings.connect_timeout)
        except psycopg.Error as error:
            self._pool.close()
            raise translate(error) from error

    def _configure(self, connection: Connection[Any]) -> None:
        register_vector_info(connection, self.facts.vector)

    def close(self) -> None:
        """Close the pool; the server goes on."""
        if self._pid == os.getpid():
            self._pool.close()

    @contextmanager
    def lend(
        self, connection: Connection[Any] | None = None
    ) -> Iterator[Connection[Any]]:
        """Give a connection: the caller's inside a savepoint, or one of the pool.

        On a caller's connection nothing stays behind: no setting, no adapter, no half of a write.
        """
        if connection is None:
            if self._pid != os.getpid():  # a fork must not share its parent's sockets
                self._pid = os.getpid()
                self._pool = self._new_pool()
                self._open_pool()
            with self._pool.connection() as pooled:
                yield pooled
            return
        if not isinstance(connection, Connection):
            raise InvalidInput(
                f"connection is a {type(connection).__module__}.{type(connection).__name__}",
                hint="give an open psycopg.Connection",
            )
        if not connection.autocommit and (
            connection.info.transaction_status == TransactionStatus.IDLE
        ):
            # Opens the caller's transaction, so that what follows is a savepoint inside it.
            connection.execute("SELECT")
        with connection.transaction():
            yield connection

    @contextmanager
    def transaction(
        self, connection: Connection[Any] | None = None
    ) -> Iterator[Connection[Any]]:
        """Give a connection inside a transaction of our own, or a savepoint of the caller's.

        Raises:
            OutcomeUnknown: The connection broke while the commit was under way.
        """
        own = connection is None or (
            connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE
        )
        committing = False
        try:
            with self.lend(connection) as lent:
                if connection is not None:
                    yield lent
                    committing = own
                    return
                with lent.transaction():
                    yield lent
                    committing = own
        except psycopg.Error as error:
            raise translate(error, writing=True, sent=committing) from error

    def fetch(
        self,
        statement: LiteralString,
        parameters: Mapping[str, Any],
        row_factory: BaseRowFactory[Row],
        *,
        connection: Connection[Any] | None = None,
        writing: bool = False,
    ) -> Sequence[Row]:
        """Run one statement and return its rows."""
        sent = connection is None or connection.autocommit
        try:
            with self.lend(connection) as lent:
                return self.run(lent, statement, parameters, row_factory)
        except psycopg.Error as error:
            raise translate(error, writing=writing, sent=sent) from error

    def fetch_nearest(
        self,
        statement: LiteralString,
        parameters: Mapping[str, Any],
        row_factory: BaseRowFactory[Row],
        *,
        connection: Connection[Any] | None = None,
    ) -> Sequence[Row]:
        """Run one reading statement under the settings that a vector search needs.

        A role made by `init` carries them. Elsewhere they hold for one transaction, or for a
        savepoint that is rolled back, so that a caller's connection keeps its own.
        """
        if connection is None and not self.facts.local_settings:
            return self.fetch(statement, parameters, row_factory)
        try:
            with self.lend(connection) as lent, lent.transaction(force_rollback=True):
                lent.execute(load("connection")["local_settings"])
                return self.run(lent, statement, parameters, row_factory)
        except psycopg.Error as error:
            raise translate(error) from error

    def execute(
        self,
        statement: LiteralString,
        parameters: Mapping[str, Any],
        *,
        connection: Connection[Any] | None = None,
    ) -> int:
        """Run one writing statement and return how many rows it changed."""
        sent = connection is None or connection.autocommit
        try:
            with self.lend(connection) as lent, self._cursor(lent, dict_row) as cursor:
                cursor.execute(statement, parameters)
                return cursor.rowcount
        except psycopg.Error as error:
            raise translate(error, writing=True, sent=sent) from error

    def run(
        self,
        lent: Connection[Any],
        statement: LiteralString,
        parameters: Mapping[str, Any],
        row_factory: BaseRowFactory[Row],
    ) -> Sequence[Row]:
        """Run one statement on a connection that was lent, and return its rows."""
        with self._cursor(lent, row_factory) as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall()

    def _cursor(
        self, lent: Connection[Any], row_factory: BaseRowFactory[Row]
    ) -> Cursor[Row]:
        cursor = lent.cursor(binary=True, row_factory=row_factory)
        if cursor.adapters.types.get("vector") is None:
            # A cursor has adapters of its own, so the caller's connection keeps none of ours.
            register_vector_info(cursor, self.facts.vector)  # type: ignore[arg-type]
        return cursor


def _explore(dsn: str, settings: Settings) -> Facts:
    statements = load("connection")
    try:
        connection = Connection.connect(
            dsn,
            autocommit=True,
            connect_timeout=max(2, round(settings.connect_timeout)),
            prepare_threshold=None,
            row_factory=dict_row,
        )
    except psycopg.Error as error:
        raise translate(error) from error
    try:
        with connection:
            description = _one(connection, statements["describe"])
            revision = None
            if description["provisioned"]:
                revision = (_one(connection, statements["revision"]))["revision"]
            check_schema(description, revision)
            vector = TypeInfo.fetch(connection, "vector")
            if vector is None:
                raise SchemaMissing(
                    "the extension vector is not on the search path of this connection",
                    hint="run `pgrecall doctor`",
                )
            return Facts(
                server_version=description["server_version"],
                in_recovery=description["in_recovery"],
                dimensions=description["dimensions"],
                pooled=connection.info.backend_pid != description["backend_pid"],
                vector=vector,
                local_settings=needs_local_settings(
                    _one(connection, statements["vector_settings"])
                ),
            )
    except psycopg.Error as error:
        raise translate(error) from error


def _one(connection: Connection[dict[str, Any]], statement: LiteralString) -> dict[str, Any]:
    cursor = connection.execute(statement)
    return cursor.fetchone() or {}
