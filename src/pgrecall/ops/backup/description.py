"""What a database holds: its tables with counts and checksums, its indexes, its recalls.

Taken from the source inside the dump's snapshot, and again from what was restored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pgrecall.errors import BackupError
from pgrecall.migrations import history
from pgrecall.ops.backup.manifest import Grant, Probe, Role, Setting, Surroundings, Table
from pgrecall.ops.backup.session import Session

QUERIES = 5
"""Recalls that are repeated after a restore."""
LIMIT = 10
"""Episodes that each finds."""


def surroundings(session: Session) -> Surroundings:
    """Return what must be put back beside the dump."""
    extensions = session.rows("extensions")
    return Surroundings(
        **session.one("database"),
        extensions={row["name"]: row["version"] for row in extensions},
        extension_schemas={row["name"]: row["schema"] for row in extensions},
        grants=tuple(Grant(**row) for row in session.rows("grants")),
        settings=tuple(Setting(**row) for row in session.rows("settings")),
    )


def roles(session: Session) -> tuple[Role, ...]:
    """Return the roles that the dump names."""
    return tuple(
        Role(**{**row, "member_of": tuple(row["member_of"])}) for row in session.rows("roles")
    )


def refuse_hidden_rows(session: Session) -> None:
    """Refuse to back up as a role from which row-level security hides rows.

    Raises:
        BackupError: A policy applies to the role; the message names the tables.
    """
    hidden = [row["name"] for row in session.rows("hides_rows")]
    if hidden:
        role = session.connection.info.user
        raise BackupError(
            f"row-level security hides rows of {', '.join(hidden)} from {role}",
            hint=f"as a superuser: ALTER ROLE {role} BYPASSRLS; or back up as a role that has it",
        )


def revision(session: Session) -> tuple[str | None, int | None]:
    """Return the memory's revision and the dimensions of its vectors, or None for each."""
    found = session.one("memory")
    return (
        history.current(session.connection) if found["has_revision"] else None,
        found["dimensions"],
    )


def tables(session: Session) -> Iterator[Table]:
    """Count and sum up each table, one after another."""
    for row in session.rows("tables"):
        summed = session.composed(row["statement"])
        vectors = row["has_vectors"]
        yield Table(
            schema=row["schema"],
            name=row["name"],
            rows=summed["rows"],
            checksum=summed["checksum"],
            vectors=summed["vectors"] if vectors else None,
            vector_checksum=summed["vector_checksum"] if vectors else None,
        )


def probes(session: Session) -> tuple[Probe, ...]:
    """Return a few recalls with their exact answers."""
    queries = [row["episode_id"] for row in session.rows("probe_queries", {"queries": QUERIES})]
    with _planned(session, "exactly"):
        return tuple(recall(session, query) for query in queries)


def repeat(session: Session, wanted: tuple[Probe, ...], *, by_index: bool) -> tuple[Probe, ...]:
    """Repeat recalls, exactly or by the vector index."""
    with _planned(session, "by_index" if by_index else "exactly"):
        return tuple(recall(session, probe.episode_id) for probe in wanted)


def recall(session: Session, episode_id: str) -> Probe:
    """Return the episodes nearest to one, under the plan that the session allows."""
    rows = session.rows("nearest", {"episode_id": episode_id, "limit": LIMIT})
    return Probe(
        episode_id=episode_id,
        found=tuple(row["episode_id"] for row in rows),
        distances=tuple(round(row["distance"], 6) for row in rows),
    )


@contextmanager
def _planned(session: Session, settings: str) -> Iterator[None]:
    with session.connection.transaction():
        session.rows(settings)
        yield
