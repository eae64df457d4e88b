"""The FastAPI application: its routers, what stands before them, and what becomes of errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI

from pgrecall import __version__
from pgrecall.errors import PgrecallError
from pgrecall.serving import (
    embeddings,
    episodes,
    faults,
    knowledge,
    metrics,
    openai,
    operation,
    problems,
    sessions,
    transfer,
)
from pgrecall.serving.describing import describe
from pgrecall.serving.guard import Doors, Guard
from pgrecall.serving.limits import BodyLimit, Limits
from pgrecall.serving.served import Served
from pgrecall.serving.work import Embedding

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

logger = logging.getLogger(__name__)

EMBEDDING = (embeddings.router, openai.router)
"""The endpoints that embed texts."""

# Paths with a name of their own come before those with an identifier in its place.
MEMORY = (
    transfer.router,
    episodes.router,
    knowledge.router,
    sessions.router,
    metrics.router,
    operation.router,
)
"""The endpoints of a memory."""

STREAMED = (transfer.IMPORT, transfer.EXPORT)
"""Paths of requests that are read and answered as streams."""

UNHURRIED = (*STREAMED, "/embed", openai.router.prefix)
"""Paths of requests that may take as long as they do, or have time-outs of their own."""

_TIDY_SECONDS = 3600.0
_TAGS = [
    {"name": "episodes", "description": "Decisions, how they turned out, and similar ones."},
    {"name": "knowledge", "description": "What was learned, and the evidence for and against it."},
    {"name": "sessions", "description": "What agents hold in mind now."},
    {"name": "metrics", "description": "What the memory's operations cost."},
    {"name": "operation", "description": "Health, and what is served."},
    {"name": "embeddings", "description": "Texts to vectors."},
    {"name": "OpenAI", "description": "The same, as OpenAI's clients expect it."},
]


def make_app(
    embedding: Embedding | None,
    routers: Sequence[APIRouter] = EMBEDDING,
    *,
    served: Served | None = None,
    doors: Doors | None = None,
    limits: Limits | None = None,
    mcp: MCPServer | None = None,
) -> FastAPI:
    """Return the application.

    Args:
        embedding: What its endpoints embed with; they find it as ``app.state.embedding``.
        routers: Its endpoints, beside those that every server has.
        served: The memory that is served; they find it as ``app.state.served``.
        doors: Who is let in; everybody unless given.
        limits: What one request may ask for; those of ``embedding`` unless given.
        mcp: Answers at ``/mcp``, if given; made by ``pgrecall.serving.mcp.server.make_mcp``.
    """
    if mcp is not None:
        from pgrecall.serving.mcp import http as mcp_http  # an extra of its own

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Loads the model. If it fails, the server starts all the same, and says so at /health.
        if embedding is not None:
            await embedding.health()
        async with AsyncExitStack() as stack:
            if mcp is not None:
                await stack.enter_async_context(mcp_http.running(mcp))
            if served is not None:
                tidying = asyncio.create_task(_tidy(served))
                stack.callback(tidying.cancel)
            yield

    app = FastAPI(
        title="pgrecall",
        description="Agent memory on PostgreSQL: record decisions, recall similar ones with their "
        "outcomes."
        if served is not None
        else "Texts to vectors, with the embedder of an agent's memory.",
        version=__version__,
        lifespan=lifespan,
        openapi_tags=_TAGS,
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    app.state.embedding = embedding
    app.state.served = served
    limits = limits or (None if embedding is None else embedding.limits)
    if limits is not None:
        app.add_middleware(BodyLimit, limits=limits, streamed=STREAMED)
    if doors is not None:
        app.add_middleware(Guard, doors=doors)
    problems.install(app)
    faults.install(app)
    app.state.endpoints = []
    for router in (operation.alive, *routers):
        app.include_router(router)
        app.state.endpoints += router.routes
    describe(app)
    if mcp is not None:
        hosts = None if doors is None else doors.hosts
        app.router.routes.extend(mcp_http.routes(mcp, hosts))
    return app


async def _tidy(served: Served) -> None:
    """Forget old answers, now and every hour."""
    while True:
        try:
            await served.store.forget()
        except PgrecallError as error:
            logger.warning("old answers could not be forgotten: %s", error)
        await asyncio.sleep(_TIDY_SECONDS)
