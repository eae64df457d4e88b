"""The FastAPI application: its routers, what stands before them, and what becomes of errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from pgrecall import __version__
from pgrecall.serving import embeddings, openai, problems
from pgrecall.serving.limits import BodyLimit
from pgrecall.serving.work import Embedding


def make_app(
    embedding: Embedding, routers: Sequence[APIRouter] = (embeddings.router, openai.router)
) -> FastAPI:
    """Return the application.

    Args:
        embedding: What its endpoints embed with; they find it as ``app.state.embedding``.
        routers: Its endpoints.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Loads the model. If it fails, the server starts all the same, and says so at /health.
        await embedding.health()
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
    return app
