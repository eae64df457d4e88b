"""`pgrecall mcp` as clients start it: a process of its own, spoken to over its input and output."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp.shared.exceptions import MCPError

from pgrecall.testing import Database

TOOLS = {
    "memory_record", "memory_record_outcome", "memory_recall", "memory_recall_strategies",
    "memory_add_strategy", "memory_apply_strategy", "memory_open_session", "memory_update_session",
    "memory_close_session", "memory_stats",
}  # fmt: skip
COMMAND = ("-m", "pgrecall.cli", "mcp", "--project", "apollo", "--embedder", "none")


def started(database: Database) -> StdioServerParameters:
    import os

    return StdioServerParameters(
        command=sys.executable,
        args=[*COMMAND],
        env={**os.environ, "PGRECALL_DSN": database.dsn},
    )


async def test_every_tool_and_resource_answers(pgrecall_database: Database) -> None:
    async with Client(started(pgrecall_database)) as client:
        listed = (await client.list_tools()).tools
        assert {tool.name for tool in listed} == TOOLS
        assert all(tool.output_schema and tool.description and tool.title for tool in listed)

        async def call(name: str, **arguments: Any) -> Any:
            answer = await client.call_tool(name, arguments)
            assert not answer.is_error, answer.content
            return answer.structured_content

        ids = [
            (await call("memory_record", situation={"backlog": number}, action={"sprint": True}))[
                "episode_id"
            ]
            for number in range(3)
        ]
        assert (await call("memory_record_outcome", episode_id=ids[0], quality=0.9))["quality"]
        assert len((await call("memory_recall", query="backlog"))["decisions"]) == 3
        known = await call(
            "memory_add_strategy", description="sprint early", supporting_episodes=ids
        )
        strategy = known["knowledge_id"]
        assert (await call("memory_recall_strategies", query="sprint"))["strategies"]
        applied = await call("memory_apply_strategy", knowledge_id=strategy, success=True)
        assert applied["success_rate"] == 1
        session = (await call("memory_open_session", goal="ship"))["session_id"]
        changed = await call(
            "memory_update_session", session_id=session, thought={"so": 1}, goal="ship it"
        )
        assert (changed["goal"], changed["thoughts"]) == ("ship it", [{"so": 1}])
        assert not (await call("memory_close_session", session_id=session))["active"]
        assert (await call("memory_stats"))["episodes"] == 3
        for uri in (f"pgrecall://episodes/{ids[0]}", f"pgrecall://strategies/{strategy}"):
            content = (await client.read_resource(uri)).contents[0]
            assert json.loads(content.text)["project_id"] == "apollo"  # type: ignore[union-attr]
        with pytest.raises(MCPError):
            await client.read_resource("pgrecall://episodes/nothing")


def test_it_ends_with_its_client_and_prints_nothing_else(pgrecall_database: Database) -> None:
    import os

    process = subprocess.run(
        [sys.executable, *COMMAND],
        input=b"this is no message\n",
        env={**os.environ, "PGRECALL_DSN": pgrecall_database.dsn},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    for line in process.stdout.splitlines():
        assert json.loads(line)["jsonrpc"] == "2.0"
