# Generated from pgrecall/_async/memory.py by tools/unasync.py. Do not edit.
"""The memory of agents: its four parts on one database."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from pgvector import Vector
from psycopg import Connection
from psycopg.rows import class_row

from pgrecall._sync.database import Database
from pgrecall._sync.episodes import EpisodeStore
from pgrecall._sync.items import ItemStore
from pgrecall._sync.knowledge import KnowledgeStore
from pgrecall._sync.metrics import MetricStore
from pgrecall._sync.model import Model
from pgrecall._sync.runtime import call_blocking
from pgrecall._sync.scope import Scope
from pgrecall._sync.sessions import SessionStore
from pgrecall.config import Settings, load_settings
from pgrecall.core.checks import check_embed
from pgrecall.embedding.base import Embedder, Mode, RenderEpisode
from pgrecall.embedding.rendering import Renderer
from pgrecall.errors import ModelChanged
from pgrecall.models import Embed, Staleness
from pgrecall.sql import load
from pgrecall.targets import resolve_dsn
from pgrecall.telemetry.choosing import choose_telemetry


class ProjectMemory:
    """A memory bound to one project: its calls need no ``project_id`` and see no other project."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.episodes = EpisodeStore(scope)
        self.knowledge = KnowledgeStore(scope)
        self.sessions = SessionStore(scope)
        self.items = ItemStore(scope)
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

    def embed(self, *texts: str, mode: Mode = "query") -> Sequence[Vector]:
        """Return the vectors of texts, as recall (``query``) or recording (``document``) uses them.

        Raises:
            EmbeddingError: The texts could not be embedded.
            RevisionMismatch: The embedder's weights are not those of the database's vectors.
        """
        try:
            return self._scope.embed(texts, mode)
        except ModelChanged:
            return self._scope.embed(texts, mode)


class Memory(ProjectMemory):
    """Agent memory in PostgreSQL; open it with ``Memory.open()``.

    One instance serves many threads or tasks; each call takes a connection from its pool only
    while a statement runs.
    """

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        self._database = scope.database

    @classmethod
    def open(
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
        target = dsn if dsn is not None else call_blocking(resolve_dsn, settings)
        database = Database.open(target, settings)
        try:
            renderer = call_blocking(Renderer.of, render or settings.renderer)
            model = Model.open(database, embedder or settings.embedder, renderer)
            place = _place(database) if settings.traces else None
            telemetry = call_blocking(choose_telemetry, settings, place)
        except BaseException:
            database.close()
            raise
        metrics = MetricStore(database, telemetry, enabled=settings.metrics)
        metrics.start()
        return cls(
            Scope(
                database=database,
                model=model,
                metrics=metrics,
                telemetry=telemetry,
                embed_when=embed_when,
            )
        )

    def project(self, project_id: str) -> ProjectMemory:
        """Return this memory bound to one project; it shares the pool and closes with it.

        Raises:
            InvalidInput: The identifier is empty or longer than 50 characters.
        """
        return ProjectMemory(self._scope.bind(project_id))

    def staleness(self, *, connection: Connection[Any] | None = None) -> Staleness:
        """Say how far what is read here is behind: nothing on a primary, a little on a standby.

        A connection that names several servers may lead to any; asked is the one that the next
        call would most likely read from.

        Args:
            connection: A connection of yours, whose server is asked.

        Raises:
            Unavailable: No connection could be had.
        """
        rows = self._database.fetch(
            load("connection")["staleness"], {}, class_row(Staleness), connection=connection
        )
        return rows[0]

    def close(self) -> None:
        """Write waiting metrics and close the pool. The embedded server goes on."""
        self.metrics.stop()
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _place(database: Database) -> tuple[str, str, int]:
    """Return name, host and port of a database, as its connections know them."""
    with database.statement(None, writing=False) as lent:
        return lent.info.dbname, lent.info.host, lent.info.port
