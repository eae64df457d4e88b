"""From knowledge as the caller gives it to the row that is written, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any
from uuid import UUID

from pgrecall.core.checks import check_uuids
from pgrecall.core.ranking import Weights, to_evidence
from pgrecall.errors import InvalidInput
from pgrecall.models import Knowledge, RecalledKnowledge

KNOWLEDGE_FIELDS = tuple(field.name for field in fields(Knowledge))
LEAST_EVIDENCE = 3


def check_evidence(
    supporting: Iterable[UUID | str], contradicting: Iterable[UUID | str], *, active: bool
) -> tuple[list[UUID], list[UUID]]:
    """Return the evidence for and against, each episode once.

    Raises:
        InvalidInput: Active knowledge with fewer than three supporting episodes, or an episode
            that is said to speak for it and against it.
    """
    evidence = check_uuids(supporting, "supporting_episodes")
    against = check_uuids(contradicting, "contradicting_episodes")
    if active and len(evidence) < LEAST_EVIDENCE:
        raise InvalidInput(
            f"active knowledge needs at least {LEAST_EVIDENCE} different supporting episodes, "
            f"{len(evidence)} were given",
            hint="give more evidence, or active=False to keep it as a candidate",
        )
    both = [str(episode_id) for episode_id in evidence if episode_id in against]
    if both:
        raise InvalidInput(
            f"episodes cannot both support and contradict: {', '.join(both[:5])}",
            hint="give each on one side",
        )
    return evidence, against


def to_recalled_knowledge(values: Sequence[Any], weights: Weights) -> RecalledKnowledge:
    """Return a hit from a row of ``recall``: the columns, then the terms of its score."""
    (*columns, similarity, worth, recency, score, relevance, words, evidence, account) = values
    return RecalledKnowledge(
        knowledge=Knowledge(**dict(zip(KNOWLEDGE_FIELDS, columns, strict=True))),
        similarity=similarity,
        score=score,
        terms=None
        if account is None
        else weights.terms(relevance, worth, recency, to_evidence(words, 0.0, evidence)),
    )
