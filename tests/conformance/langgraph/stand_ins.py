"""A pytest plugin that puts our stores in for LangGraph's own, in the suites of its authors.

Each of their databases is a copy of one that is provisioned (see ``test_langgraph``), with a view
by the name and columns of their table, since some tests look into it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ClassVar
from uuid import uuid4

import langgraph.store.memory
import langgraph.store.postgres
import psycopg
from psycopg.rows import dict_row

from pgrecall import AsyncMemory, Memory
from pgrecall.config import load_settings
from pgrecall.integrations.langgraph import AsyncPgrecallStore, PgrecallStore

URI = os.environ["PGRECALL_SUITE_URI"]
SETTINGS = load_settings(metrics=False, pool_max_size=4)


class Store(PgrecallStore):
    """Opens a memory of its own, as ``PostgresStore`` opens a connection."""

    MIGRATIONS: ClassVar[list[str]] = []
    dsn: str

    @classmethod
    @contextmanager
    def from_conn_string(  # type: ignore[override]
        cls, dsn: str, *, index: Any = None, ttl: Any = None, **_: Any
    ) -> Iterator[Store]:
        # Theirs does not search unless told how.
        with Memory.open(dsn, embedder="none", settings=SETTINGS) as memory:
            store = cls(memory.project("suite"), index=index or False, ttl=ttl)
            store.dsn = dsn
            try:
                yield store
            finally:
                store.stop_ttl_sweeper()

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        with (
            psycopg.connect(self.dsn, autocommit=True, row_factory=dict_row) as connection,
            connection.cursor() as cursor,
        ):
            yield cursor


class AsyncStore(AsyncPgrecallStore):
    """The same for coroutines."""

    MIGRATIONS: ClassVar[list[str]] = []
    dsn: str

    @classmethod
    @asynccontextmanager
    async def from_conn_string(  # type: ignore[override]
        cls, dsn: str, *, index: Any = None, ttl: Any = None, **_: Any
    ) -> AsyncIterator[AsyncStore]:
        async with await AsyncMemory.open(dsn, embedder="none", settings=SETTINGS) as memory:
            store = cls(memory.project("suite"), index=index or False, ttl=ttl)
            store.dsn = dsn
            try:
                yield store
            finally:
                await store.stop_ttl_sweeper()

    @asynccontextmanager
    async def _cursor(self) -> AsyncIterator[Any]:
        async with (
            await psycopg.AsyncConnection.connect(
                self.dsn, autocommit=True, row_factory=dict_row
            ) as connection,
            connection.cursor() as cursor,
        ):
            yield cursor


class InMemory(PgrecallStore):
    """A project of its own for each, all in one memory: ``InMemoryStore`` begins empty."""

    _memory: ClassVar[Memory | None] = None

    def __init__(self, *, index: Any = None) -> None:
        if InMemory._memory is None:
            InMemory._memory = Memory.open(URI, embedder="none", settings=SETTINGS)
        super().__init__(InMemory._memory.project(uuid4().hex), index=index or False)


langgraph.store.postgres.PostgresStore = Store  # type: ignore[misc, assignment]
langgraph.store.postgres.AsyncPostgresStore = AsyncStore  # type: ignore[misc, assignment]
langgraph.store.memory.InMemoryStore = InMemory  # type: ignore[misc, assignment]


def pytest_sessionstart() -> None:
    """Tell their tests where the server is."""
    if "tests.conftest" in sys.modules:
        sys.modules["tests.conftest"].DEFAULT_URI = URI  # type: ignore[attr-defined]
