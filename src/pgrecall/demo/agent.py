"""The planning agent: rules of thumb, and experience where there is some."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pgrecall.demo.outcomes import PRACTICES
from pgrecall.demo.world import HUGE_TASK, Situation

UNLIKENESS = 0.3
"""How much a past decision counts for each trouble that one situation has and the other has not."""

PRIOR_WEIGHT = 1.0
"""How many past decisions in the same situation the assumption weighs that all are alike."""

TRUST_IN_RULES = 0.05
"""How much better than the others the practice is assumed to be that the rules advise."""

CURIOSITY = 0.02
"""How far from its estimate the agent imagines the quality of a practice that was never tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recollection:
    """One past decision as recall returned it: how similar, what was done, how it turned out."""

    similarity: float
    practice: str
    quality: float
    troubles: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the agent chose, and why.

    Attributes:
        source: ``rules``, ``memory`` (experience decided) or ``exploration``.
        confidence: 0 to 1.
    """

    practice: str
    source: str
    confidence: float
    why: tuple[str, ...]


def by_rules(situation: Situation) -> Decision:
    """Decide by common advice, the most urgent matter first."""
    rules = (
        (situation.technical_debt >= 0.7, "debt_sprint", "the technical debt is high"),
        (situation.deadline_pressure == "high", "stretch_goal", "the deadline is near"),
        (max(situation.tasks) >= HUGE_TASK, "split_large_tasks", "one task is very large"),
        (situation.absent_members >= 2, "request_help", "two members are absent"),
        (situation.holidays_in_sprint >= 3, "reserve_buffer", "there are holidays"),
        (situation.velocity_trend == "declining", "reserve_buffer", "velocity is declining"),
    )
    for holds, practice, reason in rules:
        if holds:
            return Decision(practice=practice, source="rules", confidence=0.6, why=(reason,))
    return Decision(
        practice="full_commitment", source="rules", confidence=0.6, why=("nothing speaks against",)
    )


def by_experience(
    situation: Situation, memories: Sequence[Recollection], chance: random.Random
) -> Decision:
    """Decide by how similar decisions turned out; explore where little is known.

    Each practice is imagined a little better or worse than estimated, the less experience there
    is of it the more; what looks best then is done. So what is known to be bad is not tried
    again, and what is known to be good is done nearly always.

    Args:
        situation: What there is to plan.
        memories: What recall returned; only this is known of the past.
        chance: What the imagination draws from.
    """
    advised = by_rules(situation)
    estimates = expected_quality(memories, frozenset(situation.troubles), advised.practice)
    best = max(PRACTICES, key=lambda practice: estimates[practice].quality)
    chosen = max(
        PRACTICES,
        key=lambda practice: chance.gauss(
            estimates[practice].quality, CURIOSITY / estimates[practice].weight ** 0.5
        ),
    )
    tried = sum(memory.practice == chosen for memory in memories)
    quality = round(estimates[chosen].quality, 2)
    confidence = round(1 - PRIOR_WEIGHT / (PRIOR_WEIGHT + estimates[chosen].weight), 2)
    if chosen != best:
        source, reason = "exploration", f"to see how it turns out; {best} was expected to be better"
    elif not tried and chosen == advised.practice:
        return advised
    else:
        source, reason = "memory", f"done in {tried} of {len(memories)} similar decisions"
    why = (reason, f"expected quality {quality}")
    return Decision(practice=chosen, source=source, confidence=confidence, why=why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a practice is worth, and how many decisions in the same situation say so."""

    quality: float
    weight: float


def expected_quality(
    memories: Sequence[Recollection], troubles: frozenset[str], advised: str
) -> Mapping[str, Estimate]:
    """Return what quality each practice can be expected to have in a situation.

    Sprints with more troubles end worse whatever one does. So each past decision counts by how
    much better or worse it ended than others with as many troubles; the more alike the
    situations, the more it counts. A prior that all practices are alike stands beside.

    Args:
        memories: What recall returned.
        troubles: Those of the situation at hand.
        advised: The practice that the rules advise, assumed to be a little better.
    """
    closest = max((memory.similarity for memory in memories), default=0.0)
    weights = [likeness(memory, troubles, closest) for memory in memories]
    usual, cost = usual_quality(memories, weights)
    estimates = {}
    for practice in PRACTICES:
        gain = PRIOR_WEIGHT * TRUST_IN_RULES if practice == advised else 0.0
        total = PRIOR_WEIGHT
        for memory, weight in zip(memories, weights, strict=True):
            if memory.practice == practice:
                gain += weight * (memory.quality - usual - cost * len(memory.troubles))
                total += weight
        estimates[practice] = Estimate(
            quality=usual + cost * len(troubles) + gain / total, weight=total
        )
    return estimates


def likeness(memory: Recollection, troubles: frozenset[str], closest: float) -> float:
    """Return how much a past decision counts, 0 to 1: by similarity and by shared troubles.

    Similarity is taken relative to the closest, since its scale differs between embedders.
    """
    similarity = max(0.0, memory.similarity / closest) if closest > 0 else 1.0
    return min(1.0, similarity) * UNLIKENESS ** len(memory.troubles ^ troubles)


def usual_quality(
    memories: Sequence[Recollection], weights: Sequence[float]
) -> tuple[float, float]:
    """Return quality without troubles, and what each trouble adds to it: a weighted straight line.

    A prior of two decisions keeps it sensible while there are few.
    """
    points = [(0.0, 0.85, 1.0), (3.0, 0.6, 1.0)]
    points += [
        (len(memory.troubles), memory.quality, weight)
        for memory, weight in zip(memories, weights, strict=True)
    ]
    total = sum(weight for _, _, weight in points)
    x_mean = sum(x * weight for x, _, weight in points) / total
    y_mean = sum(y * weight for _, y, weight in points) / total
    spread = sum(weight * (x - x_mean) ** 2 for x, _, weight in points)
    slope = sum(weight * (x - x_mean) * (y - y_mean) for x, y, weight in points) / spread
    return y_mean - slope * x_mean, slope
