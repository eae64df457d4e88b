"""The memory of agents: its four parts on one database."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from pgvector import Vector
from psycopg import AsyncConnection
from psycopg.rows import class_row

from pgrecall._async.database import AsyncDatabase
from pgrecall._async.episodes import AsyncEpisodeStore
from pgrecall._async.items import AsyncItemStore
from pgrecall._async.knowledge import AsyncKnowledgeStore
from pgrecall._async.metrics import AsyncMetricStore
from pgrecall._async.model import AsyncModel
from pgrecall._async.runtime import call_blocking
from pgrecall._async.scope import AsyncScope
from pgrecall._async.sessions import AsyncSessionStore
from pgrecall.config import Settings, load_settings
from pgrecall.core.checks import check_embed
from pgrecall.embedding.base import Embedder, Mode, RenderEpisode
from pgrecall.embedding.rendering import Renderer
from pgrecall.errors import ModelChanged
from pgrecall.models import Embed, Staleness
from pgrecall.sql import load
from pgrecall.targets import resolve_dsn
from pgrecall.telemetry.choosing import choose_telemetry


class AsyncProjectMemory:
    """A memory bound to one project: its calls need no ``project_id`` and see no other project."""

    def __init__(self, scope: AsyncScope) -> None:
        self._scope = scope
        self.episodes = AsyncEpisodeStore(scope)
        self.knowledge = AsyncKnowledgeStore(scope)
        self.sessions = AsyncSessionStore(scope)
        self.items = AsyncItemStore(scope)
        self.metrics = scope.metrics

    @property
    def project_id(self) -> str | None:
        """The project it is bound to; None for the memory of all projects."""
        return self._scope.project_id

    @property
    def embedder(self) -> Embedder:
        """What turns texts into vectors here."""
        return self._scope.embedder

    @property
    def dimensions(self) -> int:
        """Length of the vectors of this database."""
        return self._scope.dimensions

    async def embed(self, *texts: str, mode: Mode = "query") -> Sequence[Vector]:
        """Return the vectors of texts, as recall (``query``) or recording (``document``) uses them.

        Raises:
            EmbeddingError: The texts could not be embedded.
            RevisionMismatch: The embedder's weights are not those of the database's vectors.
        """
        try:
            return await self._scope.embed(texts, mode)
        except ModelChanged:
            return await self._scope.embed(texts, mode)


class AsyncMemory(AsyncProjectMemory):
    """Agent memory in PostgreSQL; open it with ``AsyncMemory.open()``.

    One instance serves many threads or tasks; each call takes a connection from its pool only
    while a statement runs.
    """

    def __init__(self, scope: AsyncScope) -> None:
        super().__init__(scope)
        self._database = scope.database

    @classmethod
    async def open(
        cls,
        dsn: str | None = None,
        *,
        embedder: Embedder | str | None = None,
        render: RenderEpisode | str | None = None,
        embed: Embed | None = None,
        settings: Settings | None = None,
    ) -> Self:
        """Open the memory in a database.

        Args:
            dsn: A libpq connection string or URL. Unless given: ``PGRECALL_DSN``, else the
                database that ``pgrecall init`` set up for this user, else the embedded server,
                which is started and set up if need be.
            embedder: A provider's name or an object; ``PGRECALL_EMBEDDER`` unless given, else what
                the database's vectors are of.
            render: Makes the text of an episode that is embedded, a function or
                ``python:MODULE:FUNCTION``; ``PGRECALL_RENDERER`` unless given. Vectors of texts
                made differently don't compare, so a database keeps to one.
            embed: ``"later"`` stores episodes and knowledge without vectors, which a worker then
                makes; ``PGRECALL_EMBED`` unless given.
            settings: Settings to use instead of those of the environment.

        Raises:
            ConfigurationError: A setting is wrong, the embedder is not the one that the
                database's vectors are of, or metrics cannot be served at the port set for them.
            MissingExtra: Something is switched on whose package is not installed.
            SchemaMismatch: The database is not provisioned, or for another version.
            Unavailable: No connection could be had.
        """
        settings = settings or load_settings()
        embed_when = check_embed(embed or settings.embed)
        target = dsn if dsn is not None else await call_blocking(resolve_dsn, settings)
        database = await AsyncDatabase.open(target, settings)
        try:
            renderer = await call_blocking(Renderer.of, render or settings.renderer)
            model = await AsyncModel.open(database, embedder or settings.embedder, renderer)
            place = await _place(database) if settings.traces else None
            telemetry = await call_blocking(choose_telemetry, settings, place)
        except BaseException:
            await database.close()
            raise
        metrics = AsyncMetricStore(database, telemetry, enabled=settings.metrics)
        await metrics.start()
        return cls(
            AsyncScope(
                database=database,
                model=model,
                metrics=metrics,
                telemetry=telemetry,
                embed_when=embed_when,
            )
        )

    def project(self, project_id: str) -> AsyncProjectMemory:
        """Return this memory bound to one project; it shares the pool and closes with it.

        Raises:
            InvalidInput: The identifier is empty or longer than 50 characters.
        """
        return AsyncProjectMemory(self._scope.bind(project_id))

    async def staleness(self, *, connection: AsyncConnection[Any] | None = None) -> Staleness:
        """Say how far what is read here is behind: nothing on a primary, a little on a standby.

        A connection that names several servers may lead to any; asked is the one that the next
        call would most likely read from.

        Args:
            connection: A connection of yours, whose server is asked.

        Raises:
            Unavailable: No connection could be had.
        """
        rows = await self._database.fetch(
            load("connection")["staleness"], {}, class_row(Staleness), connection=connection
        )
        return rows[0]

    async def close(self) -> None:
        """Write waiting metrics and close the pool. The embedded server goes on."""
        await self.metrics.stop()
        await self._database.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


async def _place(database: AsyncDatabase) -> tuple[str, str, int]:
    """Return name, host and port of a database, as its connections know them."""
    async with database.statement(None, writing=False) as lent:
        return lent.info.dbname, lent.info.host, lent.info.port
