"""Every public call that touches the database is observed, once, by a name that is documented."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from pgrecall import AsyncMemory, Memory, errors
from pgrecall._async.metrics import AsyncMetricStore
from pgrecall._sync.metrics import MetricStore
from pgrecall.models import NewItem
from pgrecall.telemetry.operations import TABLES, Operation
from pgrecall.testing import Database, HashEmbedder

# Calls that are no operations of their own.
NOT_OBSERVED = {
    "episodes.prepare": "makes a vector, touches no database",
    "episodes.prepare_many": "makes vectors, touches no database",
    "sessions.active": "is sessions.list",
    "metrics.flush": "is housekeeping, counted by pgrecall_metrics_lost_total",
    "metrics.start": "internal",
    "metrics.stop": "internal",
    "metrics.measure": "internal",
    "metrics.keep": "internal",
    "metrics.sample": "internal",
}
IMPORT_ONLY = {"record_outcomes"}
THERE = NewItem(namespace=("a",), key="there", value={}, texts=["x"])


class Ids:
    """What the calls below are about."""

    def __init__(self, episodes: list[Any], knowledge: Any, session: Any) -> None:
        self.episodes = [episode.episode_id for episode in episodes]
        self.knowledge = knowledge.knowledge_id
        self.session = session.session_id


Call = Callable[[Any, Ids, Any], Any]

CALLS: dict[str, tuple[str, int, Call]] = {
    "episodes.record": ("record_episode", 1, lambda m, i, new: m.episodes.record(**new())),
    "episodes.record_many": (
        "record_episodes", 2, lambda m, i, new: m.episodes.record_many([new(), new()]),
    ),
    "episodes.record_outcome": (
        "record_outcome", 1, lambda m, i, new: m.episodes.record_outcome(i.episodes[0], quality=1),
    ),
    "episodes.get": ("get_episode", 1, lambda m, i, new: m.episodes.get(i.episodes[0])),
    "episodes.embeddings": (
        "get_embeddings", 2, lambda m, i, new: m.episodes.embeddings(i.episodes[:2]),
    ),
    "episodes.list": ("list_episodes", 3, lambda m, i, new: m.episodes.list(limit=3)),
    "episodes.count": ("count_episodes", 1, lambda m, i, new: m.episodes.count()),
    "episodes.recall": (
        "recall_similar",
        2,
        lambda m, i, new: m.episodes.recall("x", limit=2, group_repeats=False),
    ),
    "episodes.delete": ("delete_episodes", 1, lambda m, i, new: m.episodes.delete(i.episodes[3])),
    "knowledge.add": (
        "add_knowledge", 1,
        lambda m, i, new: m.knowledge.add(
            "strategy", "y", {}, supporting_episodes=i.episodes[:3], project_id="apollo"
        ),
    ),
    "knowledge.get": ("get_knowledge", 1, lambda m, i, new: m.knowledge.get(i.knowledge)),
    "knowledge.list": ("list_knowledge", 2, lambda m, i, new: m.knowledge.list()),
    "knowledge.recall": ("recall_knowledge", 2, lambda m, i, new: m.knowledge.recall("x")),
    "knowledge.record_application": (
        "apply_knowledge", 1,
        lambda m, i, new: m.knowledge.record_application(i.knowledge, success=True),
    ),
    "knowledge.retire": ("retire_knowledge", 1, lambda m, i, new: m.knowledge.retire(i.knowledge)),
    "knowledge.delete": ("delete_knowledge", 1, lambda m, i, new: m.knowledge.delete(i.knowledge)),
    "items.put": (
        "put_items", 1,
        lambda m, i, new: m.items.put([NewItem(namespace=("a",), key="k", value={})],
                                      project_id="apollo"),
    ),
    "items.get": ("get_items", 1, lambda m, i, new: m.items.get([(("a",), "there")],
                                                                project_id="apollo")),
    "items.list": ("list_items", 2, lambda m, i, new: m.items.list(project_id="apollo")),
    "items.recall": ("recall_items", 1, lambda m, i, new: m.items.recall("x", project_id="apollo")),
    "items.namespaces": (
        "list_namespaces", 1, lambda m, i, new: m.items.namespaces(project_id="apollo"),
    ),
    "items.delete": ("delete_items", 1, lambda m, i, new: m.items.delete([(("a",), "there")],
                                                                         project_id="apollo")),
    "items.expire": ("expire_items", 0, lambda m, i, new: m.items.expire()),
    "sessions.open": ("open_session", 1, lambda m, i, new: m.sessions.open(project_id="apollo")),
    "sessions.get": ("get_session", 1, lambda m, i, new: m.sessions.get(i.session)),
    "sessions.recall": ("recall_thoughts", 0, lambda m, i, new: m.sessions.recall("gold")),
    "sessions.list": ("list_sessions", 2, lambda m, i, new: m.sessions.list()),
    "sessions.update_context": (
        "update_session", 1, lambda m, i, new: m.sessions.update_context(i.session, {"a": 1}),
    ),
    "sessions.append_thought": (
        "update_session", 1, lambda m, i, new: m.sessions.append_thought(i.session, {"a": 1}),
    ),
    "sessions.append_thoughts": (
        "update_session", 1, lambda m, i, new: m.sessions.append_thoughts(i.session, [{"a": 1}]),
    ),
    "sessions.thoughts": ("get_session", 1, lambda m, i, new: m.sessions.thoughts(i.session)),
    "sessions.pop_thought": (
        "update_session", 1, lambda m, i, new: m.sessions.pop_thought(i.session),
    ),
    "sessions.clear_thoughts": (
        "update_session", 1, lambda m, i, new: m.sessions.clear_thoughts(i.session),
    ),
    "sessions.resume": (
        "resume_session", 1,
        lambda m, i, new: m.sessions.resume(i.session, project_id="apollo"),
    ),
    "sessions.set_goal": (
        "update_session", 1, lambda m, i, new: m.sessions.set_goal(i.session, "x"),
    ),
    "sessions.relate_episode": (
        "update_session", 1, lambda m, i, new: m.sessions.relate_episode(i.session, i.episodes[0]),
    ),
    "sessions.extend": ("update_session", 1, lambda m, i, new: m.sessions.extend(i.session, 60)),
    "sessions.close": ("close_session", 1, lambda m, i, new: m.sessions.close(i.session)),
    "sessions.expire": ("expire_sessions", 0, lambda m, i, new: m.sessions.expire()),
    "sessions.delete": ("delete_session", 1, lambda m, i, new: m.sessions.delete(i.session)),
    "metrics.list": ("list_metrics", 1, lambda m, i, new: m.metrics.list(limit=1)),
    "metrics.summary": (
        "summarize_metrics", 1, lambda m, i, new: m.metrics.summary(operation_type="get_episode"),
    ),
    "metrics.totals": ("count_memory", 1, lambda m, i, new: m.metrics.totals()),
    "metrics.prune": ("prune_metrics", 0, lambda m, i, new: m.metrics.prune(keep=timedelta(1))),
}  # fmt: skip


def watch(store: MetricStore | AsyncMetricStore) -> list[Operation]:
    """Return the list to which every operation that ends from now on is added."""
    seen: list[Operation] = []
    telemetry = store._telemetry
    object.__setattr__(telemetry, "ended", (*telemetry.ended, seen.append))
    store._ended = (*store._ended, seen.append)
    return seen


def in_order() -> list[str]:
    """Return the calls so that none finds what it needs gone."""
    last = (".close", ".retire"), (".delete",)
    return sorted(CALLS, key=lambda call: [call.endswith(names) for names in reversed(last)])


def test_every_public_call_is_in_the_table(memory: Memory) -> None:
    calls = {
        f"{part}.{name}"
        for part in ("episodes", "knowledge", "sessions", "items", "metrics")
        for name, _ in inspect.getmembers(getattr(memory, part), inspect.ismethod)
        if not name.startswith("_")
    }
    assert calls == {*CALLS, *NOT_OBSERVED}
    assert {name for name, _, _ in CALLS.values()} == set(TABLES) - IMPORT_ONLY


def test_each_is_observed_once(memory: Memory, make_episode: Any) -> None:
    episodes = [memory.episodes.record(**make_episode()) for _ in range(4)]
    ids = Ids(
        episodes,
        memory.knowledge.add(
            "strategy", "x", {}, supporting_episodes=[e.episode_id for e in episodes[:3]]
        ),
        memory.sessions.open(project_id="apollo"),
    )
    memory.items.put([THERE], project_id="apollo")
    memory.episodes.get(ids.episodes[0])
    memory.metrics.flush()
    seen = watch(memory.metrics)
    for call in in_order():
        name, results, make = CALLS[call]
        seen.clear()
        make(memory, ids, make_episode)
        assert [operation.name for operation in seen] == [name], call
        (operation,) = seen
        assert operation.results == results, call
        assert operation.failure is None
        assert operation.seconds > 0
        assert operation.kept == (not call.startswith("metrics.")), call


async def test_each_is_observed_once_in_coroutines(
    async_memory: AsyncMemory, make_episode: Any
) -> None:
    memory = async_memory
    episodes = [await memory.episodes.record(**make_episode()) for _ in range(4)]
    ids = Ids(
        episodes,
        await memory.knowledge.add(
            "strategy", "x", {}, supporting_episodes=[e.episode_id for e in episodes[:3]]
        ),
        await memory.sessions.open(project_id="apollo"),
    )
    await memory.items.put([THERE], project_id="apollo")
    seen = watch(memory.metrics)
    for call in in_order():
        name, _, make = CALLS[call]
        seen.clear()
        made: Awaitable[Any] = make(memory, ids, make_episode)
        await made
        assert [operation.name for operation in seen] == [name], call


BAD: dict[str, Call] = {
    "record_episode": lambda m, i, new: m.episodes.record(**new(outcome_quality=7)),
    "record_episodes": lambda m, i, new: m.episodes.record_many([{"project_id": "apollo", "x": 1}]),
    "record_outcome": lambda m, i, new: m.episodes.record_outcome(i),
    "get_episode": lambda m, i, new: m.episodes.get("no identifier"),
    "get_embeddings": lambda m, i, new: m.episodes.embeddings(["no identifier"]),
    "list_episodes": lambda m, i, new: m.episodes.list(limit=-1),
    "count_episodes": lambda m, i, new: m.episodes.count(unknown=1),
    "recall_similar": lambda m, i, new: m.episodes.recall(""),
    "delete_episodes": lambda m, i, new: m.episodes.delete("no identifier"),
    "add_knowledge": lambda m, i, new: m.knowledge.add("strategy", "x", {}, supporting_episodes=[]),
    "get_knowledge": lambda m, i, new: m.knowledge.get("no identifier"),
    "list_knowledge": lambda m, i, new: m.knowledge.list(limit=-1),
    "recall_knowledge": lambda m, i, new: m.knowledge.recall(limit=-1),
    "apply_knowledge": lambda m, i, new: m.knowledge.record_application("no", success=True),
    "retire_knowledge": lambda m, i, new: m.knowledge.retire("no identifier"),
    "delete_knowledge": lambda m, i, new: m.knowledge.delete("no identifier"),
    "open_session": lambda m, i, new: m.sessions.open(),
    "resume_session": lambda m, i, new: m.sessions.resume("no identifier", project_id="apollo"),
    "get_session": lambda m, i, new: m.sessions.get("no identifier"),
    "recall_thoughts": lambda m, i, new: m.sessions.recall(" "),
    "list_sessions": lambda m, i, new: m.sessions.list(limit=-1),
    "update_session": lambda m, i, new: m.sessions.extend("no identifier"),
    "close_session": lambda m, i, new: m.sessions.close("no identifier"),
    "delete_session": lambda m, i, new: m.sessions.delete("no identifier"),
    "put_items": lambda m, i, new: m.items.put([THERE]),
    "get_items": lambda m, i, new: m.items.get([((), "k")], project_id="apollo"),
    "list_items": lambda m, i, new: m.items.list(project_id="apollo", offset=-1),
    "recall_items": lambda m, i, new: m.items.recall(" ", project_id="apollo"),
    "list_namespaces": lambda m, i, new: m.items.namespaces(project_id="p" * 51),
    "delete_items": lambda m, i, new: m.items.delete([(("a",), "")], project_id="apollo"),
    "list_metrics": lambda m, i, new: m.metrics.list(limit=-1),
    "summarize_metrics": lambda m, i, new: m.metrics.summary(project_id="p" * 51),
    "count_memory": lambda m, i, new: m.metrics.totals(project_id="p" * 51),
    "prune_metrics": lambda m, i, new: m.metrics.prune(keep=0),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused_is_observed_too(name: str, memory: Memory, make_episode: Any) -> None:
    seen = watch(memory.metrics)
    with pytest.raises(errors.InvalidInput):
        BAD[name](memory, "4e1b8f5e-0f5c-4d0a-9d0f-0a5f5f5f5f5f", make_episode)  # type: ignore[arg-type]
    assert [(o.name, o.failure, o.refused) for o in seen] == [(name, "InvalidInput", True)]
    assert memory.metrics.flush() == 0


@pytest.mark.parametrize("project", ["p" * 51, 7, ["unhashable"]])
def test_what_can_be_no_project_is_not_told_on(project: Any, memory: Memory) -> None:
    seen = watch(memory.metrics)
    with pytest.raises(errors.InvalidInput):
        memory.episodes.list(project_id=project)
    assert [(o.failure, o.project_id) for o in seen] == [("InvalidInput", None)]


def test_a_bound_memory_observes_its_project(memory: Memory, make_episode: Any) -> None:
    seen = watch(memory.metrics)
    apollo = memory.project("apollo")
    apollo.episodes.record_many([make_episode(project_id=None)])
    apollo.episodes.recall("x")
    apollo.sessions.expire()
    with pytest.raises(errors.InvalidInput):
        apollo.episodes.list(project_id="gemini")
    ids = [e.episode_id for e in apollo.episodes.record_many([make_episode()] * 3).episodes]
    apollo.knowledge.add("strategy", "x", {}, supporting_episodes=ids, shared=True)
    assert [o.project_id for o in seen] == ["apollo", "apollo", "apollo", "gemini", "apollo", None]


def test_embedding_is_no_part_of_the_duration(
    pgrecall_database: Database, make_episode: Any
) -> None:
    class Slow(HashEmbedder):
        def embed(self, texts: Any, mode: Any = "document") -> list[list[float]]:
            time.sleep(0.2)
            return super().embed(texts, mode)

    with Memory.open(
        pgrecall_database.dsn, embedder=Slow(), settings=pgrecall_database.settings
    ) as memory:
        seen = watch(memory.metrics)
        started = time.perf_counter()
        memory.episodes.record(**make_episode())
        taken = time.perf_counter() - started
    (operation,) = seen
    assert operation.embedding_seconds >= 0.2
    assert operation.seconds + operation.embedding_seconds <= taken
    assert operation.seconds < taken - 0.19


def test_rows_are_of_success_on_our_own_connections_alone(
    memory: Memory, pgrecall_database: Database, admin: psycopg.Connection[Any], make_episode: Any
) -> None:
    with pytest.raises(errors.NotFound):
        memory.episodes.get("4e1b8f5e-0f5c-4d0a-9d0f-0a5f5f5f5f5f")
    with psycopg.connect(pgrecall_database.dsn) as caller:
        memory.episodes.list(connection=caller)
    memory.episodes.list()
    assert memory.metrics.flush() == 1
    rows = admin.execute("SELECT operation_type FROM agent_memory_metrics").fetchall()
    assert rows == [("list_episodes",)]


def test_an_empty_batch_is_no_operation(memory: Memory) -> None:
    seen = watch(memory.metrics)
    assert memory.episodes.record_many([]).created == 0
    assert seen == []
