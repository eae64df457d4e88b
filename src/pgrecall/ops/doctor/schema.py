"""Checks of the schema: its revision, its indexes, its vectors."""

from __future__ import annotations

from pgrecall.migrations import HEAD, REVISIONS
from pgrecall.ops.checks import Seen, Status, build_vector_index
from pgrecall.ops.doctor.facts import Facts

VECTOR_INDEXES = ("public.idx_episodes_embedding", "public.idx_knowledge_embedding")


def revision(facts: Facts) -> Seen:
    """The schema is the one that this version of pgrecall works with."""
    if facts.revision is None:
        found = "tables made by hand" if facts.server.has_episodes else "no agent memory"
        return Seen(
            "failed",
            f"the database holds {found}, no revision is recorded",
            "run `pgrecall init --dsn ADMIN_DSN`, which provisions or adopts it",
        )
    if facts.revision not in REVISIONS:
        return Seen(
            "failed",
            f"the database is at revision {facts.revision}, this pgrecall knows up to {HEAD}",
            "upgrade pgrecall: pip install --upgrade pgrecall",
        )
    if facts.revision != HEAD:
        return Seen(
            "failed",
            f"the database is at revision {facts.revision}, this pgrecall needs {HEAD}",
            "run `pgrecall migrate`",
        )
    return Seen("passed", f"revision {facts.revision}, the newest")


def schema_version(facts: Facts) -> Seen:
    """The specification's table of versions tells the same."""
    if facts.schema_versions is None:
        return Seen("failed", "table schema_version is missing", "run `pgrecall verify`")
    told = ", ".join(facts.schema_versions) or "nothing"
    if facts.revision is None or facts.revision not in REVISIONS:
        return Seen("not configured", f"schema_version says {told}; no known revision to compare")
    wanted = REVISIONS[: REVISIONS.index(facts.revision) + 1]
    if set(wanted) != set(facts.schema_versions):
        return Seen(
            "failed",
            f"schema_version says {told}, but the revisions applied are {', '.join(wanted)}",
            "find out who changed the table; INSERT what is missing, DELETE what is too much",
        )
    return Seen("passed", f"schema_version says {told}, as the revision does")


def invalid_indexes(facts: Facts) -> Seen:
    """Every index can be used."""
    put_off = {index.name for index in facts.deferred}  # the next check's
    invalid = [i.name for i in facts.indexes if not i.usable and i.name not in put_off]
    if invalid:
        return Seen(
            "failed",
            f"invalid, so queries don't use them and writes still pay: {', '.join(invalid)}",
            "; ".join(f"REINDEX INDEX CONCURRENTLY {name}" for name in invalid)
            + "; DROP INDEX CONCURRENTLY those whose name ends in _ccnew",
        )
    return Seen("passed", f"{len(facts.indexes)} indexes, all valid")


def vector_indexes(facts: Facts) -> Seen:
    """There are exactly the two vector indexes of the specification."""
    if facts.deferred:
        return _deferred(facts)
    found = {index.name: index for index in facts.indexes if index.method == "hnsw"}
    missing = [name for name in VECTOR_INDEXES if name not in found]
    others = [name for name in found if name not in VECTOR_INDEXES]
    invalid = [name for name in VECTOR_INDEXES if name in found and not found[name].usable]
    faults: list[str] = []
    remedies: list[str] = []
    if missing:
        faults.append(f"missing: {', '.join(missing)}")
        remedies += [
            build_vector_index(name.removeprefix("public."), facts.storage) for name in missing
        ]
    if invalid:
        faults.append(f"invalid: {', '.join(invalid)}")
        remedies += [f"REINDEX INDEX CONCURRENTLY {name}" for name in invalid]
    if others:
        faults.append(
            f"{len(found)} HNSW indexes instead of 2, each slows every write: {', '.join(others)}"
        )
        remedies += [f"DROP INDEX CONCURRENTLY {name}" for name in others]
    if faults:
        status: Status = "failed" if missing or invalid else "warning"
        return Seen(status, "; ".join(faults), "; ".join(remedies))
    return Seen("passed", f"{' and '.join(VECTOR_INDEXES)}, valid")


def _deferred(facts: Facts) -> Seen:
    """What an import has put off is not there, or not whole."""
    names = ", ".join(index.name for index in facts.deferred)
    since = min(index.since for index in facts.deferred)
    evidence = f"an import has put off {names} since {since:%F %T %Z}; recalls read codes, slower"
    if any(index.at_work for index in facts.deferred):
        return Seen("warning", f"{evidence}; it is at work", "wait for it, it builds them")
    return Seen(
        "failed",
        f"{evidence}; nobody is at work",
        "run the same import again, or only build: pgrecall episodes import --finish",
    )


def dimensions(facts: Facts) -> Seen:
    """The columns of vectors fit each other and the embedder."""
    evidence = ", ".join(f"{column.name} {column.type}" for column in facts.columns)
    lengths = {column.dimensions for column in facts.columns}
    if len(facts.columns) < len(VECTOR_INDEXES):
        return Seen(
            "failed",
            f"a column of vectors is missing; found: {evidence or 'none'}",
            "run `pgrecall verify`",
        )
    if None in lengths or len(lengths) > 1:
        return Seen(
            "failed",
            f"expected vectors of one fixed dimension, found: {evidence}",
            "ALTER TABLE ... ALTER COLUMN embedding TYPE vector(n), and fill the vectors anew",
        )
    if facts.embedder_dimensions is None:
        return Seen("passed", f"{evidence}; no embedder is configured to compare with")
    (length,) = lengths
    if length != facts.embedder_dimensions:
        return Seen(
            "failed",
            f"{evidence}, but the configured embedder makes {facts.embedder_dimensions} dimensions",
            "set PGRECALL_EMBEDDER to the embedder that the vectors were made with; to "
            "change it: pgrecall embeddings switch --to EMBEDDER",
        )
    return Seen("passed", f"{evidence}, as the configured embedder makes them")
