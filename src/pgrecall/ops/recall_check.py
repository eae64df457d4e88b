"""``recall-check``: queries that agents posed, searched as a recall does and exactly."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

import orjson
import psycopg

from pgrecall import driver
from pgrecall.core.checks import check_limit
from pgrecall.driver import Row, Statements
from pgrecall.errors import InvalidInput, SchemaMissing, TimedOut
from pgrecall.models import Route
from pgrecall.ops.pace import Advance
from pgrecall.sql import load

WANTED = 10
"""Rows that are looked for where a stored vector stands for a query."""
GOOD = 0.99
"""Recall that a setting must reach to be proposed."""
NOT_SET = 40
"""``hnsw.ef_search`` of pgvector itself, which recalls take for not set."""
MOST_EF_SEARCH = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query to be searched; ``query`` and ``filter`` as the texts of a vector and of JSON."""

    kind: str
    query: str = field(repr=False)
    wanted: int
    filter: str
    project_id: str | None
    posed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A search by the index with one ``hnsw.ef_search``."""

    ef_search: int
    found: int
    right: int
    recall: float
    milliseconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One query: what a recall found of it, beside the truth.

    Attributes:
        kind: ``"episodes"`` or ``"knowledge"``.
        posed: Whether an agent posed it; else it is a stored vector.
        route: The route that was chosen.
        there: Rows that an exact search found.
        found: Rows that the recall found.
        right: Those of them that are as near as the nearest.
        recall: ``right / there``; None where nothing matches.
        precision: ``right / found``; None where nothing was found.
        milliseconds: How long the recall searched, its choice of a route with it.
        exact_ms: How long the exact search took.
        tried: Searches by the index with other settings.
    """

    kind: str
    posed: bool
    filter: dict[str, Any]
    project_id: str | None
    route: Route
    there: int
    found: int
    right: int
    recall: float | None
    precision: float | None
    milliseconds: float
    exact_ms: float
    tried: tuple[Tried, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What several searches reached together; a query where nothing matches is left out.

    Attributes:
        name: The route, or the value of ``hnsw.ef_search``.
        queries: How many they were.
        recall: Their mean; None without any.
        precision: Their mean.
        nothing_right: Queries of which nothing was found that is right.
        median_ms: The median of their milliseconds.
    """

    name: str
    queries: int
    recall: float | None
    precision: float | None
    nothing_right: int
    median_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was measured.

    Attributes:
        measured: The queries.
        wanted: How many were to be measured at most.
        cut_short: Whether the budget ended it.
        recorded: Whether it was written into ``agent_memory_metrics``.
        ef_search: What recalls of this role search the index with.
    """

    measured: tuple[Measured, ...]
    wanted: int
    cut_short: bool
    recorded: bool
    ef_search: int

    @property
    def total(self) -> Share:
        """All queries together."""
        return _share("all", self.measured)

    @property
    def exact_ms(self) -> float | None:
        """The median of the exact searches, in milliseconds."""
        return median(one.exact_ms for one in self.measured) if self.measured else None

    @property
    def routes(self) -> tuple[Share, ...]:
        """The queries by the route that they took."""
        names = sorted({one.route for one in self.measured})
        return tuple(
            _share(name, [one for one in self.measured if one.route == name]) for name in names
        )

    @property
    def settings(self) -> tuple[Share, ...]:
        """The searches by the index, by ``hnsw.ef_search``, the smallest first."""
        tries = [tried for one in self.measured for tried in one.tried]
        return tuple(
            _share(str(ef), [tried for tried in tries if tried.ef_search == ef])
            for ef in sorted({tried.ef_search for tried in tries})
        )

    @property
    def enough(self) -> Share | None:
        """The smallest ``hnsw.ef_search`` that reaches :data:`GOOD`; None if none does."""
        good = (one for one in self.settings if one.recall is not None and one.recall >= GOOD)
        return next(good, None)


def _share(name: str, searches: Sequence[Measured] | Sequence[Tried]) -> Share:
    counted = [one for one in searches if one.recall is not None]
    recalls = [one.recall for one in counted if one.recall is not None]
    return Share(
        name=name,
        queries=len(counted),
        recall=fmean(recalls) if counted else None,
        precision=fmean(one.right / one.found if one.found else 0.0 for one in counted)
        if counted
        else None,
        nothing_right=sum(one.right == 0 for one in counted),
        median_ms=median(one.milliseconds for one in counted) if counted else None,
    )


def recall_check(
    dsn: str,
    *,
    queries: int = 20,
    budget_seconds: float = 60.0,
    ef_search: Sequence[int] = (),
    on_progress: Advance | None = None,
) -> Report:
    """Search queries as a recall does and exactly, and write down how much of the truth was found.

    Args:
        dsn: Connection string of the application role or of the owner; it may lead through a
            pooler.
        queries: How many at most, 1 to 10,000: the newest that agents posed, then stored vectors.
        budget_seconds: When to stop. A search that runs then is cancelled, and not counted.
        ef_search: Values of ``hnsw.ef_search`` to search the index with besides.
        on_progress: Told after each query.

    Raises:
        InvalidInput: A number cannot be meant.
        TimedOut: The budget did not even suffice for one query.
        DatabaseError: The database could not be reached, or refused.
    """
    check_limit(queries, "queries")
    if not 0 < budget_seconds <= 86_400:
        raise InvalidInput(
            f"the budget is {budget_seconds:g} s", hint="give a number of seconds, up to a day"
        )
    values = check_ef_search(ef_search)
    with driver.connect(dsn, purpose="recall-check") as connection:
        try:
            return measure(
                connection,
                queries=queries,
                budget_seconds=budget_seconds,
                ef_search=values,
                record=True,
                on_progress=on_progress,
            )
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
            raise SchemaMissing(
                "the database keeps no queries to check recall with",
                hint="run `pgrecall migrate`, or `pgrecall init` where there is no memory yet",
            ) from error
        except psycopg.Error as error:
            raise driver.translate(error) from error


def check_ef_search(values: Sequence[int]) -> tuple[int, ...]:
    """Return values of ``hnsw.ef_search``, each once, the smallest first.

    Raises:
        InvalidInput: One is no such value.
    """
    for value in values:
        if not 1 <= value <= MOST_EF_SEARCH:
            raise InvalidInput(
                f"ef_search is {value}", hint=f"give numbers from 1 to {MOST_EF_SEARCH:,}"
            )
        if value == NOT_SET:
            raise InvalidInput(
                f"ef_search {NOT_SET} cannot be measured: it is pgvector's own default, which "
                "recalls take for not set, and search with 100",
                hint=f"give {NOT_SET - 1} or {NOT_SET + 1}",
            )
    return tuple(sorted(set(values)))


def measure(
    connection: psycopg.Connection[Row],
    *,
    queries: int,
    budget_seconds: float,
    ef_search: Sequence[int] = (),
    current: int | None = None,
    record: bool = False,
    on_progress: Advance | None = None,
) -> Report:
    """Search queries on an open connection; see :func:`recall_check`.

    Args:
        connection: Each search is a transaction, or a savepoint of the one that is open.
        queries: How many at most.
        budget_seconds: When to stop.
        ef_search: Checked values of ``hnsw.ef_search`` to try.
        current: What recalls search the index with, where the session's own setting isn't meant.
        record: Whether to write it into ``agent_memory_metrics``; a standby takes nothing.
        on_progress: Told after each query.

    Raises:
        TimedOut: The budget did not even suffice for one query.
        psycopg.Error: The database refused.
    """
    statements = Statements(connection, load("recall_check"))
    situation = statements.one("situation")
    search = _Search(statements, deadline=time.monotonic() + budget_seconds, current=current)
    recording = record and not situation["in_recovery"]
    begun = time.monotonic()
    asked = _queries(statements, queries)
    measured: list[Measured] = []
    cut_short = False
    for query in asked:
        if time.monotonic() >= search.deadline:
            cut_short = True
            break
        # Each value comes first as often as the others, so that none finds all pages warm.
        first = len(measured) % max(1, len(ef_search))
        try:
            one = search.measure(query, [*ef_search[first:], *ef_search[:first]])
        except psycopg.errors.QueryCanceled:
            if time.monotonic() < search.deadline:
                raise  # somebody else ended it
            cut_short = True
            break
        measured.append(one)
        if recording and one.recall is not None:
            _record(statements, one)
        if on_progress is not None:
            rate = len(measured) / max(time.monotonic() - begun, 1e-3)
            on_progress(len(measured), len(asked), f"{len(measured)} queries", rate)
    if cut_short and not measured:
        raise TimedOut(
            f"{budget_seconds:g} s did not suffice for one exact search", hint="give more of them"
        )
    return Report(
        measured=tuple(measured),
        wanted=queries,
        cut_short=cut_short,
        recorded=recording and any(one.recall is not None for one in measured),
        ef_search=situation["ef_search"] if current is None else current,
    )


def _queries(statements: Statements, count: int) -> list[Query]:
    rows = statements.rows("posed", {"count": count})
    if len(rows) < count:
        rows += statements.rows("stored", {"count": count - len(rows), "wanted": WANTED})
    return [Query(**row) for row in rows]


def _record(statements: Statements, one: Measured) -> None:
    statements.rows(
        "record",
        {
            "operation": "recall_similar" if one.kind == "episodes" else "recall_knowledge",
            "milliseconds": one.milliseconds,
            "found": one.found,
            "recall": one.recall,
            "precision": one.precision,
            "project_id": one.project_id,
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    distances: tuple[float, ...]
    route: Route
    milliseconds: float
    indexable: bool

    def right(self, truth: Sequence[float]) -> int:
        # By distance rather than by row: of several that are equally near, any is right.
        return sum(distance <= truth[-1] for distance in self.distances) if truth else 0


@dataclass(frozen=True, slots=True)
class _Search:
    statements: Statements
    deadline: float = field(kw_only=True)
    current: int | None = field(kw_only=True)

    def measure(self, query: Query, ef_search: Sequence[int]) -> Measured:
        near = self.find(query, ef_search=self.current)
        exact = self.find(query, route="exact")
        right, there = near.right(exact.distances), len(exact.distances)
        tried: tuple[Tried, ...] = ()
        if near.indexable and there:
            tried = tuple(self._try(query, ef, exact.distances) for ef in ef_search)
        return Measured(
            kind=query.kind,
            posed=query.posed,
            filter=orjson.loads(query.filter),
            project_id=query.project_id,
            route=near.route,
            there=there,
            found=len(near.distances),
            right=right,
            recall=right / there if there else None,
            precision=right / len(near.distances) if near.distances else None,
            milliseconds=near.milliseconds,
            exact_ms=exact.milliseconds,
            tried=tried,
        )

    def _try(self, query: Query, ef_search: int, truth: Sequence[float]) -> Tried:
        found = self.find(query, route="index", ef_search=ef_search)
        right = found.right(truth)
        return Tried(
            ef_search=ef_search,
            found=len(found.distances),
            right=right,
            recall=right / len(truth),
            milliseconds=found.milliseconds,
        )

    def find(
        self, query: Query, *, route: Route | None = None, ef_search: int | None = None
    ) -> _Found:
        with self._transaction():
            if ef_search is not None:
                self.statements.one("ef_search", {"ef_search": ef_search})
            row = self.statements.one(
                "search",
                {
                    "kind": query.kind,
                    "query": query.query,
                    "wanted": query.wanted,
                    "filter": query.filter,
                    "route": route,
                },
            )
        return _Found(**{**row, "distances": tuple(row["distances"])})

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Settings end with it, on a pooler's connection too; what is found is not written."""
        # Not a moment before the deadline, by which its cause is told from others.
        left = max(1, math.ceil((self.deadline - time.monotonic()) * 1000) + 1)
        with self.statements.connection.transaction(force_rollback=True):
            self.statements.one("patience", {"milliseconds": left})
            yield
