"""The FastAPI application: its routers, what stands before them, and what becomes of errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI

from pgrecall import __version__
from pgrecall.serving import embeddings, openai, problems
from pgrecall.serving.limits import BodyLimit
from pgrecall.serving.work import Embedding

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer


def make_app(
    embedding: Embedding,
    routers: Sequence[APIRouter] = (embeddings.router, openai.router),
    mcp: MCPServer | None = None,
) -> FastAPI:
    """Return the application.

    Args:
        embedding: What its endpoints embed with; they find it as ``app.state.embedding``.
        routers: Its endpoints.
        mcp: Answers at ``/mcp``, if given; made by ``pgrecall.serving.mcp.server.make_mcp``.
    """
    if mcp is not None:
        from pgrecall.serving.mcp import http as mcp_http  # an extra of its own

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Loads the model. If it fails, the server starts all the same, and says so at /health.
        await embedding.health()
        async with AsyncExitStack() as stack:
            if mcp is not None:
                await stack.enter_async_context(mcp_http.running(mcp))
            yield

    app = FastAPI(
        title="pgrecall",
        description="Texts to vectors, with the embedder of an agent's memory.",
        version=__version__,
        lifespan=lifespan,
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    app.state.embedding = embedding
    app.add_middleware(BodyLimit, limits=embedding.limits)
    problems.install(app)
    for router in routers:
        app.include_router(router)
    if mcp is not None:
        app.router.routes.extend(mcp_http.routes(mcp))
    return app
