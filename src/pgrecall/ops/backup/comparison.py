"""Whether a restored database is the one that was backed up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pgrecall.ops.backup import description
from pgrecall.ops.backup.manifest import Database, Probe, Table
from pgrecall.ops.backup.session import Session
from pgrecall.ops.checks import Seen

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Restored:
    """A restored database beside what its manifest says.

    Attributes:
        session: A connection to it.
        wanted: What the manifest says.
        found: Its tables as they are.
    """

    session: Session
    wanted: Database
    found: dict[str, Table]


def look(session: Session, wanted: Database) -> Restored:
    """Count and sum up what was restored."""
    session.rows("plain_output")
    found = {table.full_name: table for table in description.tables(session)}
    return Restored(session, wanted, found)


def tables(restored: Restored) -> Seen:
    """Every table is there, and no other."""
    wanted = {table.full_name for table in restored.wanted.tables}
    found = set(restored.found)
    problems = [f"{name} is missing" for name in sorted(wanted - found)]
    problems += [f"{name} is not in the manifest" for name in sorted(found - wanted)]
    return _seen(problems, f"{len(found)} tables")


def rows(restored: Restored) -> Seen:
    """Every table has as many rows."""
    problems = [
        f"{table.full_name} has {restored.found[table.full_name].rows:,} of {table.rows:,} rows"
        for table in _present(restored)
        if restored.found[table.full_name].rows != table.rows
    ]
    total = sum(table.rows for table in restored.found.values())
    return _seen(problems, f"{total:,} rows")


def contents(restored: Restored) -> Seen:
    """Every table's rows are the same."""
    problems = [
        f"rows of {table.full_name} differ"
        for table in _present(restored)
        if restored.found[table.full_name].checksum != table.checksum
    ]
    return _seen(problems, f"checksums of {len(restored.found)} tables agree")


def vectors(restored: Restored) -> Seen:
    """Every vector is the same, to the bit."""
    with_vectors = [table for table in _present(restored) if table.vectors is not None]
    if not with_vectors:
        return Seen("not configured", "it has no vectors")
    problems = []
    for table in with_vectors:
        found = restored.found[table.full_name]
        if found.vectors != table.vectors:
            problems.append(
                f"{table.full_name} has {found.vectors or 0:,} of {table.vectors or 0:,} vectors"
            )
        elif found.vector_checksum != table.vector_checksum:
            problems.append(f"vectors of {table.full_name} differ")
    total = sum(table.vectors or 0 for table in with_vectors)
    return _seen(problems, f"{total:,} vectors agree to the bit")


def constraints(restored: Restored) -> Seen:
    """Every constraint is there and holds."""
    found = {row["name"]: row["valid"] for row in restored.session.rows("constraints")}
    return _parts(restored.wanted.constraints, found, "constraints hold")


def indexes(restored: Restored) -> Seen:
    """Every index is there and usable."""
    found = {row["name"]: row["valid"] for row in restored.session.rows("indexes")}
    return _parts(restored.wanted.indexes, found, "indexes are valid")


def recalls(restored: Restored) -> Seen:
    """Recalls find what they found at the source, exactly and by the vector index."""
    wanted = restored.wanted.probes
    if not wanted:
        return Seen("not configured", "the backup holds no episodes with vectors to recall")
    exact = description.repeat(restored.session, wanted, by_index=False)
    problems = [
        f"recall of {probe.episode_id} differs from the source's"
        for probe, again in zip(wanted, exact, strict=True)
        if again.distances != probe.distances
    ]
    indexed = description.repeat(restored.session, wanted, by_index=True)
    share = _share(wanted, indexed)
    if share < 0.9:
        problems.append(f"the vector index finds {share:.0%} of what there is")
    return _seen(problems, f"{len(wanted)} recalls agree; the index finds {share:.0%}")


def _share(wanted: Iterable[Probe], found: Iterable[Probe]) -> float:
    pairs = [(set(one.found), set(other.found)) for one, other in zip(wanted, found, strict=True)]
    return sum(len(one & other) for one, other in pairs) / sum(len(one) for one, _ in pairs)


def _present(restored: Restored) -> list[Table]:
    return [table for table in restored.wanted.tables if table.full_name in restored.found]


def _parts(wanted: Iterable[str], found: dict[str, bool], all_well: str) -> Seen:
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} is invalid" for name, valid in found.items() if not valid]
    return _seen(problems, f"{len(found)} {all_well}")


def _seen(problems: list[str], well: str) -> Seen:
    if not problems:
        return Seen("passed", well)
    more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return Seen("failed", "; ".join(problems[:_SHOWN]) + more, "use another backup")


FINDINGS = (
    ("tables", "every table was restored", tables),
    ("rows", "tables have as many rows", rows),
    ("contents", "rows are the same", contents),
    ("vectors", "vectors are the same", vectors),
    ("constraints", "constraints hold", constraints),
    ("indexes", "indexes are valid", indexes),
    ("recalls", "recalls find the same", recalls),
)
"""Name, title and look of each comparison, in order."""
