"""The tools: what a model can do with the memory, each with the rights of its caller."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from pgrecall import AsyncMemory
from pgrecall._async.memory import AsyncProjectMemory
from pgrecall.errors import InvalidInput
from pgrecall.models import EpisodeFilters
from pgrecall.serving.access import Scope, current
from pgrecall.serving.mcp.failing import as_tool
from pgrecall.serving.mcp.results import (
    Decision,
    Recall,
    Stats,
    Strategies,
    Strategy,
    WorkingSession,
    decision_values,
    strategy_values,
    to_fitting,
    to_session,
    to_similar,
    to_stats,
)

ProjectId = Annotated[
    str | None, Field(description="The project; needed unless the server or key has but one")
]
Document = dict[str, Any]
Vector = Annotated[
    list[float] | None, Field(description="A vector made elsewhere; leave it out otherwise")
]
Limit = Annotated[int, Field(ge=1, le=50, description="Most hits")]
Quality = Annotated[
    float | None, Field(ge=0, le=1, description="How well it turned out, 0 (worst) to 1 (best)")
]
EpisodeId = Annotated[str, Field(description="Of the decision, as memory_record returned it")]
Kind = Literal["strategy", "pattern", "constraint", "heuristic"]


class Tools:
    """The tools of a memory.

    Args:
        memory: Whose; bound to a project or not.
    """

    def __init__(self, memory: AsyncMemory | AsyncProjectMemory) -> None:
        self._memory = memory

    def project(self, scope: Scope, project_id: str | None) -> str | None:
        """Return the project that a call is for, which its caller may reach.

        Raises:
            Forbidden: The caller may not.
        """
        access = current()
        access.require(scope)
        if project_id is None:
            project_id = self._memory.project_id
        if project_id is None and access.projects is not None and len(access.projects) == 1:
            (project_id,) = access.projects
        access.require_project(project_id)
        return project_id

    @as_tool
    async def memory_record(
        self,
        situation: Annotated[Document, Field(description="What you perceived, as a JSON object")],
        action: Annotated[Document, Field(description="What you did or decided")],
        reasoning: Annotated[Document | None, Field(description="Why")] = None,
        project_id: ProjectId = None,
        outcome: Annotated[Document | None, Field(description="If known already")] = None,
        quality: Quality = None,
        agent_version: Annotated[str, Field(description="Of the deciding agent")] = "mcp",
        decision_source: Annotated[str | None, Field(description="What decided")] = None,
        sprint_id: str | None = None,
        external_id: Annotated[
            str | None, Field(description="Your own identifier; makes a repeated call safe")
        ] = None,
        decided_at: Annotated[
            datetime | None, Field(description="With time zone; now unless given")
        ] = None,
        embedding: Vector = None,
    ) -> Decision:
        """Store a decision, right after you made it: situation, reasoning and action.

        Keep the episode_id, to store the outcome when it is known.
        """
        episode = await self._memory.episodes.record(
            project_id=self.project("write", project_id),
            agent_version=agent_version,
            perception=situation,
            reasoning=reasoning or {},
            action=action,
            outcome=outcome,
            outcome_quality=quality,
            decision_source=decision_source,
            sprint_id=sprint_id,
            external_id=external_id,
            timestamp=decided_at,
            embedding=embedding,
        )
        return Decision(**decision_values(episode))

    @as_tool
    async def memory_record_outcome(
        self,
        episode_id: EpisodeId,
        outcome: Annotated[Document | None, Field(description="What happened")] = None,
        quality: Quality = None,
        project_id: ProjectId = None,
    ) -> Decision:
        """Store how an earlier decision turned out, as soon as you know it.

        Decisions whose outcome is known are worth more to later recalls.
        """
        episode = await self._memory.episodes.record_outcome(
            episode_id, outcome, quality, project_id=self.project("write", project_id)
        )
        return Decision(**decision_values(episode))

    @as_tool
    async def memory_recall(
        self,
        query: Annotated[
            str | Document | None, Field(description="The situation, in words or as an object")
        ] = None,
        project_id: ProjectId = None,
        limit: Limit = 5,
        min_similarity: Annotated[float, Field(ge=-1, le=1)] = -1,
        with_outcome: Annotated[
            bool | None, Field(description="True: only decisions whose outcome is known")
        ] = None,
        min_quality: Quality = None,
        decision_source: str | None = None,
        sprint_id: str | None = None,
        embedding: Vector = None,
    ) -> Recall:
        """Find past decisions in situations like this one, with how they turned out.

        Use it before you decide; prefer what turned out well, avoid what did not.
        """
        filters: EpisodeFilters = {
            "project_id": self.project("read", project_id),
            "with_outcome": with_outcome,
            "min_quality": min_quality,
            "decision_source": decision_source,
            "sprint_id": sprint_id,
        }
        hits = await self._memory.episodes.recall(
            query, embedding=embedding, limit=limit, min_similarity=min_similarity, **filters
        )
        return Recall(decisions=[to_similar(hit) for hit in hits])

    @as_tool
    async def memory_recall_strategies(
        self,
        query: Annotated[
            str | Document | None, Field(description="The situation, in words or as an object")
        ] = None,
        project_id: ProjectId = None,
        limit: Limit = 5,
        kind: Kind | None = None,
        min_confidence: Annotated[float | None, Field(ge=0, le=1)] = None,
        embedding: Vector = None,
    ) -> Strategies:
        """Find what was learned from many decisions and fits this situation.

        Use it before you decide, beside memory_recall; then tell with memory_apply_strategy
        whether it worked.
        """
        hits = await self._memory.knowledge.recall(
            query,
            embedding=embedding,
            project_id=self.project("read", project_id),
            knowledge_type=kind,
            min_confidence=min_confidence,
            limit=limit,
        )
        return Strategies(strategies=[to_fitting(hit) for hit in hits])

    @as_tool
    async def memory_add_strategy(
        self,
        description: Annotated[str, Field(description="One or two sentences that say it")],
        supporting_episodes: Annotated[
            list[str], Field(description="At least three different decisions that speak for it")
        ],
        content: Annotated[Document | None, Field(description="Details")] = None,
        contradicting_episodes: list[str] | None = None,
        confidence: Annotated[float, Field(ge=0, le=1)] = 0.5,
        kind: Kind = "strategy",
        project_id: ProjectId = None,
        embedding: Vector = None,
    ) -> Strategy:
        """Store what three decisions or more have taught, so that later decisions find it.

        Use it when recalled decisions show the same lesson.
        """
        known = await self._memory.knowledge.add(
            kind,
            description,
            content or {},
            supporting_episodes=supporting_episodes,
            contradicting_episodes=contradicting_episodes or (),
            confidence=confidence,
            project_id=self.project("write", project_id),
            created_by="mcp",
            embedding=embedding,
        )
        return Strategy(**strategy_values(known))

    @as_tool
    async def memory_apply_strategy(
        self,
        knowledge_id: Annotated[str, Field(description="Of the strategy that you applied")],
        success: Annotated[bool, Field(description="Whether it went well")],
        episode_id: Annotated[
            str | None, Field(description="The decision in which; becomes evidence")
        ] = None,
        project_id: ProjectId = None,
    ) -> Strategy:
        """Count one application of a strategy, and whether it succeeded.

        Use it once for every decision that followed a strategy, when its outcome is known.
        """
        known = await self._memory.knowledge.record_application(
            knowledge_id,
            success=success,
            episode_id=episode_id,
            project_id=self.project("write", project_id),
        )
        return Strategy(**strategy_values(known))

    @as_tool
    async def memory_open_session(
        self,
        project_id: ProjectId = None,
        goal: Annotated[str | None, Field(description="What it is to reach")] = None,
        context: Annotated[Document | None, Field(description="What to hold in mind")] = None,
        user_id: str | None = None,
        ttl_seconds: Annotated[float, Field(gt=0, description="How long it lives")] = 3600,
    ) -> WorkingSession:
        """Begin a working session, for what must be held in mind over several steps."""
        session = await self._memory.sessions.open(
            project_id=self.project("write", project_id),
            user_id=user_id,
            goal=goal,
            context=context,
            ttl=ttl_seconds,
        )
        return to_session(session)

    @as_tool
    async def memory_update_session(
        self,
        session_id: str,
        context: Annotated[Document | None, Field(description="Keys to set")] = None,
        thought: Annotated[Document | None, Field(description="A thought to append")] = None,
        goal: Annotated[str | None, Field(description="A new goal")] = None,
        episode_id: Annotated[str | None, Field(description="A decision made in it")] = None,
        ttl_seconds: Annotated[
            float | None, Field(gt=0, description="Let it live so long from now")
        ] = None,
        project_id: ProjectId = None,
    ) -> WorkingSession:
        """Change a live session: give one or more of context, thought, goal, episode, ttl."""
        project = self.project("write", project_id)
        sessions = self._memory.sessions
        session = None
        if context is not None:
            session = await sessions.update_context(session_id, context, project_id=project)
        if thought is not None:
            session = await sessions.append_thought(session_id, thought, project_id=project)
        if goal is not None:
            session = await sessions.set_goal(session_id, goal, project_id=project)
        if episode_id is not None:
            session = await sessions.relate_episode(session_id, episode_id, project_id=project)
        if ttl_seconds is not None:
            session = await sessions.extend(session_id, ttl_seconds, project_id=project)
        if session is None:
            raise InvalidInput(
                "nothing to change was given", hint="give context, thought, goal, episode_id or ttl"
            )
        return to_session(session)

    @as_tool
    async def memory_close_session(
        self, session_id: str, project_id: ProjectId = None
    ) -> WorkingSession:
        """End a session when its goal is reached or given up; closing it again changes nothing."""
        session = await self._memory.sessions.close(
            session_id, project_id=self.project("write", project_id)
        )
        return to_session(session)

    @as_tool
    async def memory_stats(self, project_id: ProjectId = None) -> Stats:
        """Say how much is remembered: decisions, known outcomes, strategies, live sessions."""
        totals = await self._memory.metrics.totals(project_id=self.project("read", project_id))
        return to_stats(totals)
