"""``doctor``: what is wrong or at risk on a server and in a memory, each with its remedy.

The facts are gathered by a few queries; each check is a pure judgement of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pgrecall.config import Settings
from pgrecall.ops.checks import Check, Seen, exit_code
from pgrecall.ops.doctor import data, recall, roles, schema, server, vectors, versions, words
from pgrecall.ops.doctor.facts import Facts, connect, gather

__all__ = ["CHECKS", "Check", "Facts", "doctor", "exit_code", "judge"]

CHECKS: tuple[tuple[str, str, Callable[[Facts], Seen]], ...] = (
    ("connection", "connection straight to the server", server.direct),
    ("server-version", "PostgreSQL version", versions.server_version),
    ("pgvector-version", "pgvector version", versions.pgvector_version),
    ("extension-updates", "extensions at their newest version", versions.extension_updates),
    ("optional-extensions", "optional extensions", versions.optional_extensions),
    ("collation", "collation unchanged", versions.collation),
    ("recovery", "server accepts writes", server.recovery),
    ("checksums", "data checksums", server.checksums),
    ("durability", "committed data survives a crash", server.durability),
    ("shared-memory", "shared memory for index builds", server.shared_memory),
    ("shared-buffers", "vector indexes fit the cache", server.buffers),
    ("memory", "what recalls read stays in memory", server.memory),
    ("random-page-cost", "cost of random reads", server.page_cost),
    ("connections", "room for clients", server.connections),
    ("role-power", "roles with too much power", roles.power),
    ("public-rights", "rights of everybody", roles.public_rights),
    ("passwords", "passwords kept as SCRAM", roles.passwords),
    ("role-settings", "settings of the roles", roles.settings),
    ("revision", "schema revision", schema.revision),
    ("schema-version", "schema_version tells the truth", schema.schema_version),
    ("invalid-indexes", "invalid indexes", schema.invalid_indexes),
    ("vector-indexes", "vector indexes", schema.vector_indexes),
    ("dimensions", "dimensions of the vectors", schema.dimensions),
    ("vectors", "vectors are what their embedder makes", vectors.vectors),
    ("codes", "codes of the vectors", recall.codes),
    ("words", "words of the texts", words.words),
    ("recall-accuracy", "recalls find what is nearest", recall.accuracy),
    ("statistics", "statistics for the planner", data.statistics),
    ("dead-rows", "dead rows", data.dead_rows),
    ("recent", "what bursts brought is merged", data.recent),
    ("evidence", "evidence of active knowledge", data.evidence),
    ("dangling-evidence", "evidence still exists", data.dangling_evidence),
)
"""Every check: its id, its title, and the judgement."""


def doctor(dsn: str, *, settings: Settings, embedder_dimensions: int | None) -> list[Check]:
    """Examine the server and the memory behind ``dsn``; nothing is changed.

    Args:
        dsn: Connection string of the owner or of an administrator to the memory's database, to
            the server itself. A superuser sees more.
        settings: The settings of the client.
        embedder_dimensions: What the configured embedder makes; None when none is configured.

    Returns:
        One check for each entry of :data:`CHECKS`, in its order; only that of the version where
        the server is too old to be asked for more.

    Raises:
        Unavailable: The server could not be reached.
        DatabaseError: A query was refused, or the connection broke.
    """
    with connect(dsn) as connection:
        age = versions.supported(connection.info.server_version)
        if age.status == "failed":
            return [_check("server-version", "PostgreSQL version", age)]
        facts = gather(
            connection,
            embedder_dimensions=embedder_dimensions,
            pool_size=settings.pool_max_size,
        )
    if facts.sampled is not None:
        # After the transaction, as an embedder may take its time.
        facts = replace(facts, vectors=vectors.compare_vectors(facts.sampled, settings))
    return judge(facts)


def judge(facts: Facts) -> list[Check]:
    """Judge facts that were gathered; they were asked for together, so none has a time of its own.

    Args:
        facts: What is known.
    """
    return [_check(id_, title, check(facts)) for id_, title, check in CHECKS]


def _check(id_: str, title: str, seen: Seen) -> Check:
    return Check(
        id=id_,
        title=title,
        status=seen.status,
        evidence=seen.evidence,
        remedy=seen.remedy,
    )
