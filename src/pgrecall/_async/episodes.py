"""Episodic memory: decisions, how they turned out, and the similar ones of the past."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Unpack
from uuid import UUID

from pgvector import Vector
from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row, scalar_row, tuple_row

from pgrecall._async.after import (
    RERANK_SECONDS,
    RERANK_TOKENS,
    candidates,
    reranked,
    with_neighbours,
)
from pgrecall._async.recorder import AsyncRecorder
from pgrecall._async.scope import AsyncScope
from pgrecall.core.checks import check_fraction, check_limit, check_uuid, check_uuids
from pgrecall.core.documents import to_json
from pgrecall.core.episode_rows import new_episode, to_recalled
from pgrecall.core.filters import episode_filters, project_filter
from pgrecall.core.pages import to_page
from pgrecall.core.ranking import HALF_LIFE, check_weights, ranking_parameters
from pgrecall.errors import Conflict, InvalidInput, NotFound
from pgrecall.models import (
    ControlMode,
    Embed,
    Episode,
    EpisodeFilters,
    Hits,
    Json,
    NewEpisode,
    Page,
    Recalled,
    RecordedMany,
    Route,
    SearchMode,
    VectorLike,
)
from pgrecall.reranking import Reranker
from pgrecall.sql import statement


class AsyncEpisodeStore:
    """Decisions of agents (table ``agent_episodes``).

    Every call takes ``connection``, an open psycopg connection of the caller, with whose
    transaction it then commits or rolls back.
    """

    def __init__(self, scope: AsyncScope) -> None:
        self._scope = scope
        self._database = scope.database
        self._recorder = AsyncRecorder(scope)

    def _new(self, values: Mapping[str, Any]) -> NewEpisode:
        return new_episode(self._scope.project(values.get("project_id")), values)

    async def prepare(self, **values: Any) -> NewEpisode:
        """Return an episode with its vector, ready to be recorded inside a transaction.

        Args:
            **values: What ``record`` takes, without ``connection`` and ``embed``.

        Raises:
            InvalidInput: A value cannot be stored.
            EmbeddingError: The text could not be embedded.
        """
        return (await self.prepare_many([values]))[0]

    async def prepare_many(
        self, episodes: Iterable[NewEpisode | Mapping[str, Any]]
    ) -> Sequence[NewEpisode]:
        """Return episodes with their vectors, made together; as ``prepare`` does of one."""
        given = [item if isinstance(item, NewEpisode) else self._new(item) for item in episodes]
        return await self._recorder.embedded(given)

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
        embed: Embed | None = None,
        burst: bool = False,
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
            embed: ``"later"`` stores it without a vector, which a worker then makes; the
                memory's default unless given.
            burst: As for ``record_many``.
            connection: A connection of yours, with which the write commits or rolls back.

        Raises:
            InvalidInput: A value cannot be stored; nothing was written.
            Conflict: The ``external_id`` or ``episode_id`` stands for something else.
            OutcomeUnknown: The connection broke; repeat the call with the same ``external_id``.
        """
        with self._scope.measure("record_episode", project_id, connection) as measured:
            if episode is None:
                episode = self._new(
                    {
                        "project_id": project_id, "agent_version": agent_version,
                        "perception": perception, "reasoning": reasoning, "action": action,
                        "outcome": outcome, "outcome_quality": outcome_quality,
                        "timestamp": timestamp, "control_mode": control_mode,
                        "decision_source": decision_source, "sprint_id": sprint_id,
                        "chronicle_note_id": chronicle_note_id, "external_id": external_id,
                        "episode_id": episode_id, "embedding": embedding,
                    }
                )  # fmt: skip
            recorded = await self._recorder.write([episode], embed, burst, connection, measured)
            return recorded.episodes[0]

    async def record_many(
        self,
        episodes: Iterable[NewEpisode | Mapping[str, Any]],
        *,
        embed: Embed | None = None,
        burst: bool = False,
        connection: AsyncConnection[Any] | None = None,
    ) -> RecordedMany:
        """Store many decisions in one statement: all of them, or none.

        Args:
            episodes: Made by ``prepare``, or mappings of what ``record`` takes.
            embed: As for ``record``.
            burst: Write beside the vector index, several times as fast; found as all others.
            connection: A connection of yours, with which the write commits or rolls back.

        Raises:
            InvalidInput: A value cannot be stored, with the position of its episode.
            Conflict: An identifier stands for something else; nothing was written.
        """
        items = list(episodes)
        if not items:
            return RecordedMany(episodes=[], created=0, existing=0)
        with self._scope.measure("record_episodes", None, connection) as measured:
            given = [item if isinstance(item, NewEpisode) else self._new(item) for item in items]
            return await self._recorder.write(given, embed, burst, connection, measured)

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
        with self._scope.measure("record_outcome", project_id, connection) as measured:
            if outcome is None and quality is None:
                raise InvalidInput("neither outcome nor quality was given", hint="give one or both")
            max_bytes = self._database.settings.max_document_bytes
            values = {
                "outcome": None
                if outcome is None
                else to_json(outcome, name="outcome", max_bytes=max_bytes),
                "quality": check_fraction(quality, "quality"),
            }
            episode = await self._one("record_outcome", episode_id, values, project_id, connection)
            measured.results = 1
        return episode

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
        with self._scope.measure("get_episode", project_id, connection) as measured:
            episode = await self._one("get", episode_id, {}, project_id, connection)
            measured.results = 1
        return episode

    async def _one(
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
        rows = await self._database.fetch(
            statement("episodes", name, filters),
            {**parameters, **values, "episode_id": wanted},
            class_row(Episode),
            connection=connection,
            writing=name != "get",
        )
        if not rows:
            where = f" in project {project_id!r}" if project_id is not None else ""
            raise NotFound(f"there is no episode {wanted}{where}")
        return rows[0]

    async def embeddings(
        self,
        episode_ids: Iterable[UUID | str],
        *,
        project_id: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> dict[UUID, Vector]:
        """Return the stored vectors of those of the episodes that have one."""
        with self._scope.measure("get_embeddings", project_id, connection) as measured:
            filters, parameters = project_filter(self._scope.project(project_id))
            rows = await self._database.fetch(
                statement("episodes", "embeddings", filters),
                {**parameters, "episode_ids": check_uuids(episode_ids, "episode_ids")},
                tuple_row,
                connection=connection,
            )
            measured.results = len(rows)
        return dict(rows)

    async def list(
        self,
        *,
        limit: int = 50,
        cursor: str | None = None,
        connection: AsyncConnection[Any] | None = None,
        **filters: Unpack[EpisodeFilters],
    ) -> Page[Episode]:
        """Return episodes, newest first, a page at a time.

        Args:
            limit: Episodes a page, 1 to 10,000.
            cursor: ``next_cursor`` of the page before.
            connection: A connection of yours.
            **filters: Which episodes, see :class:`pgrecall.models.EpisodeFilters`.

        Raises:
            InvalidInput: A filter cannot be meant.
        """
        given = filters.get("project_id")
        with self._scope.measure("list_episodes", given, connection) as measured:
            names, parameters = self._filters(filters, cursor)
            parameters["limit"] = check_limit(limit) + 1
            text = statement("episodes", "list", names)
            rows = await self._database.fetch(
                text, parameters, class_row(Episode), connection=connection
            )
            page = to_page(rows, limit, lambda row: (row.timestamp, row.episode_id))
            measured.results = len(page)
        return page

    async def count(
        self,
        *,
        connection: AsyncConnection[Any] | None = None,
        **filters: Unpack[EpisodeFilters],
    ) -> int:
        """Return how many episodes match; takes the filters of ``list``."""
        given = filters.get("project_id")
        with self._scope.measure("count_episodes", given, connection) as measured:
            names, parameters = self._filters(filters)
            rows = await self._database.fetch(
                statement("episodes", "count", names), parameters, scalar_row, connection=connection
            )
            measured.results = len(rows)
        return int(rows[0])

    def _filters(
        self, filters: EpisodeFilters, cursor: str | None = None
    ) -> tuple[tuple[str, ...], dict[str, Any]]:
        bound = self._scope.project(filters.get("project_id"))
        if bound is not None:
            filters = {**filters, "project_id": bound}
        max_bytes = self._database.settings.max_document_bytes
        return episode_filters(filters, max_bytes=max_bytes, cursor=cursor)

    async def recall(
        self,
        query: str | Json | None = None,
        *,
        embedding: VectorLike | None = None,
        limit: int = 10,
        min_similarity: float = -1.0,
        outcome_weight: float = 0.15,
        age_weight: float = 0.0,
        half_life: timedelta | float = HALF_LIFE,
        diversity: float = 0.0,
        group_repeats: bool = True,
        mode: SearchMode | None = None,
        context: bool = True,
        neighbours: bool = False,
        rerank: Reranker | None = None,
        rerank_seconds: float = RERANK_SECONDS,
        route: Route | None = None,
        explain: bool = False,
        connection: AsyncConnection[Any] | None = None,
        **filters: Unpack[EpisodeFilters],
    ) -> Hits[Recalled]:
        """Return the past decisions that fit best, with their outcomes, best first.

        The score is ``(1 - w - a) * relevance + w * quality + a * recency`` with
        ``w = outcome_weight`` and ``a = age_weight``; an outcome that is not known counts as 0.5,
        recency halves in every ``half_life``. Relevance is the similarity, lifted by words and
        neighbours; of words alone, the share of what they could say. As many are returned as
        match, up to ``limit``; by words alone, as many as hold one.

        Args:
            query: What to look for, in words or as a perception.
            embedding: What to look for, as a vector; made of the query by the memory's embedder
                unless given.
            limit: Most hits to return, 1 to 10,000.
            min_similarity: Only hits so similar at least, -1 to 1; at -1 those without vector too.
            outcome_weight: How much a good outcome lifts a hit, 0 (not at all) to 1.
            age_weight: How much it lifts a hit to be new, 0 (not at all) to 1.
            half_life: Time in which recency halves, a timedelta or seconds; 30 days unless given.
            diversity: How much hits must differ from those before them, 0 (not at all) to 1:
                maximal marginal relevance, with a lambda of ``1 - diversity``.
            group_repeats: Whether decisions that repeat another are one hit, which names them.
            mode: ``"hybrid"`` looks at words and vectors, ``"vector"`` or ``"words"`` at one of
                them; all that there is to go by unless given.
            context: Whether episodes next in time, of the same project and sprint, lend each other
                evidence, as far as that of neighbours goes together; in modes with words.
            neighbours: Whether each hit comes with the episodes next in time.
            rerank: A function that looks at query and texts together, as
                :class:`pgrecall.reranking.Reranker` says; it orders three times as many hits anew.
            rerank_seconds: How long it may begin to look at more of them.
            route: How to find the nearest vectors; chosen by expected cost unless given.
            explain: Tell what scores are made of, and what the recall did and why.
            connection: A connection of yours; then give ``embedding``, or look at words alone.
            **filters: Which episodes, see :class:`pgrecall.models.EpisodeFilters`.

        Raises:
            InvalidInput: A filter cannot be meant, or there is not what the mode needs.
            InvalidVector: The vector has another dimension or no direction.
            EmbeddingError: The text could not be embedded.
        """
        scope = self._scope
        with scope.measure("recall_similar", filters.get("project_id"), connection) as measured:
            _, filtered = self._filters(filters)
            weights = check_weights(outcome_weight, age_weight, "outcome_weight")
            parameters = ranking_parameters(
                limit=limit if rerank is None else candidates(limit),
                min_similarity=min_similarity,
                age_weight=weights.recency,
                half_life=half_life,
                diversity=diversity,
                route=route,
                explain=explain,
            )
            parameters.update(
                outcome_weight=weights.worth, group=bool(group_repeats), context=bool(context)
            )
            asked = (query, embedding, mode)
            rows = await scope.recall("episodes", filtered, parameters, asked, connection, measured)
            hits = Hits(to_recalled(row, weights) for row in rows if row[0] is not None)
            if rerank is not None:
                text = self._scope.query_text(query)
                hits = await reranked(
                    hits, text, rerank, rerank_seconds, partial(_text_of, self._scope), limit
                )
            if neighbours:
                hits = await with_neighbours(self._database, hits, connection)
            measured.results = len(hits)
        if explain:
            hits.account = measured.account_for(rows[0][-1])
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
        with self._scope.measure("delete_episodes", project_id, connection) as measured:
            filters, parameters = project_filter(self._scope.project(project_id))
            parameters["episode_ids"] = check_uuids(episode_ids, "episode_ids")
            async with self._database.transaction(connection) as lent:
                run, text = self._database.run, statement("episodes", "lock", filters)
                held = await run(lent, text, parameters, scalar_row)
                parameters["episode_ids"] = held
                evidence = await run(
                    lent, statement("episodes", "evidence_of"), {"episode_ids": held}, dict_row
                )
                _refuse_evidence(evidence)
                text = statement("episodes", "delete", filters)
                deleted = await run(lent, text, parameters, scalar_row)
            measured.results = len(deleted)
        return len(deleted)


def _refuse_evidence(rests: Sequence[Mapping[str, Any]]) -> None:
    if rests:
        raise Conflict(
            "knowledge rests on these episodes as evidence: "
            + ", ".join(f"{row['knowledge_id']} {row['description']!r}" for row in rests),
            hint="nothing was deleted; delete or replace that knowledge first",
        )


def _text_of(scope: AsyncScope, hit: Recalled) -> str:
    episode = hit.episode
    documents = (episode.perception, episode.reasoning, episode.action)
    return scope.render(*documents, max_tokens=RERANK_TOKENS)
