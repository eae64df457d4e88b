"""MCP over HTTP: who may ask, under which name, and what becomes of what is not MCP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from pgrecall import AsyncMemory
from pgrecall.serving.access import Access, acting
from pgrecall.serving.mcp.http import asgi_app, running
from pgrecall.serving.mcp.server import make_mcp
from pgrecall.testing import Database

HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
KEYS = {
    "reader": Access(name="reader", scopes=frozenset({"read"})),
    "apollo": Access(
        name="apollo", scopes=frozenset({"read", "write"}), projects=frozenset({"apollo"})
    ),
}
EPISODE: dict[str, Any] = {"situation": {"backlog": 12}, "action": {"sprint": True}}


class Keys:
    """Stands before the server as what checks keys does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = dict(scope["headers"]).get(b"x-key", b"").decode()
        if key not in KEYS:
            await self._app(scope, receive, send)
            return
        with acting(KEYS[key]):
            await self._app(scope, receive, send)


@asynccontextmanager
async def served(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with await AsyncMemory.open(
        database.dsn, embedder="none", settings=database.settings
    ) as memory:
        server = make_mcp(memory)
        app = Keys(asgi_app(server))
        transport = httpx.ASGITransport(app=app)
        async with (
            running(server),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8750") as client,
        ):
            yield client


async def call(client: httpx.AsyncClient, name: str, key: str = "", **arguments: Any) -> Any:
    answer = await post(client, "tools/call", key, name=name, arguments=arguments)
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


async def post(
    client: httpx.AsyncClient, method: str, key: str = "", **params: Any
) -> httpx.Response:
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return await client.post("/mcp", json=message, headers={**HEADERS, "X-Key": key})


async def test_a_key_reaches_the_tools_and_no_further(pgrecall_database: Database) -> None:
    async with served(pgrecall_database) as client:
        stored = await call(client, "memory_record", project_id="gemini", **EPISODE)
        other = stored["structuredContent"]["episode_id"]

        refused = await call(client, "memory_record", "reader", project_id="apollo", **EPISODE)
        assert refused["isError"]
        assert "scope 'write'" in refused["content"][0]["text"]

        mine = await call(client, "memory_record", "apollo", **EPISODE)
        assert mine["structuredContent"]["project_id"] == "apollo"
        beyond = await call(client, "memory_recall", "apollo", query="backlog", project_id="gemini")
        assert beyond["isError"]
        found = await call(client, "memory_recall", "apollo", query="backlog")
        assert [hit["project_id"] for hit in found["structuredContent"]["decisions"]] == ["apollo"]
        hidden = await call(client, "memory_record_outcome", "apollo", episode_id=other, quality=1)
        assert "there is no episode" in hidden["content"][0]["text"]

        uri = f"pgrecall://episodes/{other}"
        assert "result" in (await post(client, "resources/read", uri=uri)).json()
        unread = (await post(client, "resources/read", "apollo", uri=uri)).json()
        assert "there is no episode" in unread["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:8750"}, 421),
        ({"Host": "127.0.0.1.evil.example:8750"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost:8750"}, 200),
    ],
)
async def test_a_web_page_elsewhere_is_refused(
    pgrecall_database: Database, headers: dict[str, str], status: int
) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    async with served(pgrecall_database) as client:
        answer = await client.post("/mcp", json=message, headers={**HEADERS, **headers})
        assert answer.status_code == status


async def test_what_is_no_message_is_refused(pgrecall_database: Database) -> None:
    async with served(pgrecall_database) as client:
        for body in (b"", b"{", b"[]", b"null", b'{"jsonrpc": "2.0"}', b"\xff" * 100):
            answer = await client.post("/mcp", content=body, headers=HEADERS)
            assert 400 <= answer.status_code < 500, (body, answer.text)
        big = await client.post("/mcp", content=b" " * 5_000_000, headers=HEADERS)
        assert big.status_code == 413
        wrong = await call(client, "memory_recall", query="x", limit=0)
        assert wrong["isError"]
        unknown = await call(client, "memory_forget")
        assert unknown["isError"]
        assert (await post(client, "tools/list")).status_code == 200


async def test_what_failed_here_is_not_told(pgrecall_database: Database) -> None:
    async with served(pgrecall_database) as client:
        with_nothing = await call(client, "memory_record", project_id="p" * 51, **EPISODE)
        assert "What to do" in with_nothing["content"][0]["text"]
        import psycopg

        with psycopg.connect(pgrecall_database.owner_dsn, autocommit=True) as owner:
            owner.execute("ALTER TABLE agent_working_memory RENAME TO elsewhere")
        failed = await call(client, "memory_open_session", project_id="apollo")
        text = failed["content"][0]["text"]
        assert failed["isError"]
        assert "the memory failed" in text
        assert "agent_working_memory" not in text
        assert pgrecall_database.name not in text
