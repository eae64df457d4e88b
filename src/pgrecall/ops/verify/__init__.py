"""``verify``: whether a database is the specified agent memory, shown by looking at it.

Everything runs in one transaction that is rolled back, and writes only to temporary tables.
``docs/decisions/0006-verify.md`` says why.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pgrecall.ops.checks import Check, Seen, exit_code
from pgrecall.ops.verify import cases, catalog, pooler, rights, schema, steps
from pgrecall.ops.verify.cases import Subject
from pgrecall.ops.verify.session import Session, look, open_session

__all__ = ["Check", "exit_code", "verify"]

Observe = Callable[[Subject], Seen]

_CASES: tuple[tuple[str, str, Observe], ...] = (
    ("TC-DB-001", "pgvector extension installation", cases.extension),
    ("TC-DB-002", "database creation and permissions", cases.permissions),
    ("TC-DB-003", "schema deployment", cases.tables),
    ("TC-DB-005", "HNSW index effectiveness", cases.index_used),
)
_STEPS: tuple[tuple[str, str, Observe], ...] = (
    ("step-1", "pgvector extension installed and functional", steps.vector_works),
    ("step-2", "database created with proper permissions", rights.permissions),
    ("step-3", "core tables created with correct schema", steps.core_tables),
    ("step-4", "HNSW indexes created on vector columns", steps.vector_indexes),
)
_CATALOG: tuple[tuple[str, str, Observe], ...] = (
    ("catalog-extensions", "extensions", schema.extensions),
    ("catalog-columns", "columns", partial(schema.section, name="columns")),
    ("catalog-constraints", "constraints", partial(schema.section, name="constraints")),
    ("catalog-indexes", "indexes", partial(schema.section, name="indexes")),
    ("catalog-functions", "functions", partial(schema.section, name="functions")),
    ("catalog-triggers", "triggers", partial(schema.section, name="triggers")),
    ("catalog-views", "views", schema.views),
    ("catalog-default-privileges", "default privileges", rights.default_privileges),
    ("catalog-unknown", "objects beside the specification's", schema.unknown),
)


_ORDER = (
    *(f"TC-DB-00{number}" for number in range(1, 6)),
    *(f"step-{number}" for number in range(1, 10)),
    *(id_ for id_, _, _ in _CATALOG),
)


def verify(
    owner_dsn: str,
    *,
    pooler_dsn: str | None = None,
    pooler_claimed: bool = True,
) -> list[Check]:
    """Check a database against the specification, leaving nothing behind.

    Args:
        owner_dsn: Connection string of the owner role, to the server itself.
        pooler_dsn: Connection string of a connection pooler to the same database, if there is one.
        pooler_claimed: Whether it certainly leads through one; else it is only used if it does.

    Returns:
        The test cases, the validation steps and the catalog comparison, in this order.

    Raises:
        Unavailable: The server could not be reached.
        DatabaseError: The connection broke on the way.
    """
    with open_session(owner_dsn) as session:
        subject = _examine(session)
        checks = [_run(subject, *entry) for entry in (*_CASES, *_STEPS)]
        way = pooler.find(session, pooler_dsn, claimed=pooler_claimed)
        checks += _similarity(subject, way)
        checks.append(
            look(
                "step-6",
                "PgBouncer connection pooling works",
                partial(pooler.pooler, session, way),
                session,
            )
        )
        checks.append(_run(subject, "step-7", "cleanup functions execute", steps.functions_work))
        title = "monitoring configured and showing metrics"
        checks.append(_run(subject, "step-8", title, steps.monitoring))
        title = "backup procedures include the database"
        checks.append(_run(subject, "step-9", title, steps.backups))
        checks += [_run(subject, *entry) for entry in _CATALOG]
    return sorted(checks, key=lambda check: _ORDER.index(check.id))


def _run(subject: Subject, id_: str, title: str, observe: Observe) -> Check:
    return look(id_, title, partial(observe, subject), subject.session)


def _similarity(subject: Subject, way: pooler.Way) -> list[Check]:
    """Measure and judge similarity search on the same thousand vectors; making them takes time."""
    title = "vector similarity search returns results"
    ranked: list[Check] = []

    def rank() -> None:
        ranked.append(_run(subject, "step-5", title, steps.search_results))

    speed = _run(
        subject,
        "TC-DB-004",
        "vector similarity search performance",
        partial(cases.speed, meanwhile=rank, way=way),
    )
    if not ranked:
        ranked.append(
            Check(
                id="step-5",
                title=title,
                status="failed",
                evidence=f"no search was possible: {speed.evidence}",
                remedy=speed.remedy,
            )
        )
    return [speed, *ranked]


def _examine(session: Session) -> Subject:
    rows = session.rows("embedding_dimensions")
    lengths = {row["relation"]: row["dimensions"] for row in rows}
    length = lengths.get("agent_episodes", -1)
    storage = rows[0]["type"].removesuffix(f"({length})") if rows else ""
    known = length > 0 and storage.rpartition(".")[2] in ("vector", "halfvec")
    dimensions = length if known else None
    return Subject(
        session=session,
        server=session.one("server"),
        dimensions=dimensions,
        extensions={row["name"]: row["found"] for row in session.rows("extensions")},
        available=frozenset(row["name"] for row in session.rows("available_extensions")),
        catalog=catalog.read(session),
        expected=catalog.expected(dimensions, storage if known else "vector"),
    )
