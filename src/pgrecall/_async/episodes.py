"""Episodic memory: decisions, how they turned out, and the similar ones of the past."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pgvector import Vector
from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row, scalar_row, tuple_row

from pgrecall._async.scope import AsyncScope
from pgrecall.core.checks import check_fraction, check_limit, check_uuid, check_uuids
from pgrecall.core.documents import to_json
from pgrecall.core.episode_rows import (
    EpisodeRow,
    match_taken,
    to_episode,
    to_parameters,
    to_recalled,
    to_row,
)
from pgrecall.core.filters import episode_filters, project_filter
from pgrecall.core.pages import to_page
from pgrecall.core.ranking import candidate_count, check_similarity
from pgrecall.core.vectors import to_vector
from pgrecall.errors import Conflict, InvalidInput, NotFound
from pgrecall.models import (
    ControlMode,
    Episode,
    Json,
    NewEpisode,
    Page,
    Recalled,
    RecordedMany,
    VectorLike,
)
from pgrecall.sql import statement

Embed = Literal["now", "later"]


class AsyncEpisodeStore:
    """Decisions of agents (table ``agent_episodes``).

    Every call takes ``project_id`` (given already on a memory bound to a project) and
    ``connection``, an open psycopg connection of the caller, with whose transaction it then
    commits or rolls back.
    """

    def __init__(self, scope: AsyncScope) -> None:
        self._scope = scope
        self._database = scope.database

    def _new(self, values: Mapping[str, Any]) -> NewEpisode:
        project_id = self._scope.project(values.get("project_id"))
        if project_id is None:
            raise InvalidInput(
                "project_id is missing", hint="give project_id=, or use memory.project(...)"
            )
        try:
            return NewEpisode(**{**values, "project_id": project_id})
        except TypeError as error:
            raise InvalidInput(f"not an episode: {error}") from error

    async def prepare(self, **values: Any) -> NewEpisode:
        """Return an episode with its vector, ready to be recorded inside a transaction.

        Args:
            **values: What ``record`` takes, without ``connection`` and ``embed``.

        Raises:
            InvalidInput: A value cannot be stored.
            EmbeddingError: The text could not be embedded.
        """
        episode = self._new(values)
        (row,) = await self._embedded([episode], self._rows([episode]), "now")
        return replace(episode, embedding=row.embedding)

    async def record(
        self,
        episode: NewEpisode | None = None,
        *,
        project_id: str | None = None,
        agent_version: str | None = None,
        perception: Json | None = None,
        reasoning: Json | None = None,
        action: Json | None = None,
        outcome: Json | None = None,
        outcome_quality: float | None = None,
        timestamp: datetime | None = None,
        control_mode: ControlMode = "rule_based_only",
        decision_source: str | None = None,
        sprint_id: str | None = None,
        chronicle_note_id: UUID | None = None,
        external_id: str | None = None,
        episode_id: UUID | None = None,
        embedding: VectorLike | None = None,
        embed: Embed = "now",
        connection: AsyncConnection[Any] | None = None,
    ) -> Episode:
        """Store one decision and return it as it stands in the database.

        Args:
            episode: One made by ``prepare``, instead of the values.
            project_id: Up to 50 characters.
            agent_version: Version of the deciding agent, up to 20 characters.
            perception: What it perceived.
            reasoning: How it reasoned.
            action: What it did.
            outcome: How it turned out, if known already.
            outcome_quality: How well, 0 to 1.
            timestamp: When it decided, with time zone; now unless given.
            control_mode: One of the specification's three modes.
            decision_source: What decided, up to 50 characters.
            sprint_id: The sprint it belongs to, up to 50 characters.
            chronicle_note_id: A note about it elsewhere.
            external_id: Your own identifier, unique in the project, up to 200 characters. With
                it the call can be repeated safely: a second one returns the stored episode.
            episode_id: Its identifier, if it has one already.
            embedding: Its vector; made by the embedder from the text unless given.
            embed: ``"later"`` stores the episode without a vector.
            connection: A connection of yours, with which the write commits or rolls back.

        Raises:
            InvalidInput: A value cannot be stored; nothing was written.
            Conflict: The ``external_id`` or ``episode_id`` stands for something else.
            OutcomeUnknown: The connection broke; repeat the call with the same ``external_id``.
        """
        if episode is None:
            episode = self._new(
                {
                    "project_id": project_id,
                    "agent_version": agent_version,
                    "perception": perception,
                    "reasoning": reasoning,
                    "action": action,
                    "outcome": outcome,
                    "outcome_quality": outcome_quality,
                    "timestamp": timestamp,
                    "control_mode": control_mode,
                    "decision_source": decision_source,
                    "sprint_id": sprint_id,
                    "chronicle_note_id": chronicle_note_id,
                    "external_id": external_id,
                    "episode_id": episode_id,
                    "embedding": embedding,
                }
            )
        recorded = await self._record([episode], "record_episode", embed, connection)
        return recorded.episodes[0]

    async def record_many(
        self,
        episodes: Iterable[NewEpisode | Mapping[str, Any]],
        *,
        embed: Embed = "now",
        connection: AsyncConnection[Any] | None = None,
    ) -> RecordedMany:
        """Store many decisions in one statement: all of them, or none.

        Args:
            episodes: Made by ``prepare``, or mappings of what ``record`` takes.
            embed: ``"later"`` stores them without vectors.
            connection: A connection of yours, with which the write commits or rolls back.

        Raises:
            InvalidInput: A value cannot be stored, with the position of its episode.
            Conflict: An identifier stands for something else; nothing was written.
        """
        given = [item if isinstance(item, NewEpisode) else self._new(item) for item in episodes]
        return await self._record(given, "record_episodes", embed, connection)

    async def _record(
        self,
        episodes: Sequence[NewEpisode],
        operation: str,
        embed: Embed,
        connection: AsyncConnection[Any] | None,
    ) -> RecordedMany:
        if not episodes:
            return RecordedMany(episodes=[], created=0, existing=0)
        rows = self._rows(episodes)
        for row in rows:
            self._scope.project(row.project_id)
        if connection is not None:
            self._refuse_embedding(rows, embed)
        rows = await self._embedded(episodes, rows, embed)
        project_id = rows[0].project_id
        with self._scope.measure(operation, project_id, connection) as measured:
            recorded = await self._insert(rows, connection)
            measured.results = recorded.created
        return recorded

    def _refuse_embedding(self, rows: Sequence[EpisodeRow], embed: Embed) -> None:
        waiting = embed == "now" and self._scope.embedder.available
        if waiting and any(row.embedding is None for row in rows):
            raise InvalidInput(
                "no text can be embedded while your transaction waits",
                hint="make the episode with prepare() before, or give embedding= or embed='later'",
            )

    def _rows(self, episodes: Sequence[NewEpisode]) -> Sequence[EpisodeRow]:
        rows = []
        max_bytes = self._database.settings.max_document_bytes
        for position, episode in enumerate(episodes):
            try:
                rows.append(to_row(episode, dimensions=self._scope.dimensions, max_bytes=max_bytes))
            except InvalidInput as error:
                if len(episodes) == 1:
                    raise
                raise type(error)(
                    f"episode {position}: {error.message}", hint=error.hint
                ) from error
        return rows

    async def _embedded(
        self, episodes: Sequence[NewEpisode], rows: Sequence[EpisodeRow], embed: Embed
    ) -> Sequence[EpisodeRow]:
        """Return the rows with the vectors that were not given; they are checked by then."""
        if embed not in ("now", "later"):
            raise InvalidInput(f"embed is {embed!r}", hint="give 'now' or 'later'")
        embedder = self._scope.embedder
        missing = [i for i, row in enumerate(rows) if row.embedding is None]
        if embed == "later" or not embedder.available or not missing:
            return rows
        texts = {
            i: self._scope.render(
                episodes[i].perception,
                episodes[i].reasoning,
                episodes[i].action,
                max_tokens=embedder.max_tokens,
            )
            for i in missing
        }
        # An episode of which nothing can be said has no vector: no query is like it.
        said = [i for i in missing if texts[i].strip()]
        embedded = [*rows]
        vectors = await self._scope.embed([texts[i] for i in said], "document") if said else []
        for i, vector in zip(said, vectors, strict=True):
            embedded[i] = replace(rows[i], embedding=to_vector(vector, self._scope.dimensions))
        return embedded

    async def _insert(
        self, rows: Sequence[EpisodeRow], connection: AsyncConnection[Any] | None
    ) -> RecordedMany:
        insert = statement("episodes", "record")
        if len(rows) == 1:
            written = await self._database.fetch(
                insert, to_parameters(rows), tuple_row, connection=connection, writing=True
            )
            standing = await self._standing(rows, written, connection)
        else:
            async with self._database.transaction(connection) as lent:
                written = await self._database.run(lent, insert, to_parameters(rows), tuple_row)
                standing = await self._standing(rows, written, lent)
        times = {episode_id: rest for episode_id, *rest in written}
        return RecordedMany(
            episodes=[
                to_episode(row, *times[row.episode_id])
                if row.episode_id in times
                else standing[row.episode_id]
                for row in rows
            ],
            created=len(written),
            existing=len(rows) - len(written),
        )

    async def _standing(
        self,
        rows: Sequence[EpisodeRow],
        written: Sequence[tuple[Any, ...]],
        connection: AsyncConnection[Any] | None,
    ) -> Mapping[UUID, Episode]:
        """Return the episodes that stand where rows could not be written."""
        if len(written) == len(rows):
            return {}
        new = {values[0] for values in written}
        refused = [row for row in rows if row.episode_id not in new]
        keyed = [row for row in refused if row.external_id is not None]
        taken = await self._database.fetch(
            statement("episodes", "taken"),
            {
                "episode_ids": [row.episode_id for row in refused],
                "project_ids": [row.project_id for row in keyed],
                "external_ids": [row.external_id for row in keyed],
            },
            class_row(Episode),
            connection=connection,
        )
        standing = match_taken(refused, taken)
        for row in refused:
            if row.episode_id not in standing:
                raise Conflict(
                    f"external_id {row.external_id!r} was taken and has just been deleted",
                    hint="nothing was written; repeat the call",
                )
        return standing

    async def record_outcome(
        self,
        episode_id: UUID | str,
        outcome: Json | None = None,
        quality: float | None = None,
        *,
        project_id: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> Episode:
        """Store how a decision turned out, and return the episode with it.

        Args:
            episode_id: The decision.
            outcome: What happened; what stood there before is replaced if this is given.
            quality: How well it turned out, 0 (worst) to 1 (best).
            project_id: Its project, if the call is meant for one.
            connection: A connection of yours, with which the write commits or rolls back.

        Raises:
            InvalidInput: Neither was given, or a value cannot be stored.
            NotFound: No such episode (in that project).
        """
        if outcome is None and quality is None:
            raise InvalidInput("neither outcome nor quality was given", hint="give one or both")
        max_bytes = self._database.settings.max_document_bytes
        return await self._write_one(
            "record_outcome",
            episode_id,
            {
                "outcome": None
                if outcome is None
                else to_json(outcome, name="outcome", max_bytes=max_bytes),
                "quality": check_fraction(quality, "quality"),
            },
            project_id,
            connection,
        )

    async def _write_one(
        self,
        name: str,
        episode_id: UUID | str,
        values: Mapping[str, Any],
        project_id: str | None,
        connection: AsyncConnection[Any] | None,
    ) -> Episode:
        project_id = self._scope.project(project_id)
        filters, parameters = project_filter(project_id)
        wanted = check_uuid(episode_id, "episode_id")
        with self._scope.measure(name, project_id, connection) as measured:
            rows = await self._database.fetch(
                statement("episodes", name, filters),
                {**parameters, **values, "episode_id": wanted},
                class_row(Episode),
                connection=connection,
                writing=True,
            )
            measured.results = len(rows)
        if not rows:
            raise _not_found(wanted, project_id)
        return rows[0]

    async def get(
        self,
        episode_id: UUID | str,
        *,
        project_id: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> Episode:
        """Return one episode.

        Raises:
            NotFound: No such episode (in that project).
        """
        project_id = self._scope.project(project_id)
        filters, parameters = project_filter(project_id)
        wanted = check_uuid(episode_id, "episode_id")
        with self._scope.measure("get_episode", project_id, connection) as measured:
            rows = await self._database.fetch(
                statement("episodes", "get", filters),
                {**parameters, "episode_id": wanted},
                class_row(Episode),
                connection=connection,
            )
            measured.results = len(rows)
        if not rows:
            raise _not_found(wanted, project_id)
        return rows[0]

    async def embeddings(
        self,
        episode_ids: Iterable[UUID | str],
        *,
        project_id: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> dict[UUID, Vector]:
        """Return the stored vectors of those of the episodes that have one."""
        filters, parameters = project_filter(self._scope.project(project_id))
        rows = await self._database.fetch(
            statement("episodes", "embeddings", filters),
            {**parameters, "episode_ids": check_uuids(episode_ids, "episode_ids")},
            tuple_row,
            connection=connection,
        )
        return dict(rows)

    async def list(
        self,
        *,
        project_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        sprint_id: str | None = None,
        decision_source: str | None = None,
        agent_version: str | None = None,
        min_quality: float | None = None,
        max_quality: float | None = None,
        with_outcome: bool | None = None,
        limit: int = 50,
        cursor: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> Page[Episode]:
        """Return episodes, newest first, a page at a time.

        Args:
            project_id: Only of this project.
            since: Not older than this.
            until: Older than this.
            sprint_id: Only of this sprint.
            decision_source: Only decided by this.
            agent_version: Only by this version of the agent.
            min_quality: Only with an outcome at least this good.
            max_quality: Only with an outcome at most this good.
            with_outcome: Only with (True) or without (False) a recorded outcome.
            limit: Episodes a page, 1 to 10,000.
            cursor: ``next_cursor`` of the page before.
            connection: A connection of yours.

        Raises:
            InvalidInput: A filter cannot be meant.
        """
        project_id = self._scope.project(project_id)
        filters, parameters = episode_filters(
            project_id=project_id,
            since=since,
            until=until,
            sprint_id=sprint_id,
            decision_source=decision_source,
            agent_version=agent_version,
            min_quality=min_quality,
            max_quality=max_quality,
            with_outcome=with_outcome,
            cursor=cursor,
        )
        with self._scope.measure("list_episodes", project_id, connection) as measured:
            rows = await self._database.fetch(
                statement("episodes", "list", filters),
                {**parameters, "limit": check_limit(limit) + 1},
                class_row(Episode),
                connection=connection,
            )
            page = to_page(rows, limit, lambda row: (row.timestamp, row.episode_id))
            measured.results = len(page)
        return page

    async def count(self, *, connection: AsyncConnection[Any] | None = None, **filters: Any) -> int:
        """Return how many episodes match; takes the filters of ``list``."""
        filters["project_id"] = self._scope.project(filters.get("project_id"))
        try:
            names, parameters = episode_filters(**filters)
        except TypeError as error:
            raise InvalidInput(f"not a filter of episodes: {error}") from error
        rows = await self._database.fetch(
            statement("episodes", "count", names), parameters, scalar_row, connection=connection
        )
        return int(rows[0])

    async def recall(
        self,
        query: str | Json | None = None,
        *,
        embedding: VectorLike | None = None,
        project_id: str | None = None,
        limit: int = 10,
        min_similarity: float = -1.0,
        outcome_weight: float = 0.15,
        since: datetime | None = None,
        until: datetime | None = None,
        sprint_id: str | None = None,
        decision_source: str | None = None,
        agent_version: str | None = None,
        min_quality: float | None = None,
        max_quality: float | None = None,
        with_outcome: bool | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> Sequence[Recalled]:
        """Return the most similar past decisions with their outcomes, best first.

        The score is ``(1 - w) * similarity + w * quality`` with ``w = outcome_weight``; an
        outcome that is not known counts as 0.5. As many are returned as match, up to ``limit``.

        Args:
            query: What to look for, in words or as a perception; embedded by the memory's
                embedder.
            embedding: What to look for, as a vector, instead of words.
            project_id: Only of this project; across all projects unless given.
            limit: Most hits to return, 1 to 10,000.
            min_similarity: Only hits at least this similar, -1 to 1.
            outcome_weight: How much a good outcome lifts a hit, 0 (not at all) to 1.
            since: Not older than this.
            until: Older than this.
            sprint_id: Only of this sprint.
            decision_source: Only decided by this.
            agent_version: Only by this version of the agent.
            min_quality: Only with an outcome at least this good.
            max_quality: Only with an outcome at most this good.
            with_outcome: Only with (True) or without (False) a recorded outcome.
            connection: A connection of yours; then give ``embedding``.

        Raises:
            InvalidInput: A filter cannot be meant, or both or neither of text and vector.
            InvalidVector: The vector has another dimension or no direction.
            EmbeddingError: The text could not be embedded.
        """
        project_id = self._scope.project(project_id)
        filters, parameters = episode_filters(
            project_id=project_id,
            since=since,
            until=until,
            sprint_id=sprint_id,
            decision_source=decision_source,
            agent_version=agent_version,
            min_quality=min_quality,
            max_quality=max_quality,
            with_outcome=with_outcome,
        )
        weight = check_fraction(outcome_weight, "outcome_weight") or 0.0
        parameters |= {
            "limit": check_limit(limit),
            "candidates": candidate_count(limit, weight),
            "outcome_weight": weight,
            "min_similarity": check_similarity(min_similarity),
        }
        parameters["embedding"] = await self._scope.query_vector(query, embedding, connection)
        with self._scope.measure("recall_similar", project_id, connection) as measured:
            rows = await self._database.fetch_nearest(
                statement("episodes", "recall", filters),
                parameters,
                tuple_row,
                connection=connection,
            )
            if rows[0][0] < parameters["candidates"]:
                # The index found too few: either there are no more, or it gave up too early.
                rows = await self._database.fetch_nearest(
                    statement("episodes", "recall_exact", filters),
                    parameters,
                    tuple_row,
                    connection=connection,
                )
            hits = [to_recalled(values) for values in rows if values[1] is not None]
            measured.results = len(hits)
        return hits

    async def delete(
        self,
        *episode_ids: UUID | str,
        project_id: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> int:
        """Delete episodes; returns how many there were.

        Raises:
            Conflict: Knowledge rests on one of them as evidence; nothing was deleted.
        """
        project_id = self._scope.project(project_id)
        filters, parameters = project_filter(project_id)
        parameters["episode_ids"] = check_uuids(episode_ids, "episode_ids")
        with self._scope.measure("delete_episodes", project_id, connection) as measured:
            async with self._database.transaction(connection) as lent:
                run = self._database.run
                held = await run(
                    lent, statement("episodes", "lock", filters), parameters, scalar_row
                )
                parameters["episode_ids"] = held
                evidence = await run(
                    lent, statement("episodes", "evidence_of"), {"episode_ids": held}, dict_row
                )
                if evidence:
                    raise Conflict(
                        "knowledge rests on these episodes as evidence: "
                        + ", ".join(
                            f"{row['knowledge_id']} {row['description']!r}" for row in evidence
                        ),
                        hint="nothing was deleted; delete or replace that knowledge first",
                    )
                deleted = len(
                    await run(
                        lent, statement("episodes", "delete", filters), parameters, scalar_row
                    )
                )
            measured.results = deleted
        return deleted


def _not_found(episode_id: UUID, project_id: str | None) -> NotFound:
    where = f" in project {project_id!r}" if project_id is not None else ""
    return NotFound(f"there is no episode {episode_id}{where}")
