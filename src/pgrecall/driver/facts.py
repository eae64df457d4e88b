"""What a client learns about its database once, when it opens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg.types import TypeInfo

from pgrecall.errors import SchemaMissing, SchemaTooNew, SchemaTooOld
from pgrecall.migrations import HEAD, REVISIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The embedding model of a database: what all vectors that it searches are of.

    Attributes:
        number: Its number there.
        dimensions: Length of its vectors.
        identity: Provider and model; None where nobody said so far.
        revision: Of its weights; None where nobody could tell so far.
        embedder: By which name the embedder is had; None if only as an object.
        renderer: What makes the texts that are embedded, with its version.
    """

    number: int
    dimensions: int
    identity: str | None
    revision: str | None
    embedder: str | None
    renderer: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The database behind a client.

    Attributes:
        served: Its embedding model when it was opened.
        pooled: Whether a transaction pooler such as PgBouncer stands between.
        vector: The vector type of this database, whose identifiers differ between databases.
    """

    server_version: int
    in_recovery: bool
    served: Served
    pooled: bool
    vector: TypeInfo


def check_schema(description: dict[str, Any], revision: str | None) -> None:
    """Refuse a schema that this client was not written for.

    Raises:
        SchemaMissing: No agent memory has been provisioned here.
        SchemaTooOld: The database must be migrated.
        SchemaTooNew: The client must be upgraded.
    """
    if revision is None:
        found = "tables made by hand" if description["has_episodes"] else "no agent memory"
        raise SchemaMissing(
            f"the database holds {found}",
            hint="run `pgrecall init --dsn ADMIN_DSN`, which provisions or adopts it",
        )
    if revision == HEAD:
        return
    if revision in REVISIONS:
        raise SchemaTooOld(
            f"the database is at revision {revision}, this client needs {HEAD}",
            hint="run `pgrecall migrate`",
        )
    raise SchemaTooNew(
        f"the database is at revision {revision}, this client knows up to {HEAD}",
        hint="upgrade pgrecall: pip install --upgrade pgrecall",
    )
