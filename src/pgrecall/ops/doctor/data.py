"""Checks of the rows: statistics, dead rows, evidence."""

from __future__ import annotations

from pgrecall.ops.checks import Seen
from pgrecall.ops.doctor.facts import Facts, Rows

_FEW_ROWS = 1000
# What autovacuum leaves unanalyzed; the planner needs no help with so few rows.
_TINY = 50
_DEAD_SHARE = 0.2
_CHANGED_SHARE = 0.5
_MANY_RECENT = 20_000
"""Recent episodes, of which 10,000 double the time of a recall."""
_INTENDED = "cardinality(supporting_episodes) >= 3"


def statistics(facts: Facts) -> Seen:
    """The planner knows the tables."""
    never = [table for table in facts.tables if table.live > _TINY and not table.analyzed]
    stale = [
        table
        for table in facts.tables
        if table.analyzed and table.changed > max(_FEW_ROWS, table.live * _CHANGED_SHARE)
    ]
    faults = [f"{table.name} was never analyzed ({table.live} rows)" for table in never]
    faults += [f"{table.name} changed by {table.changed} rows since" for table in stale]
    if faults:
        return Seen(
            "warning",
            "; ".join(faults),
            "; ".join(f"ANALYZE {table.name}" for table in (*never, *stale)),
        )
    return Seen("passed", f"{len(facts.tables)} tables, statistics up to date where there are rows")


def dead_rows(facts: Facts) -> Seen:
    """Vacuum keeps up."""
    bloated = [
        table
        for table in facts.tables
        if table.dead > _FEW_ROWS and table.dead > (table.live + table.dead) * _DEAD_SHARE
    ]
    if bloated:
        return Seen(
            "warning",
            "; ".join(
                f"{table.name}: {table.dead} dead rows beside {table.live} live ones"
                for table in bloated
            ),
            "; ".join(f"VACUUM (ANALYZE) {table.name}" for table in bloated),
        )
    return Seen("passed", f"{sum(table.dead for table in facts.tables)} dead rows in all")


def recent(facts: Facts) -> Seen:
    """What bursts brought is merged into the vector index before it slows recalls down."""
    if facts.recent is None:
        return Seen(
            "not configured", "this revision of the schema has none", "run `pgrecall migrate`"
        )
    evidence = f"{facts.recent:,} episodes of bursts stand beside the vector index"
    if facts.recent > _MANY_RECENT:
        return Seen(
            "warning",
            f"{evidence}, and every recall reads all of them",
            "pgrecall episodes merge; or keep one running: pgrecall episodes merge --loop",
        )
    return Seen("passed", evidence)


def evidence(facts: Facts) -> Seen:
    """Active knowledge rests on three episodes, and the schema enforces it."""
    if facts.lacking_evidence is None:
        return Seen("failed", "table agent_knowledge is missing", "run `pgrecall verify`")
    intended = _INTENDED in (facts.evidence_constraint or "")
    if facts.lacking_evidence.count:
        return Seen(
            "warning",
            "active knowledge with fewer than three supporting episodes: "
            f"{_name(facts.lacking_evidence)}; chk_min_supporting_episodes is "
            f"{facts.evidence_constraint or 'missing'}",
            "give them three supporting episodes, or UPDATE agent_knowledge SET is_active = false "
            "for them; then run `pgrecall init` again, which tightens the check",
        )
    if not intended:
        return Seen(
            "warning",
            f"chk_min_supporting_episodes is {facts.evidence_constraint or 'missing'}, which lets "
            "active knowledge without evidence in; no row violates the intended check",
            "run `pgrecall init` again, which tightens the check",
        )
    return Seen("passed", "every active row has three supporting episodes, and the check is there")


def dangling_evidence(facts: Facts) -> Seen:
    """The episodes that knowledge rests on still exist."""
    if facts.dangling_evidence is None:
        return Seen("failed", "a table of the memory is missing", "run `pgrecall verify`")
    if facts.dangling_evidence.count:
        return Seen(
            "warning",
            "active knowledge points at episodes that were deleted: "
            f"{_name(facts.dangling_evidence)}",
            "look at it with `pgrecall knowledge show ID`, and retire what no longer holds: "
            "`pgrecall knowledge retire ID`",
        )
    return Seen("passed", "every episode that active knowledge points at exists")


def _name(rows: Rows) -> str:
    first = rows.first or []
    more = f" and {rows.count - len(first)} more" if rows.count > len(first) else ""
    return f"{rows.count} ({', '.join(first)}{more})"
