"""What is done with the hits of a recall: re-ranking, and the episodes next in time."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from pgrecall._async.database import AsyncDatabase
from pgrecall._async.runtime import call_blocking
from pgrecall.core.checks import MAX_LIMIT, check_limit, check_ttl
from pgrecall.core.episode_rows import beside
from pgrecall.errors import InvalidInput
from pgrecall.models import Hits, Recalled, RecalledKnowledge
from pgrecall.reranking import Reranker
from pgrecall.sql import statement

RERANK_SECONDS = 1.0
RERANK_TOKENS = 512
BATCH = 8
"""Texts that a re-ranker is given at once; between batches the clock is read."""

Hit = TypeVar("Hit", bound=Recalled | RecalledKnowledge)

logger = logging.getLogger("pgrecall")


def candidates(limit: int) -> int:
    """Return how many hits are looked at again where so many are wanted."""
    return min(max(3 * check_limit(limit), 30), MAX_LIMIT)


async def reranked(
    hits: Hits[Hit],
    query: str,
    reranker: Reranker,
    budget_seconds: float,
    to_text: Callable[[Hit], str],
    limit: int,
) -> Hits[Hit]:
    """Return hits in the order of a re-ranker; those that it had no time for come last.

    Args:
        hits: Best first.
        query: What was asked for, in words.
        reranker: Tells how well texts answer a query.
        budget_seconds: When no other batch is begun.
        to_text: Makes the text of a hit.
        limit: How many to return.

    Raises:
        InvalidInput: The re-ranker does not return a finite number for each text.
    """
    seconds = (check_ttl(budget_seconds, "rerank_seconds") or timedelta()).total_seconds()
    begun = time.monotonic()
    ranked: list[Hit] = []
    while len(ranked) < len(hits) and (not ranked or time.monotonic() - begun < seconds):
        batch = hits[len(ranked) : len(ranked) + BATCH]
        scores = await call_blocking(reranker, query, [to_text(hit) for hit in batch])
        ranked += [
            replace(hit, reranked=_number(score, reranker))
            for hit, score in zip(batch, _all(scores, len(batch), reranker), strict=True)
        ]
    if len(ranked) < len(hits):
        logger.info("re-ranked %d of %d hits in %g s", len(ranked), len(hits), seconds)
    rest: list[Hit] = hits[len(ranked) :]
    ranked.sort(key=lambda hit: -(hit.reranked or 0.0))
    return Hits([*ranked, *rest][:limit])


async def with_neighbours(
    database: AsyncDatabase, hits: Hits[Recalled], connection: AsyncConnection[Any] | None
) -> Hits[Recalled]:
    """Return hits with the episodes next in time."""
    rows = await database.fetch(
        statement("episodes", "neighbours"),
        {"episode_ids": [hit.episode.episode_id for hit in hits]},
        tuple_row,
        connection=connection,
    )
    return Hits(beside(hits, rows))


def _all(scores: Sequence[float], count: int, reranker: Reranker) -> Sequence[float]:
    if len(scores) != count:
        raise InvalidInput(f"{reranker!r} returned {len(scores)} numbers for {count} texts")
    return scores


def _number(score: float, reranker: Reranker) -> float:
    number = float(score)
    if not math.isfinite(number):
        raise InvalidInput(f"{reranker!r} returned {number}", hint="it must return finite numbers")
    return number
