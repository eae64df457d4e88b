"""OpenTelemetry spans around operations and embeddings. Imported only if asked for.

Names and attributes follow OpenTelemetry's conventions for databases. Where the application has
set up no SDK, the spans are those of the API: they cost little and lead nowhere.
"""

from __future__ import annotations

import traceback
from contextvars import Token
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from pgrecall import __version__
from pgrecall.telemetry.operations import TABLES, failure_of

if TYPE_CHECKING:
    from pgrecall.telemetry.operations import Operation


@dataclass(frozen=True, slots=True)
class Begun:
    """A span under way, and how to make the one before it current again."""

    span: Span
    token: Token[Context]


class Spans:
    """Opens and closes the spans of one memory.

    Args:
        database: Name of the database.
        host: Where it is: a host, or the directory of a socket.
        port: Its port.
    """

    def __init__(self, database: str, host: str, port: int) -> None:
        self._tracer = trace.get_tracer("pgrecall", __version__)
        # Our objects are in schema public, whatever the search path.
        self._database: dict[str, str | int] = {
            "db.system.name": "postgresql",
            "db.namespace": f"{database}|public",
        }
        if host:
            self._database |= {"server.address": host, "server.port": port}

    def begin_operation(self, operation: Operation) -> Begun:
        """Open the span of an operation, and make it the current one."""
        table = TABLES[operation.name]
        return self._begin(
            f"{operation.name} {table}",
            SpanKind.CLIENT,
            {**self._database, "db.operation.name": operation.name, "db.collection.name": table},
        )

    def begin_embedding(self, identity: str, mode: str, texts: int) -> Begun:
        """Open the span of an embedding, and make it the current one."""
        return self._begin(
            f"embed {mode}",
            SpanKind.INTERNAL,
            {
                "pgrecall.embedder": identity,
                "pgrecall.embedding.mode": mode,
                "pgrecall.embedding.texts": texts,
            },
        )

    def _begin(self, name: str, kind: SpanKind, attributes: dict[str, str | int]) -> Begun:
        span = self._tracer.start_span(name, kind=kind, attributes=attributes)
        return Begun(span, context.attach(trace.set_span_in_context(span)))

    def end_operation(
        self, begun: Begun, operation: Operation, error: BaseException | None
    ) -> None:
        """Close the span of an operation."""
        span = begun.span
        if span.is_recording():
            if operation.project_id is not None:
                span.set_attribute("pgrecall.project_id", operation.project_id)
            span.set_attribute("pgrecall.results", operation.results)
            if operation.sqlstate is not None:
                span.set_attribute("db.response.status_code", operation.sqlstate)
        self.end(begun, error)

    def end(self, begun: Begun, error: BaseException | None) -> None:
        """Close a span, failed if ``error`` is given, and make the one before it current."""
        context.detach(begun.token)
        if error is not None and begun.span.is_recording():
            _record(begun.span, error)
        begun.span.end()


def _record(span: Span, error: BaseException) -> None:
    """Note an error by its kind and where it was raised: its message may quote values."""
    kind = failure_of(error)
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))
    span.add_event(
        "exception",
        {
            "exception.type": f"{type(error).__module__}.{type(error).__qualname__}",
            "exception.stacktrace": "".join(traceback.format_tb(error.__traceback__)),
        },
    )
