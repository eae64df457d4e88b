"""What tools answer: as little as a model needs, with a schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import BaseModel, Field

from pgrecall.models import Episode, Knowledge, Recalled, RecalledKnowledge, Session, Totals

MOST_CHARACTERS = 2000
"""Of one document in an answer; the whole is a resource."""


class Decision(BaseModel):
    """One decision of the past."""

    episode_id: str
    project_id: str
    decided_at: str
    situation: dict[str, Any] = Field(description="What was perceived")
    reasoning: dict[str, Any]
    action: dict[str, Any] = Field(description="What was done")
    outcome: dict[str, Any] | None = Field(None, description="How it turned out, if known")
    quality: float | None = Field(None, description="How well, 0 (worst) to 1 (best)")


class SimilarDecision(Decision):
    """A decision that was recalled."""

    similarity: float | None = Field(None, description="Cosine similarity, -1 to 1")
    score: float = Field(description="What the hits are ordered by")
    repeats: list[str] = Field(default_factory=list, description="Decisions that were the same")


class Recall(BaseModel):
    """Past decisions, the best fit first."""

    decisions: list[SimilarDecision]


class Strategy(BaseModel):
    """Something learned from decisions."""

    knowledge_id: str
    kind: str
    project_id: str | None = Field(None, description="None: shared by all projects")
    description: str
    content: dict[str, Any]
    confidence: float | None = None
    success_rate: float | None = None
    times_applied: int = 0
    active: bool = True


class FittingStrategy(Strategy):
    """A strategy that was recalled."""

    similarity: float | None = None
    score: float


class Strategies(BaseModel):
    """What was learned, the best fit first."""

    strategies: list[FittingStrategy]


class WorkingSession(BaseModel):
    """A working session."""

    session_id: str
    project_id: str
    goal: str | None = None
    context: dict[str, Any] | None = None
    thoughts: list[dict[str, Any]] = Field(
        default_factory=list, description="The latest ten, oldest first"
    )
    related_episodes: list[str] = Field(default_factory=list)
    expires_at: str | None = None
    active: bool


class Stats(BaseModel):
    """How much is remembered."""

    episodes: int
    with_outcome: int
    mean_quality: float | None
    strategies: int
    applications: int
    live_sessions: int


def brief(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document, or its beginning as text if it is long."""
    written = orjson.dumps(document, default=str).decode()
    if len(written) <= MOST_CHARACTERS:
        return dict(document)
    return {"shortened": written[:MOST_CHARACTERS], "characters": len(written)}


def decision_values(episode: Episode) -> dict[str, Any]:
    """Return what a model sees of an episode."""
    return {
        "episode_id": str(episode.episode_id),
        "project_id": episode.project_id,
        "decided_at": episode.timestamp.isoformat(),
        "situation": brief(episode.perception),
        "reasoning": brief(episode.reasoning),
        "action": brief(episode.action),
        "outcome": None if episode.outcome is None else brief(episode.outcome),
        "quality": episode.outcome_quality,
    }


def to_similar(hit: Recalled) -> SimilarDecision:
    """Return what a model sees of a recalled episode."""
    return SimilarDecision(
        **decision_values(hit.episode),
        similarity=hit.similarity,
        score=hit.score,
        repeats=[str(episode_id) for episode_id in hit.repeats[:10]],
    )


def strategy_values(known: Knowledge) -> dict[str, Any]:
    """Return what a model sees of a piece of knowledge."""
    return {
        "knowledge_id": str(known.knowledge_id),
        "kind": known.knowledge_type,
        "project_id": known.project_id,
        "description": known.description[:MOST_CHARACTERS],
        "content": brief(known.content),
        "confidence": known.confidence,
        "success_rate": known.success_rate,
        "times_applied": known.times_applied or 0,
        "active": bool(known.is_active),
    }


def to_fitting(hit: RecalledKnowledge) -> FittingStrategy:
    """Return what a model sees of recalled knowledge."""
    return FittingStrategy(
        **strategy_values(hit.knowledge), similarity=hit.similarity, score=hit.score
    )


def to_session(session: Session) -> WorkingSession:
    """Return what a model sees of a session."""
    return WorkingSession(
        session_id=str(session.session_id),
        project_id=session.project_id,
        goal=session.current_goal,
        context=None if session.active_context is None else brief(session.active_context),
        thoughts=[brief(thought) for thought in (session.thought_history or ())[-10:]],
        related_episodes=[str(one) for one in session.related_episodes or ()],
        expires_at=None if session.expires_at is None else session.expires_at.isoformat(),
        active=bool(session.is_active),
    )


def to_stats(totals: Totals) -> Stats:
    """Return what a model sees of the numbers."""
    return Stats(
        episodes=totals.episodes,
        with_outcome=totals.with_outcome,
        mean_quality=totals.mean_quality,
        strategies=totals.strategies,
        applications=totals.applications,
        live_sessions=totals.live_sessions,
    )
