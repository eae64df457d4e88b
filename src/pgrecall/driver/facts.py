"""What a client learns about its database once, when it opens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg.types import TypeInfo

from pgrecall.errors import SchemaMissing, SchemaTooNew, SchemaTooOld
from pgrecall.migrations import HEAD, REVISIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The database behind a client.

    Attributes:
        dimensions: Length of the vectors of ``agent_episodes``.
        pooled: Whether a transaction pooler such as PgBouncer stands between.
        vector: The vector type of this database, whose identifiers differ between databases.
    """

    server_version: int
    in_recovery: bool
    dimensions: int
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
