"""Two models side by side, before one takes the place of the other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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
    """What queries find by either model.

    Agents' own queries, as far as some were kept (``PGRECALL_RECALL_SAMPLE_RATE``), then situations
    of stored episodes, themselves left out. All are posed without filters.

    Attributes:
        queries: How many there were.
        posed: How many of them agents had posed.
        overlap: Share of what the one finds that the other finds as well; None without queries.
        recall: Share of the truly nearest that the new index finds.
        old_ms: Median of the milliseconds of a search by the index that serves.
        new_ms: By the new one.
        old_embed_ms: Median of the milliseconds in which a query is embedded.
        new_embed_ms: By the new model.
    """

    queries: int
    posed: int
    overlap: float | None
    recall: float | None
    old_ms: float | None
    new_ms: float | None
    old_embed_ms: float | None
    new_embed_ms: float | None


@dataclass(frozen=True, slots=True)
class _Query:
    itself: UUID | None  # the episode that it was made of
    text: str
    vector: str  # by the model that serves


@dataclass(slots=True)
class _Found:
    queries: int = 0
    posed: int = 0
    overlap: list[float] = field(default_factory=list)
    recall: list[float] = field(default_factory=list)
    old: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)
    old_embed: list[float] = field(default_factory=list)
    new_embed: list[float] = field(default_factory=list)


def compare(run: Statements, old: Chosen | None, new: Chosen | None, count: int) -> Comparison:
    """Search by either model.

    Args:
        run: A connection in autocommit.
        old: What makes queries for the vectors that serve; None if it cannot be had here.
        new: For those beside them; None if they are copies, which the same queries are for.
        count: How many queries.
    """
    found = _Found()
    for query in _queries(run, new, count):
        before: str | None = query.vector
        after = query.vector  # good for copies
        if new is not None:
            after = _embed(new, query.text, found.new_embed)
            before = _embed(old, query.text, found.old_embed) if old is not None else None
        _search_both(run, query, before, after, found)
    return Comparison(
        queries=found.queries,
        posed=found.posed,
        overlap=_of(fmean, found.overlap),
        recall=_of(fmean, found.recall),
        old_ms=_of(median, found.old),
        new_ms=_of(median, found.new),
        old_embed_ms=_of(median, found.old_embed),
        new_embed_ms=_of(median, found.new_embed),
    )


def _queries(run: Statements, new: Chosen | None, count: int) -> Iterator[_Query]:
    posed = run.rows("posed", {"count": count})
    yield from (_Query(None, row["asked"], row["query"]) for row in posed)
    for row in run.rows("situations", {"count": count - len(posed)}):
        text = ""
        if new is not None:
            most = new.embedder.max_tokens
            text = new.renderer.render(row["perception"], {}, {}, max_tokens=most)
            if not text.strip():
                continue
        elif row["query"] is None:
            continue
        yield _Query(row["id"], text, row["query"])


def _search_both(
    run: Statements, query: _Query, before: str | None, after: str, found: _Found
) -> None:
    nearest = _search(run, 1, query.itself, after, found.new)
    truth = _search(run, 1, query.itself, after, None)
    found.queries += 1
    found.posed += query.itself is None
    if truth:
        # By distance, as rows that are equally far are equally right.
        furthest = max(truth.values()) + 1e-6
        found.recall.append(sum(d <= furthest for d in nearest.values()) / len(truth))
    if before is None:
        return
    served = _search(run, 0, query.itself, before, found.old)
    if served:
        found.overlap.append(len(nearest.keys() & served.keys()) / len(served))


def _of(function: Any, values: Sequence[float]) -> float | None:
    return function(values) if values else None


def _embed(chosen: Chosen, text: str, times: list[float]) -> str:
    begun = time.perf_counter()
    (vector,) = chosen.embed([text], "query")
    times.append((time.perf_counter() - begun) * 1000)
    return to_vector(vector, chosen.served.dimensions).to_text()


def _search(
    run: Statements, column: int, itself: UUID | None, query: str, times: list[float] | None
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
