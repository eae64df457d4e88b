"""How many candidates a recall weighs, and how it orders them."""

from __future__ import annotations

import math
from typing import Any

from pgrecall.core.checks import MAX_LIMIT, check_fraction, check_limit
from pgrecall.errors import InvalidInput

CANDIDATES_PER_HIT = 3


def candidate_count(limit: int, weight: float) -> int:
    """Return how many nearest neighbours are weighed to return ``limit`` of them.

    With no weight besides similarity the nearest are the best. Otherwise a good outcome may
    lift one from further back, so that three times as many are considered.
    """
    return limit if weight == 0 else min(limit * CANDIDATES_PER_HIT, 3 * MAX_LIMIT)


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


def ranking_parameters(limit: int, min_similarity: float, **weight: float) -> dict[str, Any]:
    """Return the parameters of the fragment ``ranking`` and the number of candidates for it.

    Args:
        limit: Most hits to return.
        min_similarity: Least similarity of a hit.
        **weight: The one weight of this ranking, by the name that its statement gives it.

    Raises:
        InvalidInput: A value cannot be meant.
    """
    ((name, given),) = weight.items()
    checked = check_fraction(given, name) or 0.0
    return {
        "limit": check_limit(limit),
        "candidates": candidate_count(limit, checked),
        name: checked,
        "min_similarity": check_similarity(min_similarity),
    }
