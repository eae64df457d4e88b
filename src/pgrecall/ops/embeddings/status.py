"""What is embedded, what waits, and whether a change of model is under way."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from pgrecall.driver import Statements, connect, translate
from pgrecall.ops.embeddings.models import Storage, title_of
from pgrecall.sql import load


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of a table, and how many of them have a vector."""

    relation: str
    rows: int
    embedded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """One model.

    Attributes:
        identity: Provider and model; None where nobody said so far.
        revision: Of its weights; None where nobody could tell so far.
        storage: How the values of its vectors are stored.
        embedder: By which name the embedder is had.
        renderer: What makes the texts.
        dimensions: Length of its vectors.
        serving: Whether recalls search its vectors.
        served_at: When it took over.
        tables: Rows with and without a vector of it.
        waiting: Texts that wait to be embedded.
        refused: Texts that its embedder refused.
        oldest: Since when the oldest waits.
        rate: Vectors a second in the last five minutes; None without any.
    """

    number: int
    identity: str | None
    revision: str | None
    storage: Storage
    embedder: str | None
    renderer: str | None
    dimensions: int
    serving: bool
    queued: bool
    served_at: datetime | None
    tables: tuple[Rows, ...]
    waiting: int
    refused: int
    oldest: datetime | None
    rate: float | None

    @property
    def title(self) -> str:
        """What tells it from others."""
        return title_of(self.identity, self.revision, self.storage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A text that the embedder refused, and why."""

    kind: str
    id: UUID
    reason: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The embeddings of a database.

    Attributes:
        models: That which serves, then the one beside it while a change is under way.
        refused: Some of the refused texts.
    """

    models: tuple[ModelStatus, ...]
    refused: tuple[Refused, ...]


def status(dsn: str, *, refused: int = 10) -> Status:
    """Look at the embeddings of a database.

    Args:
        dsn: Connection string.
        refused: How many refused texts to tell.

    Raises:
        Unavailable: The server could not be reached.
    """
    try:
        with connect(dsn, purpose="embeddings") as connection:
            run = Statements(connection, load("embeddings"))
            found = tuple(
                ModelStatus(**row, tables=rows_of(run, serving=row["serving"]))
                for row in run.rows("status")
            )
            kept = tuple(Refused(**row) for row in run.rows("refused", {"limit": refused}))
    except psycopg.Error as error:
        raise translate(error) from error
    return Status(models=found, refused=kept)


def rows_of(run: Statements, *, serving: bool) -> tuple[Rows, ...]:
    """Return how many rows have a vector, in the column that serves or the one beside it."""
    name = "embedding" if serving else "embedding_beside"
    query: Any = sql.SQL(run.texts["rows"]).format(column=sql.Identifier(name))
    return tuple(Rows(**row) for row in run.connection.execute(query).fetchall())


def retry(dsn: str) -> int:
    """Let refused texts be tried again; returns how many.

    Raises:
        Unavailable: The server could not be reached.
    """
    try:
        with connect(dsn, purpose="embeddings") as connection:
            return int(Statements(connection, load("embeddings")).value("retry"))
    except psycopg.Error as error:
        raise translate(error) from error
