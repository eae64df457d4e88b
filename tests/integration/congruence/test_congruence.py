"""The same operations through every interface leave the same records and recall the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import psycopg
from mcp import Client
from psycopg.rows import dict_row
from tests.integration.congruence.adapters import (
    Adapter,
    Lacks,
    McpAdapter,
    PythonAdapter,
    Refused,
    RestAdapter,
    SqlAdapter,
)
from tests.integration.congruence.operations import Operation, make

from pgrecall import AsyncMemory
from pgrecall.serving.app import MEMORY, make_app
from pgrecall.serving.limits import Limits
from pgrecall.serving.mcp.server import make_mcp
from pgrecall.serving.served import Served
from pgrecall.serving.store import Store
from pgrecall.testing import Database, Template

OPERATIONS = make()
# What an interface sets by itself, or the clock does.
CHANGING = {
    "outcome_recorded_at", "created_at", "last_applied", "last_updated", "expires_at", "created_by",
}  # fmt: skip
TABLES = {
    "agent_episodes": "episode_id",
    "agent_knowledge": "knowledge_id",
    "agent_working_memory": "session_id",
}


class Run:
    """The operations through one interface, and what came of them."""

    def __init__(self, adapter: Adapter, otherwise: Adapter) -> None:
        self._adapter = adapter
        self._otherwise = otherwise
        self.ids: dict[str, UUID] = {}
        self.lacked: set[str] = set()
        self.results: list[Any] = []

    async def do(self, operation: Operation) -> None:
        try:
            rows = await self._adapter.do(operation, self.ids)
        except Refused:
            self.results.append("refused")
            return
        except Lacks as lack:
            self.lacked.add(str(lack))
            try:
                rows = await self._otherwise.do(operation, self.ids)
            except Refused:
                rows = []
            self.results.append("lacked")
            return
        if operation.as_:
            self.ids[operation.as_] = rows[0]["id"]
        names = {value: name for name, value in self.ids.items()}
        self.results.append([_named(row, names) for row in rows])
        if operation.kind.startswith("recall"):
            same = await self._otherwise.do(operation, self.ids)
            assert self.results[-1] == [_named(row, names) for row in same], operation


def by_words(operation: Operation) -> bool:
    """Whether it recalls by words, whose evidence is weighed by a sample of what is stored.

    Identifiers decide on the sample: where an interface makes its own, scores are others.
    """
    return operation.kind == "recall" and operation.values["query"] is not None


def _named(row: Mapping[str, Any], names: Mapping[UUID, str]) -> dict[str, Any]:
    return {
        key: names[value] if key == "id" else round(value, 9) if isinstance(value, float) else value
        for key, value in row.items()
    }


async def records(dsn: str, ids: Mapping[str, UUID]) -> dict[str, list[dict[str, Any]]]:
    """Return every stored row, with names instead of identifiers."""
    names = {str(value): name for name, value in ids.items()}

    def named(value: Any) -> Any:
        if isinstance(value, list):
            return [named(one) for one in value]
        return names.get(str(value), value) if isinstance(value, UUID) else value

    found = {}
    async with await psycopg.AsyncConnection.connect(dsn, row_factory=dict_row) as connection:
        for table, key in TABLES.items():
            cursor = await connection.execute(f"SELECT * FROM {table}")
            rows = [
                {name: named(value) for name, value in row.items() if name not in CHANGING}
                for row in await cursor.fetchall()
            ]
            found[table] = sorted(rows, key=lambda row: str(row[key]))
    return found


def unlike(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Return the first differences; pytest would take minutes to show whole tables."""
    return [
        f"{table}.{name}: {one.get(name)} but {other.get(name)}"[:300]
        for table in TABLES
        for one, other in zip(ours[table], theirs[table], strict=True)
        for name in one
        if one.get(name) != other.get(name)
    ][:3]


@asynccontextmanager
async def opened(database: Database, interface: str) -> AsyncIterator[Run]:
    async with AsyncExitStack() as stack:
        memory = await stack.enter_async_context(
            await AsyncMemory.open(database.dsn, embedder="none", settings=database.settings)
        )
        python = PythonAdapter(memory)
        if interface == "sql":
            connection = await stack.enter_async_context(
                await psycopg.AsyncConnection.connect(database.dsn, autocommit=True)
            )
            yield Run(SqlAdapter(connection), python)
        elif interface == "rest":
            served = Served(memory, Store(memory), database.settings, database.dsn)
            app = make_app(None, MEMORY, served=served, limits=Limits.of(database.settings))
            client = await stack.enter_async_context(
                httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")
            )
            yield Run(RestAdapter(client), python)
        elif interface == "mcp":
            mcp = await stack.enter_async_context(Client(make_mcp(memory)))
            yield Run(McpAdapter(mcp), python)
        else:
            yield Run(python, python)


async def test_every_interface_does_the_same(pgrecall_template: Template) -> None:
    assert len(OPERATIONS) == 300
    runs: dict[str, Run] = {}
    stored: dict[str, Any] = {}
    for interface in ("python", "sql", "rest", "mcp"):
        with pgrecall_template.clone() as database:
            async with opened(database, interface) as run:
                for operation in OPERATIONS:
                    await run.do(operation)
            runs[interface] = run
            stored[interface] = await records(database.owner_dsn, run.ids)
    python = runs["python"]
    refused = python.results.count("refused")
    assert 15 < refused < 60
    assert all(stored["python"].values())
    for interface in ("sql", "rest", "mcp"):
        run = runs[interface]
        pairs = zip(OPERATIONS, python.results, run.results, strict=True)
        differing = [
            f"{interface}: {number} {operation.kind}: {ours} but {theirs}"
            for number, (operation, ours, theirs) in enumerate(pairs)
            if theirs not in ("lacked", ours)
            and not (interface == "mcp" and by_words(operation) and theirs != "refused")
        ]
        assert not differing, differing[:3]
        assert not unlike(stored["python"], stored[interface]), interface
    # Deleting is not a model's; listing is recalling, for it.
    assert runs["sql"].lacked == set()
    assert runs["rest"].lacked == {"stats"}
    assert runs["mcp"].lacked == {"list", "delete_episode"}
