"""Plays the simulation: one agent with the memory, one without, in the same situations."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, Protocol
from uuid import UUID, uuid4

from pgrecall.demo.agent import Decision, Recollection, by_experience, by_rules
from pgrecall.demo.outcomes import Outcome, Plan, carry_out, make_plan
from pgrecall.demo.world import Situation, situations, troubles_in
from pgrecall.models import Episode, Json, Recalled

AGENT_VERSION = "demo-1"

HITS = 60
"""How many past decisions the agent looks at before each of its own."""


class Episodes(Protocol):
    """What the agent uses of ``memory.episodes``."""

    def record(
        self,
        *,
        project_id: str,
        agent_version: str,
        perception: Json,
        reasoning: Json,
        action: Json,
        control_mode: Any,
        decision_source: str,
        sprint_id: str,
    ) -> Episode:
        """Store a decision."""
        ...

    def record_outcome(
        self, episode_id: UUID, outcome: Json, quality: float, *, project_id: str
    ) -> Episode:
        """Store how it turned out."""
        ...

    def recall(
        self, query: str, *, project_id: str, limit: int, outcome_weight: float
    ) -> Sequence[Recalled]:
        """Return the decisions taken in the most similar situations."""
        ...


class HasEpisodes(Protocol):
    """A memory, as far as the agent uses it; ``pgrecall.Memory`` is one."""

    @property
    def episodes(self) -> Episodes:
        """The episodic memory."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One decision and what came of it.

    Attributes:
        memories: What was recalled before it, the most similar first.
        control_practice: What the agent without memory did in the same situation.
        control_quality: How that turned out, 0 to 1.
        recall_ms: How long the recall took, in milliseconds.
    """

    situation: Situation
    memories: tuple[Recollection, ...]
    decision: Decision
    plan: Plan
    outcome: Outcome
    control_practice: str
    control_quality: float
    recall_ms: float
    episode_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Quality with and without memory over the same situations.

    Attributes:
        difference: Mean of the differences, situation by situation.
        margin: Half the width of its 95 % interval (1.96 standard errors).
        spread_with: Standard deviation of quality with memory.
        spread_without: And without.
    """

    count: int
    with_memory: float
    without_memory: float
    spread_with: float
    spread_without: float
    difference: float
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """A whole game.

    Attributes:
        seconds: How long it took.
    """

    project_id: str
    seed: int
    steps: tuple[Step, ...]
    seconds: float

    def thirds(self) -> tuple[Comparison, ...]:
        """Compare with and without memory in the first, second and last third."""
        size = max(1, len(self.steps) // 3)
        cuts = (self.steps[:size], self.steps[size : 2 * size], self.steps[2 * size :])
        return tuple(compare(part) for part in cuts if part)

    def recall_ms(self, quantile: float) -> float:
        """Return a quantile (0 to 1) of the recalls' durations, in milliseconds."""
        ordered = sorted(step.recall_ms for step in self.steps)
        return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]

    def lessons(self) -> Mapping[str, Mapping[str, tuple[int, float]]]:
        """Return for each kind of situation how often each practice was used, and its quality.

        A situation with several troubles counts under each of them.
        """
        found: dict[str, dict[str, list[float]]] = {}
        for step in self.steps:
            for kind in step.situation.troubles or ("nothing special",):
                qualities = found.setdefault(kind, {}).setdefault(step.plan.practice, [])
                qualities.append(step.outcome.quality)
        return {
            kind: {name: (len(values), mean(values)) for name, values in by_practice.items()}
            for kind, by_practice in found.items()
        }


def play(
    memory: HasEpisodes,
    *,
    decisions: int = 300,
    seed: int = 7,
    on_step: Callable[[Step], None] | None = None,
    project_id: str | None = None,
) -> DemoResult:
    """Let an agent plan sprints with a memory, and another without one in the same situations.

    Args:
        memory: Where the first agent records and recalls; only what recall returns does it know.
        decisions: How many sprints to plan.
        seed: Decides the world, its luck and when the agent explores.
        on_step: Called after each decision.
        project_id: Under which the decisions are stored; a new one unless given, so that no
            earlier game is remembered.

    Raises:
        ValueError: ``decisions`` is below 1.
        PgrecallError: The memory failed.
    """
    if decisions < 1:
        raise ValueError(f"decisions is {decisions}; there must be at least one")
    project = project_id or f"demo-{uuid4().hex[:8]}"
    chance = random.Random(f"agent/{seed}")  # noqa: S311 - a game, not a secret
    started = time.perf_counter()
    steps = []
    for situation in situations(seed, decisions):
        step = _step(memory.episodes, situation, project, chance)
        steps.append(step)
        if on_step is not None:
            on_step(step)
    return DemoResult(
        project_id=project, seed=seed, steps=tuple(steps), seconds=time.perf_counter() - started
    )


def _step(episodes: Episodes, situation: Situation, project_id: str, chance: random.Random) -> Step:
    """Recall, decide, record, let the sprint pass, record its outcome."""
    started = time.perf_counter()
    # By similarity alone: the agent wants to hear of failures as much as of successes.
    hits = episodes.recall(
        situation.describe(), project_id=project_id, limit=HITS, outcome_weight=0.0
    )
    recall_ms = (time.perf_counter() - started) * 1000
    memories = tuple(_memory(hit) for hit in hits if hit.episode.outcome_quality is not None)
    decision = by_experience(situation, memories, chance)
    plan = make_plan(situation, decision.practice)
    episode = episodes.record(
        project_id=project_id,
        agent_version=AGENT_VERSION,
        perception=situation.perception(),
        reasoning={
            "decision": decision.practice,
            "confidence": decision.confidence,
            "why": list(decision.why),
            "recalled": len(memories),
        },
        action=plan.action(),
        control_mode="memory_augmented",
        decision_source=decision.source,
        sprint_id=f"sprint-{situation.number}",
    )
    outcome = carry_out(situation, plan)
    episodes.record_outcome(
        episode.episode_id, outcome.document(), outcome.quality, project_id=project_id
    )
    control = by_rules(situation).practice
    return Step(
        situation=situation,
        memories=memories,
        decision=decision,
        plan=plan,
        outcome=outcome,
        control_practice=control,
        control_quality=carry_out(situation, make_plan(situation, control)).quality,
        recall_ms=recall_ms,
        episode_id=episode.episode_id,
    )


def _memory(hit: Recalled) -> Recollection:
    episode = hit.episode
    return Recollection(
        similarity=hit.similarity or 0.0,
        practice=str(episode.action.get("practice", "")),
        quality=episode.outcome_quality or 0.0,
        troubles=frozenset(troubles_in(episode.perception)),
    )


def compare(steps: Sequence[Step]) -> Comparison:
    """Compare quality with and without memory over some steps, at least one."""
    ours = [step.outcome.quality for step in steps]
    theirs = [step.control_quality for step in steps]
    differences = [with_it - without for with_it, without in zip(ours, theirs, strict=True)]
    several = len(steps) > 1
    return Comparison(
        count=len(steps),
        with_memory=mean(ours),
        without_memory=mean(theirs),
        spread_with=stdev(ours) if several else 0.0,
        spread_without=stdev(theirs) if several else 0.0,
        difference=mean(differences),
        margin=1.96 * stdev(differences) / len(steps) ** 0.5 if several else float("inf"),
    )
