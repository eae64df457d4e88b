"""The way to the database: a pool of our own, or a connection that the caller lends."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, LiteralString, TypeVar

import psycopg
from pgvector.psycopg.vector import register_vector_info
from psycopg import AsyncConnection, AsyncCursor
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.rows import BaseRowFactory, dict_row
from psycopg.types import TypeInfo
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool

from pgrecall._async.runtime import check_alive
from pgrecall.config import Settings
from pgrecall.core.documents import from_json
from pgrecall.driver import is_pooled, translate, translate_connect
from pgrecall.driver.facts import Facts, Served, check_schema
from pgrecall.driver.patience import patient, transport_options
from pgrecall.errors import ConfigurationError, InvalidInput, SchemaMissing
from pgrecall.sql import load

Row = TypeVar("Row")


class OwnConnection(AsyncConnection[Any]):
    """A connection of a client's own pool; only on these may statements be prepared."""

    answer_timeout = 0.0
    """Seconds of silence after which an answer is no longer waited for; 0: never."""

    async def wait(self, gen: PQGen[Row], *args: Any, **kwargs: Any) -> Row:
        """Wait for the server, but not for one that stays silent."""
        if self.answer_timeout:
            gen = patient(gen, self, self.answer_timeout)
        return await super().wait(gen, *args, **kwargs)


class AsyncDatabase:
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
    async def open(cls, dsn: str, settings: Settings) -> AsyncDatabase:
        """Learn what stands behind ``dsn`` and open a pool to it.

        Raises:
            Unavailable: No connection could be had.
            SchemaMismatch: The database is not provisioned, or for another version.
        """
        database = cls(dsn, settings, await _explore(dsn, settings))
        await database._open_pool()
        return database

    async def aside(self, *, always: bool = False) -> AsyncDatabase:
        """Open a way of its own to the same database, of one connection, for background work.

        On the pool that work would have it grow, and a caller alone would then take turns between
        two processes of the server, which is slower than one. A pool of one connection stays one.

        Args:
            always: Give another even so; for work that is soon done.

        Raises:
            Unavailable: It cannot be opened.
        """
        if self.settings.pool_max_size == 1 and not always:
            return self
        settings = self.settings.model_copy(update={"pool_min_size": 0, "pool_max_size": 1})
        database = AsyncDatabase(self._dsn, settings, self.facts)
        await database._open_pool()
        return database

    def _new_pool(self) -> AsyncConnectionPool[OwnConnection]:
        return AsyncConnectionPool(
            self._dsn,
            connection_class=OwnConnection,
            min_size=min(self.settings.pool_min_size, self.settings.pool_max_size),
            max_size=self.settings.pool_max_size,
            timeout=self.settings.connect_timeout,
            kwargs={
                **transport_options(self._dsn),
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

    async def _open_pool(self) -> None:
        try:
            await self._pool.open(wait=True, timeout=self.settings.connect_timeout)
        except psycopg.Error as error:
            await self._pool.close()
            raise translate_connect(error) from error

    async def _configure(self, connection: OwnConnection) -> None:
        connection.answer_timeout = self.settings.answer_timeout
        register_vector_info(connection, self.facts.vector)
        set_json_loads(from_json, connection)

    async def close(self) -> None:
        """Close the pool; the server goes on."""
        if self._pid == os.getpid():
            await self._pool.close()

    def pool_stats(self) -> Mapping[str, int]:
        """Return what the pool counts; nothing in a fork that has not used it yet."""
        return self._pool.get_stats() if self._pid == os.getpid() else {}

    @asynccontextmanager
    async def _lend(
        self, connection: AsyncConnection[Any] | None, *, writing: bool = True
    ) -> AsyncIterator[AsyncConnection[Any]]:
        """Give a connection: the caller's inside a savepoint, or one of the pool.

        On a caller's connection nothing stays behind: no setting, no adapter, no half of a write.
        A savepoint for reading is rolled back, and with it what was set for it.
        """
        if connection is None:
            if self._pid != os.getpid():  # a fork must not share its parent's sockets
                self._pid = os.getpid()
                self._pool = self._new_pool()
                await self._open_pool()
            async with self._pool.connection() as pooled:
                yield pooled
            return
        if not connection.autocommit and (
            connection.info.transaction_status == TransactionStatus.IDLE
        ):
            # Opens the caller's transaction, so that what follows is a savepoint inside it.
            await connection.execute(load("connection")["open_transaction"], prepare=False)
        async with connection.transaction(force_rollback=not writing):
            yield connection

    @asynccontextmanager
    async def statement(
        self, connection: AsyncConnection[Any] | None, *, writing: bool
    ) -> AsyncIterator[AsyncConnection[Any]]:
        """Lend a connection for one statement, and speak our errors.

        Raises:
            InvalidInput: ``connection`` is no connection of this kind.
            OutcomeUnknown: The connection broke while the statement was writing.
        """
        _check_connection(connection)
        # Inside a caller's transaction nothing is written before the caller commits.
        sent = connection is None or connection.autocommit
        try:
            async with self._lend(connection, writing=writing) as lent:
                yield lent
        except psycopg.Error as error:
            raise translate(error, writing=writing, sent=sent) from error

    @asynccontextmanager
    async def transaction(
        self, connection: AsyncConnection[Any] | None = None
    ) -> AsyncIterator[AsyncConnection[Any]]:
        """Lend a connection inside a transaction of our own, or a savepoint of the caller's.

        Raises:
            InvalidInput: ``connection`` is no connection of this kind.
            OutcomeUnknown: The connection broke while the commit was under way.
        """
        _check_connection(connection)
        commits = connection is None or (
            connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE
        )
        committing = False
        try:
            async with self._lend(connection) as lent, lent.transaction():
                yield lent
                committing = commits
        except psycopg.Error as error:
            raise translate(error, writing=True, sent=committing) from error

    async def fetch(
        self,
        statement: LiteralString,
        parameters: Mapping[str, Any],
        row_factory: BaseRowFactory[Row],
        *,
        connection: AsyncConnection[Any] | None = None,
        writing: bool = False,
    ) -> Sequence[Row]:
        """Run one statement and return its rows."""
        async with self.statement(connection, writing=writing) as lent:
            return await self.run(lent, statement, parameters, row_factory)

    async def execute(
        self,
        statement: LiteralString,
        parameters: Mapping[str, Any],
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> int:
        """Run one writing statement and return how many rows it changed."""
        async with (
            self.statement(connection, writing=True) as lent,
            self._cursor(lent, dict_row) as cursor,
        ):
            await cursor.execute(statement, parameters, prepare=_prepare(lent))
            return cursor.rowcount

    async def run(
        self,
        lent: AsyncConnection[Any],
        statement: LiteralString,
        parameters: Mapping[str, Any],
        row_factory: BaseRowFactory[Row],
    ) -> Sequence[Row]:
        """Run one statement on a connection that was lent, and return its rows."""
        async with self._cursor(lent, row_factory) as cursor:
            await cursor.execute(statement, parameters, prepare=_prepare(lent))
            return await cursor.fetchall()

    def _cursor(
        self, lent: AsyncConnection[Any], row_factory: BaseRowFactory[Row]
    ) -> AsyncCursor[Row]:
        cursor = lent.cursor(binary=True, row_factory=row_factory)
        if cursor.adapters.types.get("vector") is None:
            # A cursor has adapters of its own, so the caller's connection keeps none of ours.
            register_vector_info(cursor, self.facts.vector)  # type: ignore[arg-type]
        return cursor


def _prepare(lent: AsyncConnection[Any]) -> bool | None:
    """Return None to prepare as the pool is set to, False for a caller's connection.

    Whether that one leads through a pooler, where a prepared statement may not be there at the
    next call, is not known, and what stays prepared there would be the caller's to clean up.
    """
    return None if isinstance(lent, OwnConnection) else False


def _check_connection(connection: object) -> None:
    if connection is not None and not isinstance(connection, AsyncConnection):
        raise InvalidInput(
            f"connection is a {type(connection).__module__}.{type(connection).__name__}",
            hint="give an open psycopg.AsyncConnection",
        )


async def _explore(dsn: str, settings: Settings) -> Facts:
    statements = load("connection")
    try:
        connection = await OwnConnection.connect(
            dsn,
            **transport_options(dsn),
            autocommit=True,
            connect_timeout=max(2, round(settings.connect_timeout)),
            prepare_threshold=None,
            row_factory=dict_row,
        )
    except psycopg.Error as error:
        ours = translate_connect(error)
        raise ours from (None if isinstance(ours, ConfigurationError) else error)
    connection.answer_timeout = settings.answer_timeout
    try:
        async with connection:
            description = await _one(connection, statements["describe"])
            revision = None
            if description["provisioned"]:
                revision = (await _one(connection, statements["revision"]))["revision"]
            check_schema(description, revision)
            vector = await TypeInfo.fetch(connection, "vector")
            if vector is None:
                raise SchemaMissing(
                    "the extension vector is not on the search path of this connection",
                    hint="run `pgrecall doctor`",
                )
            return Facts(
                server_version=description["server_version"],
                in_recovery=description["in_recovery"],
                served=Served(**await _one(connection, statements["model"])),
                pooled=is_pooled(connection, description["backend_pid"]),
                vector=vector,
            )
    except psycopg.Error as error:
        raise translate(error) from error


async def _one(
    connection: AsyncConnection[dict[str, Any]], statement: LiteralString
) -> dict[str, Any]:
    cursor = await connection.execute(statement)
    return await cursor.fetchone() or {}
