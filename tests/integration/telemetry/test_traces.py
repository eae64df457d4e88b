"""OpenTelemetry spans: named and attributed by its conventions, nested as the calls are."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from psycopg import conninfo

from pgrecall import AsyncMemory, Memory, errors
from pgrecall.testing import Database, HashEmbedder

SECRET = "sesame-7fK2"


@pytest.fixture(scope="session")
def exporter() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    yield exporter
    provider.shutdown()


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> InMemorySpanExporter:
    exporter.clear()
    return exporter


class Nesting(HashEmbedder):
    """An embedder whose HTTP client, say, is instrumented by itself."""

    def embed(self, texts: Sequence[str], mode: Any = "document") -> list[list[float]]:
        with trace.get_tracer("model").start_as_current_span("model"):
            return super().embed(texts, mode)


@pytest.fixture
def memory(pgrecall_database: Database, spans: InMemorySpanExporter) -> Iterator[Memory]:
    settings = pgrecall_database.settings.model_copy(update={"traces": True})
    with Memory.open(pgrecall_database.dsn, embedder=Nesting(), settings=settings) as memory:
        yield memory


@pytest.fixture
async def coroutines(
    pgrecall_database: Database, spans: InMemorySpanExporter
) -> AsyncIterator[AsyncMemory]:
    settings = pgrecall_database.settings.model_copy(update={"traces": True})
    async with await AsyncMemory.open(
        pgrecall_database.dsn, embedder=Nesting(), settings=settings
    ) as memory:
        yield memory


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def check_nested(finished: Sequence[ReadableSpan]) -> None:
    by_name = {span.name: span for span in finished}
    assert set(by_name) == {"request", "recall_similar agent_episodes", "embed query", "model"}
    names = ["request", "recall_similar agent_episodes", "embed query", "model"]
    for outer, inner in pairwise(names):
        assert parent_of(by_name[inner]) == by_name[outer].get_span_context().span_id  # type: ignore[union-attr]


def test_spans_nest(memory: Memory, spans: InMemorySpanExporter) -> None:
    with trace.get_tracer("application").start_as_current_span("request"):
        memory.episodes.recall("backlog")
        inside = trace.get_current_span()
        assert inside.name == "request"  # type: ignore[attr-defined]
    check_nested(spans.get_finished_spans())


async def test_spans_nest_in_coroutines(
    coroutines: AsyncMemory, spans: InMemorySpanExporter
) -> None:
    with trace.get_tracer("application").start_as_current_span("request"):
        await coroutines.episodes.recall("backlog")
    check_nested(spans.get_finished_spans())


def test_names_and_attributes(
    memory: Memory, spans: InMemorySpanExporter, pgrecall_database: Database, make_episode: Any
) -> None:
    memory.episodes.record(**make_episode())
    embedding, recorded = (span for span in spans.get_finished_spans() if span.name != "model")
    info = conninfo.conninfo_to_dict(pgrecall_database.dsn)
    assert recorded.name == "record_episode agent_episodes"
    assert recorded.kind == SpanKind.CLIENT
    assert recorded.status.status_code == StatusCode.UNSET
    assert dict(recorded.attributes or {}) == {
        "db.system.name": "postgresql",
        "db.namespace": f"{pgrecall_database.name}|public",
        "db.operation.name": "record_episode",
        "db.collection.name": "agent_episodes",
        "server.address": info["host"],
        "server.port": int(str(info["port"])),
        "pgrecall.project_id": "apollo",
        "pgrecall.results": 1,
    }
    assert embedding.name == "embed document"
    assert embedding.kind == SpanKind.INTERNAL
    assert dict(embedding.attributes or {}) == {
        "pgrecall.embedder": "hash:64",
        "pgrecall.embedding.mode": "document",
        "pgrecall.embedding.texts": 1,
    }


def test_the_drivers_spans_nest(
    memory: Memory, spans: InMemorySpanExporter, pgrecall_database: Database
) -> None:
    current: list[int] = []

    class Instrumented(psycopg.Connection[Any]):
        def cursor(self, *args: Any, **kwargs: Any) -> Any:
            current.append(trace.get_current_span().get_span_context().span_id)
            return super().cursor(*args, **kwargs)

    with Instrumented.connect(pgrecall_database.dsn) as caller:
        memory.episodes.list(connection=caller)
    (span,) = spans.get_finished_spans()
    assert span.get_span_context().span_id in current  # type: ignore[union-attr]


def test_failures_are_recorded_without_values(
    memory: Memory,
    spans: InMemorySpanExporter,
    admin: psycopg.Connection[Any],
    pgrecall_database: Database,
    make_episode: Any,
) -> None:
    admin.execute("ALTER TABLE agent_episodes ADD CHECK (agent_version <> '" + SECRET + "')")
    with pytest.raises(errors.InvalidInput, match=SECRET):
        memory.episodes.record(**make_episode(agent_version=SECRET), embed="later")
    admin.execute("ALTER TABLE agent_working_memory RENAME TO elsewhere")
    with pytest.raises(errors.SchemaMissing):
        memory.sessions.list(user_id=SECRET)
    refused, failed = spans.get_finished_spans()
    for span, kind in ((refused, "InvalidInput"), (failed, "SchemaMissing")):
        assert span.status.status_code == StatusCode.ERROR
        assert span.attributes is not None
        assert span.attributes["error.type"] == kind
        (event,) = span.events
        assert event.name == "exception"
        assert event.attributes is not None
        assert event.attributes["exception.type"] == f"pgrecall.errors.{kind}"
        assert "database.py" in str(event.attributes["exception.stacktrace"])
    written = json.dumps([json.loads(span.to_json()) for span in (refused, failed)])
    assert SECRET not in written
    assert str(conninfo.conninfo_to_dict(pgrecall_database.dsn)["password"]) not in written


def test_the_servers_code_is_told(
    memory: Memory,
    spans: InMemorySpanExporter,
    admin: psycopg.Connection[Any],
    pgrecall_database: Database,
) -> None:
    app = conninfo.conninfo_to_dict(pgrecall_database.dsn)["user"]
    admin.execute(f'REVOKE SELECT ON agent_working_memory FROM "{app}"')
    with pytest.raises(errors.PermissionDenied):
        memory.sessions.list()
    (span,) = spans.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["db.response.status_code"] == "42501"
    assert span.attributes["error.type"] == "PermissionDenied"


def test_a_failing_embedder_fails_both_spans(
    pgrecall_database: Database, spans: InMemorySpanExporter
) -> None:
    class Broken(HashEmbedder):
        def embed(self, texts: Sequence[str], mode: Any = "document") -> list[list[float]]:
            raise errors.EmbeddingError(f"no model for {SECRET}")

    settings = pgrecall_database.settings.model_copy(update={"traces": True})
    with (
        Memory.open(pgrecall_database.dsn, embedder=Broken(), settings=settings) as memory,
        pytest.raises(errors.EmbeddingError),
    ):
        memory.episodes.recall("backlog")
    kinds = [
        (span.name, (span.attributes or {})["error.type"]) for span in spans.get_finished_spans()
    ]
    assert kinds == [
        ("embed query", "EmbeddingError"),
        ("recall_similar agent_episodes", "EmbeddingError"),
    ]


def test_spans_of_threads_do_not_mix(memory: Memory, spans: InMemorySpanExporter) -> None:
    def work() -> None:
        for _ in range(20):
            memory.episodes.recall("backlog")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    finished = spans.get_finished_spans()
    recalls = {s.get_span_context().span_id for s in finished if s.name.startswith("recall")}  # type: ignore[union-attr]
    assert len(recalls) == 80
    assert {parent_of(span) for span in finished if span.name == "embed query"} == recalls


def test_switched_off_there_are_none(pgrecall_memory: Memory, spans: InMemorySpanExporter) -> None:
    pgrecall_memory.episodes.recall("backlog")
    assert spans.get_finished_spans() == ()
