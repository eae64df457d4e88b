"""Checks of recall: whether it finds the truth, and whether the codes it relies on are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from pgrecall.driver import Row, Statements
from pgrecall.errors import TimedOut
from pgrecall.ops.checks import Seen, in_bytes
from pgrecall.ops.recall_check import GOOD, Report, Share, measure
from pgrecall.sql import load

if TYPE_CHECKING:
    from pgrecall.ops.doctor.facts import Facts

ENOUGH = 20
"""Measured queries from which on their mean says something."""
WANTED, BROKEN = 0.98, 0.9
"""Mean recall below which is warned, and below which it has failed."""
NOTHING_SHARE = 0.02
"""Share of queries of which nothing right may be found."""
EF_SEARCH = (100, 200, 400, 1000)
"""Values of ``hnsw.ef_search`` that are tried."""
EF_CONSTRUCTION = 200
"""What an index is to be built with where searching it longer does not help."""
_LINKS = 16  # the specification's m

BUDGET_SECONDS = 5.0
"""How long is measured, where recall is poor."""
COUNT_SECONDS = 10.0
"""How long codes may be compared with vectors."""
_MEASURED = 50
_MOST, _COMPARED = 10_000, 100
_SHARED = ("app", "readonly", "owner", "monitor")
_CHECK = "run `pgrecall recall-check`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """What was measured of recalls in the last week."""

    queries: int
    recall: float | None
    precision: float | None
    nothing_right: int
    median_ms: float | None

    @property
    def poor(self) -> bool:
        """Whether enough was measured, and it was not good."""
        if self.queries < ENOUGH or self.recall is None:
            return False
        return self.recall < WANTED or self.nothing_right > NOTHING_SHARE * self.queries


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """A vector index that recalls can search; its size in bytes."""

    name: str
    kind: str
    table_name: str
    bytes: int
    dimensions: int
    halved: bool
    m: int
    ef_construction: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """What recalls reached, and what was measured now where that was poor.

    Attributes:
        now: What was measured now; None where nothing had to be, or not even one exact search was
            done in time.
    """

    accuracy: Accuracy
    indexes: tuple[Searched, ...]
    now: Report | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A trigger that keeps codes or words, or should."""

    table_name: str
    name: str
    present: bool
    enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Vectors without codes and codes without vectors, up to some thousands; and stale ones."""

    episodes_missing: int
    episodes_orphaned: int
    knowledge_missing: int
    knowledge_orphaned: int
    stale: int
    compared: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """The codes of vectors: the serving model, and what keeps them.

    Attributes:
        dimensions: Of the serving model; None without one.
        coded: Whether every vector is said to have its code.
        counts: None where it took too long to compare.
    """

    dimensions: int | None
    coded: bool
    triggers: tuple[Trigger, ...]
    counts: Counts | None


def examine_recall(connection: psycopg.Connection[Row], *, role_prefix: str) -> Recall:
    """Return what recalls reached; where that is poor, measure now, for a few seconds."""
    statements = Statements(connection, load("doctor"))
    accuracy = Accuracy(**statements.one("accuracy"))
    now = None
    if accuracy.poor:
        held = statements.value("role_ef_search", {"role": f"{role_prefix}_app"})
        try:
            now = measure(
                connection,
                queries=_MEASURED,
                budget_seconds=BUDGET_SECONDS,
                ef_search=EF_SEARCH,
                current=held,
            )
        except TimedOut:
            now = None  # the judgement says so
    indexes = tuple(Searched(**row) for row in statements.rows("searched_indexes"))
    return Recall(accuracy=accuracy, indexes=indexes, now=now)


def examine_codes(connection: psycopg.Connection[Row]) -> Codes:
    """Return whether the codes are those of the vectors."""
    statements = Statements(connection, load("doctor"))
    models = statements.rows("models")
    return Codes(
        dimensions=models[0]["dimensions"] if models else None,
        coded=bool(models and models[0]["coded"]),
        triggers=tuple(Trigger(**row) for row in statements.rows("triggers")),
        counts=_count(statements) if models else None,
    )


def _count(statements: Statements) -> Counts | None:
    try:
        with statements.connection.transaction(force_rollback=True):
            statements.one("patience", {"milliseconds": round(COUNT_SECONDS * 1000)})
            return Counts(**statements.one("codes", {"most": _MOST, "compared": _COMPARED}))
    except psycopg.errors.QueryCanceled:
        return None


def accuracy(facts: Facts) -> Seen:
    """Recalls find what is nearest."""
    if facts.recall is None:
        return _not_migrated()
    found = facts.recall.accuracy
    if found.queries < ENOUGH or found.recall is None:
        return Seen(
            "not configured",
            f"{found.queries} queries were compared with the truth in the last 7 days, fewer than "
            f"the {ENOUGH} that say something",
            f"{_CHECK}, or `pgrecall monitor`, which does it by itself",
        )
    evidence = (
        f"{found.queries} queries of the last 7 days: recall {found.recall:.3f}, precision "
        f"{_number(found.precision)}, {found.nothing_right} found nothing right, median "
        f"{_ms(found.median_ms)}"
    )
    if not found.poor:
        return Seen("passed", evidence)
    status: Any = "failed" if found.recall < BROKEN else "warning"
    told, remedy = _proposal(facts, facts.recall)
    return Seen(status, f"{evidence}; {told}", remedy)


def _proposal(facts: Facts, recall: Recall) -> tuple[str, str]:
    """Return what was measured now, and what would mend it."""
    now = recall.now
    if now is None:
        return (
            f"{BUDGET_SECONDS:g} s did not suffice to measure one query now",
            f"{_CHECK} --budget 600 --ef-search {_listed(EF_SEARCH)}",
        )
    total = now.total
    if total.recall is None:
        return "now there is no query that anything matches", _CHECK
    told = f"measured now: {_told(now)}"
    if total.recall >= GOOD:
        return (
            f"{told}, so what was wrong is mended",
            f"{_CHECK}, which adds to what is known of the last 7 days",
        )
    if _worst_route(now) != "index":
        return (
            f"{told}; what is missed is missed by {_worst_route(now)}",
            "see the check `codes`; then run `pgrecall recall-check`",
        )
    enough = now.enough
    if enough is not None:
        return f"{told}; {_tries(now)}", _set_ef_search(facts, enough)
    if not now.settings:
        return (
            f"{told}; no query of these could have taken the vector index",
            "see the checks `vector-indexes` and `codes`",
        )
    return f"{told}; {_tries(now)}", _rebuild(facts, recall, now)


def _worst_route(now: Report) -> str:
    """Return the route by which most is missed."""
    return max(now.routes, key=lambda share: share.queries * (1 - (share.recall or 0.0))).name


def _told(now: Report) -> str:
    posed = sum(one.posed for one in now.measured)
    sources = [f"{posed} queries that agents posed"] if posed else []
    if posed < len(now.measured):
        sources.append(f"{len(now.measured) - posed} stored vectors")
    routes = ", ".join(f"{share.name} {_reached(share)}" for share in now.routes)
    return f"{' and '.join(sources)} with ef_search {now.ef_search}: {routes}"


def _tries(now: Report) -> str:
    tried = "; ".join(f"ef_search {share.name}: {_reached(share)}" for share in now.settings)
    return f"by the index with {tried}"


def _reached(share: Share) -> str:
    return f"recall {_number(share.recall)} in {_ms(share.median_ms)}"


def _set_ef_search(facts: Facts, enough: Share) -> str:
    present = {role.purpose: role.name for role in facts.roles}
    statements = "; ".join(
        load("remedies")["set_ef_search"].format(
            role=present[purpose], database=facts.server.database, ef_search=enough.name
        )
        for purpose in _SHARED
        if purpose in present
    )
    return (
        f"as a superuser: {statements}; it reached {_reached(enough)}, and holds for new sessions"
    )


def _rebuild(facts: Facts, recall: Recall, now: Report) -> str:
    """Return the statements that build the index anew, better or smaller."""
    missed = Counter(
        one.kind for one in now.measured for tried in one.tried if tried.right < one.there
    )
    ((kind, _),) = missed.most_common(1)
    index = next((one for one in recall.indexes if one.kind == kind), None)
    if index is None:
        return f"see the check `vector-indexes`: {kind} has none that is valid"
    size = in_bytes(index.bytes)
    column, why = f"embedding {facts.storage}_cosine_ops", f"it has {size} now"
    whole = facts.storage == "vector"
    if whole and (index.halved or index.bytes > facts.server.shared_buffers):
        column = f"(embedding::halfvec({index.dimensions})) halfvec_cosine_ops"
        if not index.halved:
            why = (
                f"in half precision it has about {in_bytes(index.bytes // 2)} instead of {size}, "
                f"of which shared_buffers holds {in_bytes(facts.server.shared_buffers)}"
            )
    statements = " ".join(
        load("remedies")["rebuild_vector_index"]
        .format(
            index=index.name,
            wanted=f"idx_{kind}_embedding",
            table=index.table_name,
            column=column,
            m=max(_LINKS, index.m if index.ef_construction < EF_CONSTRUCTION else 2 * index.m),
            ef_construction=max(EF_CONSTRUCTION, index.ef_construction),
        )
        .split()
    )
    return (
        f"build {index.name} anew ({why}), then run `pgrecall recall-check`; as the owner: "
        f"{statements}"
    )


def codes(facts: Facts) -> Seen:
    """Every vector has its code, and the triggers that keep them are at work."""
    if facts.codes is None:
        return _not_migrated()
    found = facts.codes
    faults, remedies = trigger_faults(found.triggers)
    remedies += [_code_all()] if faults else []
    failed = bool(faults)
    lengths = {column.dimensions for column in facts.columns}
    if found.dimensions is None:
        failed = True
        faults.append("no model serves, so nothing is coded")
        remedies.append(_code_all())
    elif lengths != {found.dimensions}:
        failed = True
        told = ", ".join(f"{column.name} {column.type}" for column in facts.columns)
        faults.append(f"the codes are of vectors of {found.dimensions} dimensions, not of {told}")
        remedies.append(_code_all())
    elif not found.coded:
        faults.append("coding was never completed, so recalls do without codes")
        remedies.append(_code_all())
    if found.counts is not None:
        count_faults, remedy = _count_faults(found.counts)
        faults += count_faults
        remedies += [remedy] if remedy is not None else []
    if faults:
        told = "; ".join(dict.fromkeys(remedies))
        return Seen("failed" if failed else "warning", "; ".join(faults), f"as the owner: {told}")
    if found.counts is None:
        return Seen(
            "not configured",
            f"codes could not be compared with vectors within {COUNT_SECONDS:g} s; the model and "
            "the triggers are as they should be",
        )
    return Seen(
        "passed",
        f"every vector of {found.dimensions} dimensions has its code, {found.counts.compared} of "
        f"them compared; {len(found.triggers)} triggers keep them",
    )


def trigger_faults(triggers: Sequence[Trigger]) -> tuple[list[str], list[str]]:
    """Return which triggers are missing or disabled, and the statements that mend it."""
    faults, remedies = [], []
    for trigger in triggers:
        where = f"{trigger.name} on {trigger.table_name}"
        if not trigger.present:
            faults.append(f"trigger {where} is missing")
            remedies.append(_trigger_text(trigger))
        elif not trigger.enabled:
            faults.append(f"trigger {where} is disabled")
            remedies.append(
                load("remedies")["enable_trigger"].format(
                    table=trigger.table_name, trigger=trigger.name
                )
            )
    return faults, remedies


def _trigger_text(trigger: Trigger) -> str:
    """Return the statement of the migration that made a trigger last."""
    from pgrecall.migrations import SQL_PACKAGE

    files = ("1.6.0_recent", "1.3.0_codes", "1.4.0_words")
    made = ";\n".join(load(file, SQL_PACKAGE)["triggers"] for file in files)
    statements = "\n".join(line for line in made.splitlines() if not line.startswith("--"))
    for text in statements.split(";"):
        words = " ".join(text.split())
        if f"{trigger.name} " in words and f"public.{trigger.table_name} " in words:
            return words
    raise LookupError(f"no migration makes the trigger {trigger.name}")


def _count_faults(counts: Counts) -> tuple[list[str], str | None]:
    faults = [
        f"{_many(count)} {what}"
        for count, what in (
            (counts.episodes_missing, "episodes have a vector and no code"),
            (counts.knowledge_missing, "pieces of knowledge have a vector and no code"),
            (counts.episodes_orphaned, "codes of episodes have no vector"),
            (counts.knowledge_orphaned, "codes of knowledge have no vector"),
        )
        if count
    ]
    if counts.stale:
        faults.append(f"{counts.stale} of {counts.compared} codes compared are of another vector")
        return faults, " ".join(load("remedies")["code_anew"].split())
    return faults, _code_all() if faults else None


def _code_all() -> str:
    return load("remedies")["code_all"]


def _many(count: int) -> str:
    return f"{count:,} or more" if count >= _MOST else f"{count:,}"


def _not_migrated() -> Seen:
    return Seen(
        "not configured",
        "this revision of the schema has no codes and no samples of queries",
        "run `pgrecall migrate`",
    )


def _listed(values: Sequence[int]) -> str:
    return ",".join(map(str, values))


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _ms(value: float | None) -> str:
    return "unknown time" if value is None else f"{value:.1f} ms"
