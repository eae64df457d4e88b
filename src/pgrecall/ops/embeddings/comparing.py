"""Two models side by side, before one takes the place of the other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any
from uuid import UUID

from psycopg import sql

from pgrecall.core.vectors import to_vector
from pgrecall.driver import Statements
from pgrecall.embedding.choice import Chosen

WANTED = 10
_COLUMNS = ("embedding", "embedding_beside")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What situations of stored episodes find by either model, themselves left out.

    Attributes:
        queries: How many there were.
        overlap: Share of what the one finds that the other finds as well; None without queries.
        recall: Share of the truly nearest that the new index finds.
        old_ms: Median of the milliseconds of a search by the index that serves.
        new_ms: By the new one.
        old_embed_ms: Median of the milliseconds in which a query is embedded.
        new_embed_ms: By the new model.
    """

    queries: int
    overlap: float | None
    recall: float | None
    old_ms: float | None
    new_ms: float | None
    old_embed_ms: float | None
    new_embed_ms: float | None


def compare(run: Statements, old: Chosen | None, new: Chosen, count: int) -> Comparison:
    """Search by either model.

    Args:
        run: A connection in autocommit.
        old: What makes queries for the vectors that serve; None if it cannot be had here.
        new: For those beside them.
        count: How many queries.
    """
    asked = run.rows("situations", {"count": count})
    overlap: list[float] = []
    recall: list[float] = []
    times: dict[str, list[float]] = {name: [] for name in ("old", "new", "old_embed", "new_embed")}
    for row in asked:
        text = new.renderer.render(row["perception"], {}, {}, max_tokens=new.embedder.max_tokens)
        if not text.strip():
            continue
        vector = _embed(new, text, times["new_embed"])
        found = _search(run, 1, row["id"], vector, times["new"])
        truth = _search(run, 1, row["id"], vector, None)
        if truth:
            # By distance, as rows that are equally far are equally right.
            furthest = max(truth.values()) + 1e-6
            right = sum(distance <= furthest for distance in found.values())
            recall.append(right / len(truth))
        if old is not None:
            before = _search(run, 0, row["id"], _embed(old, text, times["old_embed"]), times["old"])
            if before:
                overlap.append(len(found.keys() & before.keys()) / len(before))
    return Comparison(
        queries=len(times["new"]),
        overlap=_of(fmean, overlap),
        recall=_of(fmean, recall),
        old_ms=_of(median, times["old"]),
        new_ms=_of(median, times["new"]),
        old_embed_ms=_of(median, times["old_embed"]),
        new_embed_ms=_of(median, times["new_embed"]),
    )


def _of(function: Any, values: Sequence[float]) -> float | None:
    return function(values) if values else None


def _embed(chosen: Chosen, text: str, times: list[float]) -> str:
    begun = time.perf_counter()
    (vector,) = chosen.embedder.embed([text], "query")
    times.append((time.perf_counter() - begun) * 1000)
    return to_vector(vector, chosen.served.dimensions).to_text()


def _search(
    run: Statements, column: int, itself: UUID, query: str, times: list[float] | None
) -> dict[UUID, float]:
    """Return how far the nearest are, by the index or, where nothing is timed, exactly."""
    nearest: Any = sql.SQL(run.texts["nearest"]).format(column=sql.Identifier(_COLUMNS[column]))
    values = {"id": itself, "query": query, "count": WANTED}
    with run.connection.transaction():
        run.rows("search_exactly" if times is None else "search_by_index")
        begun = time.perf_counter()
        found = run.connection.execute(nearest, values).fetchall()
        if times is not None:
            times.append((time.perf_counter() - begun) * 1000)
    return {row["id"]: row["distance"] for row in found if row["distance"] is not None}
