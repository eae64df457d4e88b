"""Semantic memory: what was learned, the evidence for and against it, and how it fared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from pgvector import Vector
from psycopg import AsyncConnection
from psycopg.rows import class_row, scalar_row

from pgrecall._async.after import RERANK_SECONDS, RERANK_TOKENS, candidates, reranked
from pgrecall._async.scope import AsyncScope
from pgrecall.core.checks import (
    check_embed,
    check_fraction,
    check_knowledge_type,
    check_limit,
    check_uuid,
)
from pgrecall.core.documents import check_text, to_json
from pgrecall.core.filters import knowledge_filters, project_filter, scope_text
from pgrecall.core.knowledge_rows import check_evidence, to_recalled_knowledge
from pgrecall.core.pages import to_page
from pgrecall.core.ranking import HALF_LIFE, check_weights, ranking_parameters
from pgrecall.core.text import render_knowledge
from pgrecall.core.vectors import to_vector
from pgrecall.embedding.choice import Chosen
from pgrecall.errors import InvalidInput, ModelChanged, NotFound
from pgrecall.models import (
    Embed,
    Hits,
    Json,
    Knowledge,
    KnowledgeType,
    Page,
    RecalledKnowledge,
    Route,
    SearchMode,
    VectorLike,
)
from pgrecall.reranking import Reranker
from pgrecall.sql import statement
from pgrecall.telemetry.operations import Operation


class AsyncKnowledgeStore:
    """Strategies, patterns, constraints and heuristics (table ``agent_knowledge``).

    Knowledge belongs to one project, or to all of them where it has none. A memory bound to a
    project sees its own and the shared.
    """

    def __init__(self, scope: AsyncScope) -> None:
        self._scope = scope
        self._database = scope.database

    async def add(
        self,
        knowledge_type: KnowledgeType,
        description: str,
        content: Json,
        *,
        supporting_episodes: Iterable[UUID | str],
        contradicting_episodes: Iterable[UUID | str] = (),
        confidence: float = 0.5,
        project_id: str | None = None,
        shared: bool = False,
        created_by: str = "system",
        active: bool = True,
        knowledge_id: UUID | None = None,
        embedding: VectorLike | None = None,
        embed: Embed | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> Knowledge:
        """Store a piece of knowledge with its evidence, and return it.

        Args:
            knowledge_type: ``strategy``, ``pattern``, ``constraint`` or ``heuristic``.
            description: One or two sentences that say it; what recall finds it by.
            content: Its details.
            supporting_episodes: At least three that speak for it, unless it is not active yet.
            contradicting_episodes: Those that speak against it.
            confidence: 0 to 1.
            project_id: The project that it holds for; all of them unless given.
            shared: On a memory bound to a project, True makes it knowledge of all projects.
            created_by: Who found it, up to 50 characters.
            active: False keeps it as a candidate.
            knowledge_id: Its identifier, if it has one already.
            embedding: Its vector; made by the embedder from description and content unless given.
            embed: ``"later"`` stores it without a vector, which a worker then makes; the
                memory's default unless given.
            connection: A connection of yours, with which the write commits or rolls back.

        Raises:
            InvalidInput: A value cannot be stored, evidence is too little or does not exist.
        """
        with self._scope.measure("add_knowledge", project_id, connection) as measured:
            project_id = None if shared else self._scope.project(project_id)
            evidence, against = check_evidence(
                supporting_episodes, contradicting_episodes, active=active
            )
            max_bytes = self._database.settings.max_document_bytes
            values: dict[str, Any] = {
                "knowledge_id": None
                if knowledge_id is None
                else check_uuid(knowledge_id, "knowledge_id"),
                "knowledge_type": check_knowledge_type(knowledge_type),
                "content": to_json(content, name="content", max_bytes=max_bytes),
                "description": check_text(description, name="description", max_length=max_bytes),
                "confidence": check_fraction(confidence, "confidence"),
                "supporting_episodes": evidence,
                "contradicting_episodes": against,
                "created_by": check_text(created_by, name="created_by", max_length=50),
                "active": active,
                "project_id": scope_text(project_id, "project_id"),
            }
            measured.project_id = values["project_id"]
            when = self._scope.embed_when if embed is None else check_embed(embed)
            while True:
                chosen = self._scope.model.now
                try:
                    if embedding is not None or when == "later" or not chosen.embedder.available:
                        given = self._given(embedding, chosen)
                        values |= {"embedding": given, "model": None}
                    else:
                        values["embedding"] = await self._vector(
                            description, content, chosen, connection, measured
                        )
                        values["model"] = chosen.served.number
                    rows = await self._add(values, [*evidence, *against], connection)
                    break
                except ModelChanged:
                    if not await self._scope.model.follow(chosen.served.number):
                        raise
            measured.results = len(rows)
        return rows[0]

    @staticmethod
    def _given(embedding: VectorLike | None, chosen: Chosen) -> Vector | None:
        return None if embedding is None else to_vector(embedding, chosen.served.dimensions)

    async def _add(
        self,
        values: Mapping[str, Any],
        evidence: Sequence[UUID],
        connection: AsyncConnection[Any] | None,
    ) -> Sequence[Knowledge]:
        async with self._database.transaction(connection) as lent:
            await self._hold(lent, evidence)
            return await self._database.run(
                lent, statement("knowledge", "add"), values, class_row(Knowledge)
            )

    async def _vector(
        self,
        description: str,
        content: Json,
        chosen: Chosen,
        connection: AsyncConnection[Any] | None,
        operation: Operation,
    ) -> Vector:
        if connection is not None:
            raise InvalidInput(
                "no text can be embedded while your transaction waits",
                hint="embed the description first with memory.embed(...), and give embedding=, or "
                'embed="later"',
            )
        text = render_knowledge(description, content, max_tokens=chosen.embedder.max_tokens)
        return (await self._scope.embed([text], "document", operation, chosen))[0]

    async def _hold(self, lent: AsyncConnection[Any], episode_ids: Sequence[UUID]) -> None:
        held = await self._database.run(
            lent,
            statement("knowledge", "hold_evidence"),
            {"episode_ids": [*episode_ids]},
            scalar_row,
        )
        there = set(held)
        missing = [str(episode_id) for episode_id in episode_ids if episode_id not in there]
        if missing:
            raise InvalidInput(
                f"no such episodes to be evidence: {', '.join(missing[:5])}"
                + (f" and {len(missing) - 5} more" if len(missing) > 5 else ""),
                hint="they may have been deleted; nothing was written",
            )

    async def get(
        self,
        knowledge_id: UUID | str,
        *,
        project_id: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> Knowledge:
        """Return one piece of knowledge.

        Raises:
            NotFound: No such knowledge (of that project, or shared).
        """
        with self._scope.measure("get_knowledge", project_id, connection) as measured:
            known = await self._one("get", knowledge_id, {}, project_id, connection)
            measured.results = 1
        return known

    async def list(
        self,
        *,
        project_id: str | None = None,
        knowledge_type: KnowledgeType | None = None,
        active: bool | None = True,
        min_confidence: float | None = None,
        limit: int = 50,
        cursor: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> Page[Knowledge]:
        """Return knowledge, newest first, a page at a time.

        Args:
            project_id: Of this project, and what all share.
            knowledge_type: Only of this kind.
            active: Only active (True), only retired or candidate (False), or all (None).
            min_confidence: Only at least this certain.
            limit: Rows a page, 1 to 10,000.
            cursor: ``next_cursor`` of the page before.
            connection: A connection of yours.

        Raises:
            InvalidInput: A filter cannot be meant.
        """
        with self._scope.measure("list_knowledge", project_id, connection) as measured:
            project_id = self._scope.project(project_id)
            filters, parameters = knowledge_filters(
                project_id=project_id,
                knowledge_type=knowledge_type,
                active=active,
                min_confidence=min_confidence,
                cursor=cursor,
            )
            rows = await self._database.fetch(
                statement("knowledge", "list", filters),
                {**parameters, "limit": check_limit(limit) + 1},
                class_row(Knowledge),
                connection=connection,
            )
            page = to_page(rows, limit, lambda row: (row.created_at, row.knowledge_id))
            measured.results = len(page)
        return page

    async def recall(
        self,
        query: str | Json | None = None,
        *,
        embedding: VectorLike | None = None,
        project_id: str | None = None,
        knowledge_type: KnowledgeType | None = None,
        active: bool | None = True,
        min_confidence: float | None = None,
        limit: int = 5,
        min_similarity: float = -1.0,
        confidence_weight: float = 0.15,
        age_weight: float = 0.0,
        half_life: timedelta | float = HALF_LIFE,
        diversity: float = 0.0,
        mode: SearchMode | None = None,
        rerank: Reranker | None = None,
        rerank_seconds: float = RERANK_SECONDS,
        route: Route | None = None,
        explain: bool = False,
        connection: AsyncConnection[Any] | None = None,
    ) -> Hits[RecalledKnowledge]:
        """Return the knowledge that fits a situation best, best first.

        The score is ``(1 - w - a) * relevance + w * confidence + a * recency`` with
        ``w = confidence_weight`` and ``a = age_weight``; recency halves in every ``half_life``.
        Relevance is as in the recall of episodes.

        Args:
            query: The situation, in words or as a perception.
            embedding: The situation as a vector; made of the query by the memory's embedder unless
                given.
            project_id: Of this project, and what all share.
            knowledge_type: Only of this kind.
            active: Only active (True), only retired or candidate (False), or all (None).
            min_confidence: Only at least this certain.
            limit: Most hits to return, 1 to 10,000.
            min_similarity: Only hits at least this similar, -1 to 1.
            confidence_weight: How much confidence lifts a hit, 0 (not at all) to 1.
            age_weight: How much it lifts a hit to be new, 0 (not at all) to 1.
            half_life: Time in which recency halves, a timedelta or seconds; 30 days unless given.
            diversity: How much hits must differ from those before them, 0 (not at all) to 1.
            mode: ``"hybrid"`` looks at words and vectors, ``"vector"`` or ``"words"`` at one of
                them; all that there is to go by unless given.
            rerank: A function that looks at query and texts together, as
                :class:`pgrecall.reranking.Reranker` says; it orders three times as many hits anew.
            rerank_seconds: How long it may begin to look at more of them.
            route: How to find the nearest vectors; chosen by expected cost unless given.
            explain: Tell what scores are made of, and what the recall did and why.
            connection: A connection of yours; then give ``embedding``, or look at words alone.

        Raises:
            InvalidInput: A filter cannot be meant, or there is not what the mode needs.
        """
        with self._scope.measure("recall_knowledge", project_id, connection) as measured:
            project_id = self._scope.project(project_id)
            _, filters = knowledge_filters(
                project_id=project_id,
                knowledge_type=knowledge_type,
                active=active,
                min_confidence=min_confidence,
            )
            weights = check_weights(confidence_weight, age_weight, "confidence_weight")
            parameters = ranking_parameters(
                limit=limit if rerank is None else candidates(limit),
                min_similarity=min_similarity,
                age_weight=weights.recency,
                half_life=half_life,
                diversity=diversity,
                route=route,
                explain=explain,
            )
            parameters["confidence_weight"] = weights.worth
            asked = (query, embedding, mode)
            rows = await self._scope.recall(
                "knowledge", filters, parameters, asked, connection, measured
            )
            hits = Hits(to_recalled_knowledge(row, weights) for row in rows if row[0] is not None)
            if rerank is not None:
                text = self._scope.query_text(query)
                hits = await reranked(hits, text, rerank, rerank_seconds, _text_of, limit)
            measured.results = len(hits)
        if explain:
            hits.account = measured.account_for(rows[0][-1])
        return hits

    async def record_application(
        self,
        knowledge_id: UUID | str,
        *,
        success: bool,
        episode_id: UUID | str | None = None,
        project_id: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> Knowledge:
        """Count one application of a piece of knowledge, and whether it succeeded.

        Args:
            knowledge_id: What was applied.
            success: Whether it went well.
            episode_id: The decision in which it was applied; joins the evidence for or against.
            project_id: The project that applied it.
            connection: A connection of yours, with which the write commits or rolls back.

        Raises:
            NotFound: No such active knowledge (of that project, or shared).
            InvalidInput: The episode does not exist.
        """
        with self._scope.measure("apply_knowledge", project_id, connection) as measured:
            if not isinstance(success, bool):
                raise InvalidInput(f"success is {success!r}", hint="give True or False")
            episode = None if episode_id is None else check_uuid(episode_id, "episode_id")
            values = {"success": success, "episode_id": episode}
            if episode is None:
                known = await self._one("apply", knowledge_id, values, project_id, connection)
            else:
                async with self._database.transaction(connection) as lent:
                    await self._hold(lent, [episode])
                    known = await self._one("apply", knowledge_id, values, project_id, lent)
            measured.results = 1
        return known

    async def retire(
        self,
        knowledge_id: UUID | str,
        *,
        project_id: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> Knowledge:
        """Take a piece of knowledge out of use; it stays in the ledger.

        Raises:
            NotFound: No such knowledge (of that project, or shared).
        """
        with self._scope.measure("retire_knowledge", project_id, connection) as measured:
            known = await self._one("retire", knowledge_id, {}, project_id, connection)
            measured.results = 1
        return known

    async def delete(
        self,
        knowledge_id: UUID | str,
        *,
        project_id: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> None:
        """Delete a piece of knowledge and its evidence; the episodes stay.

        Raises:
            NotFound: No such knowledge (of that project, or shared).
        """
        with self._scope.measure("delete_knowledge", project_id, connection) as measured:
            filters, parameters = project_filter(self._scope.project(project_id))
            wanted = check_uuid(knowledge_id, "knowledge_id")
            measured.results = await self._database.execute(
                statement("knowledge", "delete", filters),
                {**parameters, "knowledge_id": wanted},
                connection=connection,
            )
            if not measured.results:
                raise NotFound(f"there is no knowledge {wanted}")

    async def _one(
        self,
        name: str,
        knowledge_id: UUID | str,
        values: Mapping[str, Any],
        project_id: str | None,
        connection: AsyncConnection[Any] | None,
    ) -> Knowledge:
        project_id = self._scope.project(project_id)
        filters, parameters = project_filter(project_id)
        wanted = check_uuid(knowledge_id, "knowledge_id")
        rows = await self._database.fetch(
            statement("knowledge", name, filters),
            {**parameters, **values, "knowledge_id": wanted},
            class_row(Knowledge),
            connection=connection,
            writing=name != "get",
        )
        if not rows:
            active = "active " if name == "apply" else ""
            where = f" of project {project_id!r} or shared" if project_id is not None else ""
            raise NotFound(f"there is no {active}knowledge {wanted}{where}")
        return rows[0]


def _text_of(hit: RecalledKnowledge) -> str:
    known = hit.knowledge
    return render_knowledge(known.description, known.content, max_tokens=RERANK_TOKENS)
