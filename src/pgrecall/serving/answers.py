"""Answers about the four memories: the client's records, and what holds several of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from pgrecall.models import (
    Account,
    Episode,
    Knowledge,
    Metric,
    OperationSummary,
    Recalled,
    RecalledKnowledge,
    RecalledThought,
    Session,
)

_Next = Annotated[
    str | None, Field(description="Send it as cursor to get the next page; null on the last one.")
]


class EpisodePage(BaseModel):
    """Episodes, newest first."""

    items: list[Episode]
    next_cursor: _Next


class KnowledgePage(BaseModel):
    """Knowledge, newest first."""

    items: list[Knowledge]
    next_cursor: _Next


class SessionPage(BaseModel):
    """Sessions, the last updated first."""

    items: list[Session]
    next_cursor: _Next


class MetricPage(BaseModel):
    """Measurements, newest first."""

    items: list[Metric]
    next_cursor: _Next


class RecalledEpisodes(BaseModel):
    """Past decisions, best first."""

    hits: list[Recalled]
    account: Annotated[
        Account | None, Field(description="What was done and why, if explain was asked for.")
    ]


class RecalledStrategies(BaseModel):
    """Knowledge, best first."""

    hits: list[RecalledKnowledge]
    account: Annotated[
        Account | None, Field(description="What was done and why, if explain was asked for.")
    ]


class RecalledThoughts(BaseModel):
    """Thoughts, best first."""

    hits: list[RecalledThought]


class Thoughts(BaseModel):
    """Thoughts of a session, oldest first."""

    thoughts: list[dict[str, Any]]


class PoppedThought(BaseModel):
    """The thought that was removed; null if there was none."""

    thought: dict[str, Any] | None


class RecordedEpisodes(BaseModel):
    """What became of several decisions."""

    created: Annotated[int, Field(description="How many are new rows.")]
    existing: Annotated[
        int, Field(description="How many stood there already, under the same external_id.")
    ]
    episode_ids: Annotated[list[UUID], Field(description="One for each, in the same order.")]


class Count(BaseModel):
    """How many there are."""

    count: int


class Deleted(BaseModel):
    """How many were deleted."""

    deleted: int


class Expired(BaseModel):
    """How many sessions were ended."""

    expired: int


class Vectors(BaseModel):
    """Stored vectors, by the identifiers of those episodes that have one."""

    embeddings: dict[str, list[float]]


class Summary(BaseModel):
    """Counts and latencies of each kind of operation."""

    operations: list[OperationSummary]


class Alive(BaseModel):
    """That the process lives, or is ready."""

    status: Literal["ok"]


class Caller(BaseModel):
    """What the caller may do."""

    name: Annotated[str, Field(description="The key's identifier; local where none is needed.")]
    scopes: list[Literal["read", "write", "admin"]]
    projects: Annotated[list[str] | None, Field(description="Null for all.")]


class MemoryInfo(BaseModel):
    """What is served, and what the caller may do there."""

    version: Annotated[str, Field(description="Of pgrecall.")]
    revision: Annotated[str, Field(description="Of the database's schema.")]
    dimensions: Annotated[int, Field(description="Length of the vectors.")]
    model: Annotated[str, Field(description="What makes them.")]
    access: Caller


class BadLine(BaseModel):
    """A bad line, counted from 1, and what is wrong with it."""

    line: int
    reason: str


class Imported(BaseModel):
    """What became of the lines; read = created + existing + updated + rejected."""

    read: int
    created: int
    existing: int
    updated: Annotated[int, Field(description="Whose episodes got the outcome they lacked.")]
    rejected: int
    errors: Annotated[list[BadLine], Field(description="The first of those rejected.")]
    errors_left_out: int
