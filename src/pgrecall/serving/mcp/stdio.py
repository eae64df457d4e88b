"""MCP over standard input and output: one client, which started this process."""

from __future__ import annotations

from pgrecall import AsyncMemory
from pgrecall.config import Settings
from pgrecall.serving.mcp.ending import all_ended
from pgrecall.serving.mcp.server import make_mcp
from pgrecall.targets import resolve_dsn


async def serve(settings: Settings, project_id: str | None) -> None:
    """Serve until standard input ends.

    Args:
        settings: Which database and embedder.
        project_id: The one project that it serves; None for all.

    Raises:
        PgrecallError: What ``AsyncMemory.open`` raises.
    """
    async with await AsyncMemory.open(resolve_dsn(settings), settings=settings) as memory:
        bound = memory if project_id is None else memory.project(project_id)
        try:
            await make_mcp(bound).run_stdio_async()
        finally:
            await all_ended()
