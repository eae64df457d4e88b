# Generated from pgrecall/_async/scope.py by tools/unasync.py. Do not edit.
"""What the parts of a memory share: the database, the embedder and perhaps one project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pgvector import Vector
from psycopg import Connection
from psycopg.rows import tuple_row

from pgrecall._sync.database import Database
from pgrecall._sync.metrics import MetricStore
from pgrecall._sync.model import Model
from pgrecall._sync.runtime import call_blocking
from pgrecall.core.documents import check_text
from pgrecall.core.filters import recall_filter, scope_text
from pgrecall.core.ranking import choose_mode
from pgrecall.core.vectors import to_vector
from pgrecall.embedding.base import Embedder, Mode, RenderEpisode
from pgrecall.embedding.choice import Chosen
from pgrecall.errors import EmbeddingError, InvalidInput, ModelChanged, RevisionMismatch
from pgrecall.models import Embed, Json, SearchMode, VectorLike
from pgrecall.sql import statement
from pgrecall.telemetry.operations import Embedding, Operation, OperationName, Telemetry


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """A memory's resources, bound to one project or to none."""

    database: Database
    model: Model
    metrics: MetricStore
    telemetry: Telemetry
    embed_when: Embed = "now"
    project_id: str | None = None

    def bind(self, project_id: str) -> Scope:
        """Return the same resources bound to a project."""
        return replace(self, project_id=scope_text(self.project(project_id), "project_id"))

    def project(self, given: str | None) -> str | None:
        """Return the project of a call.

        Raises:
            InvalidInput: The call names another project than the memory is bound to.
        """
        if self.project_id is None or given is None or given == self.project_id:
            return given if given is not None else self.project_id
        raise InvalidInput(
            f"project_id is {given!r}, but this memory is bound to project {self.project_id!r}",
            hint="use the memory that is not bound, or one bound to that project",
        )

    def needed_project(self, given: str | None) -> str:
        """Return the project of a call that has to have one.

        Raises:
            InvalidInput: There is none, it cannot be stored, or another is bound.
        """
        project_id = scope_text(self.project(given), "project_id")
        if project_id is None:
            raise InvalidInput(
                "project_id is missing", hint="give project_id=, or use memory.project(...)"
            )
        return project_id

    def measure(
        self,
        operation: OperationName,
        project_id: str | None,
        connection: Connection[Any] | None,
    ) -> Operation:
        """Observe an operation, from the checks of what was given to its results."""
        return self.metrics.measure(
            operation, project_id if project_id is not None else self.project_id, connection
        )

    @property
    def embedder(self) -> Embedder:
        """What turns texts into vectors."""
        return self.model.now.embedder

    @property
    def render(self) -> RenderEpisode:
        """What makes texts of documents."""
        return self.model.now.renderer.render

    @property
    def dimensions(self) -> int:
        """Length of the vectors of this database."""
        return self.model.now.served.dimensions

    def embed(
        self,
        texts: Sequence[str],
        mode: Mode,
        operation: Operation | None = None,
        chosen: Chosen | None = None,
    ) -> Sequence[Vector]:
        """Turn texts into vectors, for an operation or none. No connection is held meanwhile.

        Args:
            texts: What to embed.
            mode: What the vectors are for.
            operation: What it belongs to.
            chosen: What makes them; what does so now unless given.

        Raises:
            EmbeddingError: The embedder failed, or returned another number of vectors.
            RevisionMismatch: Its weights are not those of the database's vectors.
            ModelChanged: The database has gone over to another model meanwhile.
        """
        chosen = chosen or self.model.now
        identity = chosen.embedder.identity
        try:
            with Embedding(self.telemetry, identity, mode, len(texts), operation):
                vectors = call_blocking(chosen.embed, texts, mode)
        except RevisionMismatch as error:
            if self.model.follow(chosen.served.number):
                raise ModelChanged(f"{identity} has made way for another model") from error
            raise
        if len(vectors) != len(texts):
            raise EmbeddingError(
                f"the embedder {identity} returned {len(vectors)} vectors for {len(texts)} texts"
            )
        self.model.tell_revision(chosen)
        return [to_vector(vector, chosen.served.dimensions) for vector in vectors]

    def query(
        self,
        query: str | Json | None,
        embedding: VectorLike | None,
        mode: SearchMode | None,
        connection: Connection[Any] | None,
        operation: Operation,
    ) -> dict[str, Any]:
        """Return the parameters that say what to look for: ``embedding``, ``text``, ``model``.

        Args:
            query: A text, or a situation.
            embedding: A vector; made from the text where it is wanted and not given.
            mode: What is to be looked at; what there is, unless given.
            connection: A connection of the caller, who then has the vector ready.
            operation: What it is for.

        Raises:
            InvalidInput: What the mode needs was not given.
            InvalidVector: The vector cannot be searched for.
        """
        text = None if query is None else self.query_text(query)
        chosen = self.model.now
        has_vector = embedding is not None or chosen.embedder.available
        mode = choose_mode(mode, has_text=text is not None, has_vector=has_vector,
                           given=embedding is not None)  # fmt: skip
        if mode == "words":
            return {"embedding": None, "text": text, "model": None}
        if embedding is not None:
            number = None
            vector = to_vector(embedding, chosen.served.dimensions)
        else:
            if connection is not None:
                raise InvalidInput(
                    "no text can be embedded while your transaction waits",
                    hint="embed it first with memory.embed(text) and give embedding= as well, or "
                    'search with mode="words"',
                )
            number = chosen.served.number
            vector = (self.embed([text or ""], "query", operation, chosen))[0]
        return {
            "embedding": vector,
            "text": text if mode == "hybrid" else None,
            "model": number,
        }

    def recall(
        self,
        topic: str,
        filters: Mapping[str, Any],
        parameters: Mapping[str, Any],
        asked: tuple[str | Json | None, VectorLike | None, SearchMode | None],
        connection: Connection[Any] | None,
        operation: Operation,
    ) -> Sequence[tuple[Any, ...]]:
        """Return the rows of a recall; now and then its query is kept, to be checked later.

        Args:
            topic: ``"episodes"`` or ``"knowledge"``.
            filters: Checked filters.
            parameters: Everything else that the statement takes.
            asked: Query, embedding and mode, as ``query`` takes them.
            connection: A connection of the caller.
            operation: What it is for.
        """
        text = recall_filter(filters)
        while True:
            number = self.model.now.served.number
            values = {**parameters, "filter": text}
            try:
                values |= self.query(*asked, connection, operation)
                rows = self.database.fetch(
                    statement(topic, "recall"), values, tuple_row, connection=connection
                )
                break
            except ModelChanged:
                if not self.model.follow(number) or asked[1] is not None:
                    raise
        if connection is None and values["embedding"] is not None:
            self.metrics.sample(
                topic,
                values["embedding"],
                values["limit"],
                text,
                filters.get("project_id"),
                values["text"],
            )
        return rows

    def query_text(self, query: str | Json | None) -> str:
        """Return the words of a query.

        Raises:
            InvalidInput: There are none, or the database cannot take them.
        """
        if isinstance(query, Mapping):
            query = self.render(query, {}, {}, max_tokens=self.embedder.max_tokens)
        if not isinstance(query, str) or not query.strip():
            raise InvalidInput(f"the text to look for is {query!r}", hint="give some words")
        return check_text(query, name="query", max_length=self.database.settings.max_document_bytes)
