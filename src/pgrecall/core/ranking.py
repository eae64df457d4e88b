"""How a recall orders what it found: the weights of the score, and what else it asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, get_args

from pgrecall.core.checks import check_choice, check_fraction, check_limit, check_ttl
from pgrecall.errors import InvalidInput
from pgrecall.models import Evidence, Route, SearchMode, Terms

HALF_LIFE = timedelta(days=30)
"""Time in which recency halves, unless a call says otherwise."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Shares of worth (outcome or confidence) and recency in a score; relevance has the rest."""

    worth: float
    recency: float

    def terms(
        self, relevance: float, worth: float, recency: float, evidence: Evidence | None = None
    ) -> Terms:
        """Return what a score is made of."""
        return Terms(
            relevance=relevance,
            relevance_weight=1 - self.worth - self.recency,
            worth=worth,
            worth_weight=self.worth,
            recency=recency,
            recency_weight=self.recency,
            evidence=evidence,
        )


def to_evidence(words: float | None, lent: float, total: float) -> Evidence | None:
    """Return what speaks for a hit; None where words were not looked at."""
    if words is None:
        return None
    return Evidence(words=words, surprise=total - words - lent, lent=lent, total=total)


def check_similarity(value: float, name: str = "min_similarity") -> float:
    """Return a cosine similarity between -1 and 1.

    Raises:
        InvalidInput: It is no such number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(f"{name} must be a number, not {type(value).__name__}")
    if not math.isfinite(value) or not -1 <= value <= 1:
        raise InvalidInput(f"{name} is {value!r}", hint="give a number between -1 and 1")
    return float(value)


def check_weights(worth: float, age_weight: float, name: str) -> Weights:
    """Return the weights of a score.

    Raises:
        InvalidInput: One is not between 0 and 1, or both together are more than 1.
    """
    weights = Weights(
        check_fraction(worth, name) or 0.0, check_fraction(age_weight, "age_weight") or 0.0
    )
    if weights.worth + weights.recency > 1:
        raise InvalidInput(
            f"{name} {worth} and age_weight {age_weight} are more than 1 together",
            hint="relevance has the rest of 1 as its weight",
        )
    return weights


def ranking_parameters(
    *,
    limit: int,
    min_similarity: float,
    age_weight: float,
    half_life: timedelta | float,
    diversity: float,
    route: Route | None,
    explain: bool,
) -> dict[str, Any]:
    """Return the parameters that recalls of all kinds share, checked.

    Raises:
        InvalidInput: A value cannot be meant.
    """
    return {
        "limit": check_limit(limit),
        "min_similarity": check_similarity(min_similarity),
        "age_weight": age_weight,
        "half_life": check_ttl(half_life, "half_life") or HALF_LIFE,
        "diversity": check_fraction(diversity, "diversity") or 0.0,
        "route": None if route is None else check_choice(route, get_args(Route), "route"),
        "explain": bool(explain),
    }


def choose_mode(
    mode: SearchMode | None, *, has_text: bool, has_vector: bool, given: bool
) -> SearchMode:
    """Return what a search looks at: what is asked for, or all that there is.

    Args:
        mode: What is asked for, if anything.
        has_text: Whether there is a text.
        has_vector: Whether there is a vector, or an embedder to make one from the text.
        given: Whether the vector is there already.

    Raises:
        InvalidInput: There is nothing to look for, or not what the mode needs.
    """
    if not has_text and not given:
        raise InvalidInput(
            "neither a text nor embedding= was given", hint="one of the two says what to look for"
        )
    if mode is None:
        if not has_text:
            return "vector"
        return "hybrid" if has_vector else "words"
    check_choice(mode, get_args(SearchMode), "mode")
    if mode != "vector" and not has_text:
        raise InvalidInput(f"mode is {mode!r}, and there is no text", hint="give the words as well")
    if mode != "words" and not has_vector:
        raise InvalidInput(
            f"mode is {mode!r}, and there is no embedder to make a vector of the text",
            hint='give embedding= as well, or search with mode="words"',
        )
    return mode
