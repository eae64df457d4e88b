"""The specification's test cases TC-DB-001 to TC-DB-005."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from pgrecall.driver import connect
from pgrecall.errors import PgrecallError
from pgrecall.ops.checks import Seen
from pgrecall.ops.verify import plans, twin
from pgrecall.ops.verify.catalog import TABLES, Catalog
from pgrecall.ops.verify.pooler import Way
from pgrecall.ops.verify.session import QUERIES, Session, describe

LIMIT_MS = 100.0
"""The specification's limit for one similarity search over a thousand vectors."""

VECTOR_INDEX = "idx_episodes_embedding"
_RUNS = 11
_OLDEST_SPECIFIED = (0, 5, 0)
_OLDEST_SUPPORTED = (0, 8, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The database that is looked at.

    Attributes:
        dimensions: Dimensions of the episodes' embeddings; None when the column has none.
        extensions: Version of each installed extension, of those that the specification names.
        catalog: What schema ``public`` holds.
        expected: What it should hold.
    """

    session: Session
    server: dict[str, object]
    dimensions: int | None
    extensions: dict[str, str]
    available: frozenset[str]
    catalog: Catalog
    expected: Catalog


def parse_version(text: str) -> tuple[int, ...]:
    """Return the numbers of a version such as ``0.8.1``."""
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


def extension(subject: Subject) -> Seen:
    """TC-DB-001: pgvector is installed."""
    version = subject.extensions.get("vector")
    if version is None:
        return Seen(
            "failed",
            "extension vector is not installed, expected version 0.5.0 or later",
            "as a superuser in this database: CREATE EXTENSION vector",
        )
    evidence = f"extension vector {version} on PostgreSQL {subject.server['version']}"
    if parse_version(version) < _OLDEST_SPECIFIED:
        return Seen("failed", f"{evidence}, expected 0.5.0 or later", _UPDATE)
    if parse_version(version) < _OLDEST_SUPPORTED:
        return Seen("warning", f"{evidence}; pgrecall needs 0.8 for iterative scans", _UPDATE)
    return Seen("passed", evidence)


_UPDATE = "install a newer pgvector package, then: ALTER EXTENSION vector UPDATE"


def permissions(subject: Subject) -> Seen:
    """TC-DB-002: the owner can create and drop a table."""
    session, server = subject.session, subject.server
    session.run("probe_table")
    session.run("drop_probe_table")
    return Seen(
        "passed",
        f"a table was created and dropped in public by {server['role']}, and rolled back",
    )


def tables(subject: Subject) -> Seen:
    """TC-DB-003: the five tables are there."""
    found = subject.catalog["tables"]
    missing = [name for name in TABLES if name not in found]
    if missing:
        return Seen(
            "failed",
            f"missing: {', '.join(missing)}; expected {', '.join(TABLES)}",
            "run `pgrecall migrate`, or restore the table from a backup",
        )
    others = sorted(set(found) - set(TABLES))
    note = f"; beside them in public: {', '.join(others)}" if others else ""
    return Seen("passed", f"5 of 5: {', '.join(TABLES)}{note}")


def speed(subject: Subject, meanwhile: Callable[[], None], way: Way) -> Seen:
    """TC-DB-004: a similarity search over a thousand vectors takes less than 100 ms.

    Args:
        subject: The database.
        meanwhile: Called while the thousand vectors are there.
        way: The way through a pooler, where the search has to be as fast.
    """
    session = subject.session
    if subject.dimensions is None:
        return no_dimensions()
    parameters = {"dimensions": subject.dimensions}
    twin.make_searchable(session, subject.dimensions)
    times = _time(session, parameters)
    plan = session.one("explain_search", parameters)["QUERY PLAN"][0]["Plan"]
    meanwhile()
    with session.attempt():
        session.run("force_index")
        indexed = _time(session, parameters)
        forced = session.one("explain_search", parameters)["QUERY PLAN"][0]["Plan"]
    median, worst = statistics.median(times), max(times)
    evidence = (
        f"{twin.VECTORS} vectors of {subject.dimensions} dimensions, {_RUNS} searches: median "
        f"{median:.1f} ms, worst {worst:.1f} ms, limit {LIMIT_MS:.0f} ms ({plans.path(plan)}); "
        f"without sequential scans: median {statistics.median(indexed):.1f} ms "
        f"({plans.path(forced)})"
    )
    remedy = "look at the load, memory and disks of the server: `pgrecall doctor`"
    pooled = _through_pooler(way, subject.dimensions)
    if isinstance(pooled, Seen):
        return Seen("failed", f"{evidence}; through the pooler: {pooled.evidence}", pooled.remedy)
    if pooled:
        evidence += (
            f"; through the pooler: median {statistics.median(pooled):.1f} ms, worst "
            f"{max(pooled):.1f} ms"
        )
        median, worst = max(median, statistics.median(pooled)), max(worst, *pooled)
    if median >= LIMIT_MS:
        return Seen("failed", evidence, remedy)
    if worst >= LIMIT_MS:
        return Seen("warning", evidence, remedy)
    return Seen("passed", evidence)


def _through_pooler(way: Way, dimensions: int) -> list[float] | Seen:
    """Return the times of the same searches through the pooler, or what kept them from running.

    They run as the role that clients have, in one transaction that is rolled back.
    """
    if way.dsn is None:
        refusal = way.refusal
        return refusal if refusal is not None and refusal.status == "failed" else []
    parameters = {"dimensions": dimensions}
    try:
        with (
            connect(way.dsn, purpose="verify") as connection,
            connection.transaction(force_rollback=True),
        ):
            session = Session(connection, QUERIES)
            session.run("pooled_session")
            twin.make_searchable(session, dimensions)
            return _time(session, parameters)
    except (psycopg.Error, PgrecallError) as error:
        return Seen(
            "failed",
            describe(error) if isinstance(error, psycopg.Error) else error.message,
            "see step-6; the role of PGRECALL_DSN must be allowed to create temporary tables",
        )


def _time(session: Session, parameters: dict[str, int]) -> list[float]:
    times = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        session.rows("search", parameters)
        times.append((time.perf_counter() - started) * 1000)
    return times


def index_used(subject: Subject) -> Seen:
    """TC-DB-005: the planner can answer a similarity search from the vector index."""
    session = subject.session
    if subject.dimensions is None:
        return no_dimensions()
    with session.read_only():
        session.run("force_index")
        row = session.one("explain_real_search", {"dimensions": subject.dimensions})
    explained = row["QUERY PLAN"][0]
    plan = explained["Plan"]
    wanted = f"Index Scan using {VECTOR_INDEX} on agent_episodes"
    evidence = (
        f"{plans.path(plan)}, {plan['Actual Rows']:.0f} rows in "
        f"{explained['Execution Time']:.2f} ms, {plan['Shared Hit Blocks']} buffers hit, "
        f"{plan['Shared Read Blocks']} read"
    )
    if wanted in (plans.name(node) for node in plans.nodes(plan)):
        return Seen("passed", evidence)
    definition = subject.expected["indexes"][VECTOR_INDEX]
    return Seen(
        "failed",
        f"expected: {wanted}; found: {evidence}",
        f"DROP INDEX IF EXISTS public.{VECTOR_INDEX}; {definition}",
    )


def no_dimensions() -> Seen:
    """What is seen where the embedding column is missing or of no fixed length."""
    return Seen(
        "failed",
        "agent_episodes.embedding is missing or has no fixed number of dimensions, expected: "
        "vector(n)",
        "restore the column's type: ALTER TABLE public.agent_episodes ALTER COLUMN embedding "
        "TYPE vector(n)",
    )
