"""One place through which every operation of the client passes, and who is told of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from pgrecall.core.routes import to_account
from pgrecall.errors import Conflict, InvalidInput, NotFound
from pgrecall.models import Account

if TYPE_CHECKING:  # these need packages that may not be installed
    from pgrecall.telemetry.prometheus import OpenMemories
    from pgrecall.telemetry.tracing import Begun, Spans

EpisodeOperation = Literal[
    "record_episode",
    "record_episodes",
    "record_outcome",
    "record_outcomes",
    "get_episode",
    "get_embeddings",
    "list_episodes",
    "count_episodes",
    "recall_similar",
    "delete_episodes",
]
KnowledgeOperation = Literal[
    "add_knowledge",
    "get_knowledge",
    "list_knowledge",
    "recall_knowledge",
    "apply_knowledge",
    "retire_knowledge",
    "delete_knowledge",
]
SessionOperation = Literal[
    "open_session",
    "resume_session",
    "get_session",
    "list_sessions",
    "recall_thoughts",
    "update_session",
    "close_session",
    "expire_sessions",
    "delete_session",
]
MetricOperation = Literal["list_metrics", "summarize_metrics", "count_memory", "prune_metrics"]
ItemOperation = Literal[
    "put_items",
    "get_items",
    "list_items",
    "recall_items",
    "list_namespaces",
    "delete_items",
    "expire_items",
]
OperationName = (
    EpisodeOperation | KnowledgeOperation | SessionOperation | MetricOperation | ItemOperation
)

TABLES: dict[str, str] = {
    name: table
    for names, table in (
        (EpisodeOperation, "agent_episodes"),
        (KnowledgeOperation, "agent_knowledge"),
        (SessionOperation, "agent_working_memory"),
        (MetricOperation, "agent_memory_metrics"),
        (ItemOperation, "items"),
    )
    for name in get_args(names)
}
"""Every operation there is, with the table that it is about."""

WORDED = frozenset(
    {
        "record_episode",
        "record_episodes",
        "delete_episodes",
        "add_knowledge",
        "delete_knowledge",
        "resume_session",
        "update_session",
        "delete_session",
    }
)
"""Operations by which texts come or go."""

CANCELLED = "Cancelled"
"""The failure of an operation that its caller gave up."""
OTHER = "Other"
"""The failure of code that is not ours, such as an embedder."""
LONGEST_PROJECT = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """Who is told, as chosen when a memory is opened.

    Attributes:
        ended: Called with each operation that has ended.
        embedded: Called with mode (``query`` or ``document``) and seconds of each embedding.
        spans: Opens a span around each operation and embedding.
        memories: Where this memory's pool is to be read.
    """

    ended: tuple[Callable[[Operation], None], ...] = ()
    embedded: tuple[Callable[[str, float], None], ...] = ()
    spans: Spans | None = None
    memories: OpenMemories | None = None


class Operation:
    """Times a block of code and tells how it ended; set ``results`` inside.

    Attributes:
        name: One of ``TABLES``.
        project_id: Its project, None where it has none (or none that could be one).
        results: How many rows it returned or changed.
        kept: Whether a row may be kept of it in the database.
        seconds: How long it took, without the embedding of texts.
        embedding_seconds: How long texts were embedded meanwhile.
        failure: What it failed by: a class of ``pgrecall.errors``, ``Cancelled`` or ``Other``;
            None if it succeeded.
        refused: Whether it failed by what it was asked, rather than by database or embedder.
        sqlstate: PostgreSQL's code of the failure, if it sent one.
    """

    __slots__ = (
        "_ended",
        "_span",
        "_spans",
        "_start",
        "embedding_seconds",
        "failure",
        "kept",
        "name",
        "project_id",
        "refused",
        "results",
        "seconds",
        "sqlstate",
    )

    def __init__(
        self,
        name: OperationName,
        project_id: str | None,
        *,
        kept: bool,
        ended: tuple[Callable[[Operation], None], ...],
        spans: Spans | None,
    ) -> None:
        self.name = name
        self.project_id = project_id
        self.kept = kept
        self.results = 0
        self.seconds = 0.0
        self.embedding_seconds = 0.0
        self.failure: str | None = None
        self.refused = False
        self.sqlstate: str | None = None
        self._ended = ended
        self._spans = spans
        self._span: Begun | None = None

    def __enter__(self) -> Self:
        if self._spans is not None:
            self._span = self._spans.begin_operation(self)
        self._start = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.seconds = time.perf_counter() - self._start - self.embedding_seconds
        if error is not None:
            self._fail(error)
        try:
            for tell in self._ended:
                tell(self)
        finally:
            if self._spans is not None and self._span is not None:
                self._spans.end_operation(self._span, self, error)

    def account_for(self, told: Mapping[str, Any]) -> Account:
        """Return what the database tells of this operation, a recall that ended, with its times."""
        embed_ms = self.embedding_seconds * 1000
        total_ms = self.seconds * 1000 + embed_ms
        return to_account(told, embed_ms=embed_ms, total_ms=total_ms)

    def _fail(self, error: BaseException) -> None:
        self.failure = failure_of(error)
        self.refused = isinstance(error, InvalidInput | NotFound | Conflict)
        self.sqlstate = getattr(error, "sqlstate", None)
        # What was refused may be anything; only what can be a project is told on.
        named = self.project_id
        if not isinstance(named, str) or len(named) > LONGEST_PROJECT:
            self.project_id = None


class Embedding:
    """Times the embedding of texts, as a part of an operation if it is one's."""

    __slots__ = ("_identity", "_mode", "_operation", "_span", "_start", "_telemetry", "_texts")

    def __init__(
        self,
        telemetry: Telemetry,
        identity: str,
        mode: str,
        texts: int,
        operation: Operation | None,
    ) -> None:
        self._telemetry = telemetry
        self._identity = identity
        self._mode = mode
        self._texts = texts
        self._operation = operation
        self._span: Begun | None = None

    def __enter__(self) -> Self:
        if self._telemetry.spans is not None:
            self._span = self._telemetry.spans.begin_embedding(
                self._identity, self._mode, self._texts
            )
        self._start = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        seconds = time.perf_counter() - self._start
        if self._operation is not None:
            self._operation.embedding_seconds += seconds
        try:
            if error is None:
                for tell in self._telemetry.embedded:
                    tell(self._mode, seconds)
        finally:
            if self._telemetry.spans is not None and self._span is not None:
                self._telemetry.spans.end(self._span, error)


def failure_of(error: BaseException) -> str:
    """Return the kind of a failure, out of few: a class of ``pgrecall.errors``, or a stand-in."""
    if not isinstance(error, Exception):
        return CANCELLED
    for kind in type(error).__mro__:
        if kind.__module__ == "pgrecall.errors":
            return kind.__name__
    return OTHER
