"""LangGraph's store on real graphs, agents and langmem, beyond what its authors' suites ask."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph
from langgraph.prebuilt import InjectedStore, create_react_agent
from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    InvalidNamespaceError,
    PutOp,
    SearchOp,
)
from langmem import create_manage_memory_tool, create_search_memory_tool

from pgrecall import AsyncMemory, Memory
from pgrecall.errors import InvalidInput
from pgrecall.integrations.langgraph import AsyncPgrecallStore, PgrecallStore
from pgrecall.testing import Database


class Scripted(GenericFakeChatModel):
    """Says what it is given, one message after the other."""

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Scripted:
        return self


def says(*messages: AIMessage) -> Scripted:
    return Scripted(messages=iter(messages))


def calls(name: str, **arguments: Any) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": name}])


@pytest.fixture
def store(pgrecall_memory: Memory) -> PgrecallStore:
    return PgrecallStore(pgrecall_memory.project("apollo"))


@tool
def like(what: str, store: Annotated[BaseStore, InjectedStore()]) -> str:
    """Note what the user likes."""
    store.put(("likes",), what, {"text": f"likes {what}"})
    return "noted"


def test_an_agents_tools_reach_the_store(store: PgrecallStore) -> None:
    agent = create_react_agent(says(calls("like", what="tea"), AIMessage("Fine.")), [like],
                               store=store)  # fmt: skip
    answer = agent.invoke({"messages": [("user", "I like tea")]})
    assert answer["messages"][-1].content == "Fine."
    assert [item.key for item in store.search(("likes",), query="likes tea")] == ["tea"]


def test_langmem_writes_and_searches(store: PgrecallStore) -> None:
    tools = [create_manage_memory_tool(("memories", "{user}")),
             create_search_memory_tool(("memories", "{user}"))]  # fmt: skip
    model = says(
        calls("manage_memory", content="Ada drinks green tea", action="create"),
        calls("search_memory", query="Ada drinks green tea"),
        AIMessage("Green tea."),
    )
    agent = create_react_agent(model, tools, store=store)
    answer = agent.invoke({"messages": [("user", "What do I drink?")]},
                          config={"configurable": {"user": "ada"}})  # fmt: skip
    told = [message for message in answer["messages"] if isinstance(message, ToolMessage)]
    assert "Ada drinks green tea" in told[-1].content
    assert store.list_namespaces() == [("memories", "ada")]
    (item,) = store.search(("memories", "ada"))
    assert item.value["content"] == "Ada drinks green tea"


class State(TypedDict):
    n: int


async def test_a_graph_of_coroutines(async_memory: AsyncMemory) -> None:
    store = AsyncPgrecallStore(async_memory.project("apollo"))

    async def count(state: State, *, store: BaseStore) -> State:
        await store.aput(("counts",), str(state["n"]), {"n": state["n"]})
        return {"n": len(await store.asearch(("counts",), limit=100))}

    graph = StateGraph(State).add_node("count", count).add_edge(START, "count").compile(store=store)
    results = await asyncio.gather(*(graph.ainvoke({"n": n}) for n in range(8)))
    assert max(result["n"] for result in results) == 8


async def test_operations_of_one_turn_travel_together(async_memory: AsyncMemory) -> None:
    store = AsyncPgrecallStore(async_memory.project("apollo"))
    await asyncio.gather(*(store.aput(("a",), str(n), {"n": n}) for n in range(50)))
    put = await async_memory.project("apollo").items.list(limit=100)
    assert len(put) == 50
    assert len({item.updated_at for item in put}) == 1  # one transaction


def test_a_batch_is_written_whole_or_not_at_all(store: PgrecallStore) -> None:
    store.put(("a",), "there", {"n": 1})
    with pytest.raises(InvalidInput, match="NUL"):
        store.batch([
            PutOp(("a",), "first", {"n": 1}), PutOp(("a",), "there", None),
            PutOp(("a",), "bad", {"text": "a\0"}),
        ])  # fmt: skip
    with pytest.raises(InvalidNamespaceError):
        store.batch([PutOp(("a",), "first", {"n": 1}), GetOp(("a.b",), "x")])
    assert [item.key for item in store.search(("a",))] == ["there"]


def test_of_several_puts_of_one_key_the_last_counts(store: PgrecallStore) -> None:
    found, *_ = store.batch([
        SearchOp(("a",)), PutOp(("a",), "k", {"n": 1}), PutOp(("a",), "k", None),
        PutOp(("b",), "k", None), PutOp(("b",), "k", {"n": 2}),
    ])  # fmt: skip
    assert found == []
    assert [item.value for item in store.search(())] == [{"n": 2}]


def test_a_memory_of_no_project_is_refused(pgrecall_memory: Memory) -> None:
    with pytest.raises(InvalidInput, match="not bound to a project"):
        PgrecallStore(pgrecall_memory)


def test_without_an_embedder_a_query_is_no_order(pgrecall_database: Database) -> None:
    with Memory.open(pgrecall_database.dsn, embedder="none",
                     settings=pgrecall_database.settings) as memory:  # fmt: skip
        store = PgrecallStore(memory.project("apollo"))
        store.put(("a",), "k", {"text": "x"})
        (item,) = store.search(("a",), query="anything")
        assert item.score is None


def test_fields_and_whole_values_are_found(pgrecall_memory: Memory) -> None:
    asked: list[list[str]] = []

    def embed(texts: Sequence[str]) -> list[list[float]]:
        asked.append(list(texts))
        return [[float("tea" in text), 1.0] for text in texts]

    index: IndexConfig = {"dims": 2, "embed": embed, "fields": ["text"]}
    store = PgrecallStore(pgrecall_memory.project("apollo"), index=index)
    store.batch([
        PutOp(("a",), "k", {"text": "tea", "other": "coffee"}),
        PutOp(("a",), "own", {"notes": ["one", "two tea"]}, index=["notes[*]"]),
        PutOp(("a",), "none", {"text": "tea"}, index=False),
    ])  # fmt: skip
    assert asked == [["tea", "one", "two tea"]]  # at once
    assert {item.key for item in store.search(("a",), query="tea")} == {"k", "own"}


def test_the_sweeper_deletes_and_stops(pgrecall_memory: Memory) -> None:
    store = PgrecallStore(pgrecall_memory.project("apollo"), ttl={"default_ttl": 0.002})
    store.put(("a",), "k", {})
    store.start_ttl_sweeper(0.001)
    store.start_ttl_sweeper(0.001)  # is one
    deadline = threading.Event()
    for _ in range(100):
        if not _rows(pgrecall_memory):
            break
        deadline.wait(0.05)
    assert _rows(pgrecall_memory) == 0
    assert store.stop_ttl_sweeper(timeout=5)
    assert "pgrecall-langgraph-sweeper" not in {thread.name for thread in threading.enumerate()}


def _rows(memory: Memory) -> int:
    with memory._database.statement(None, writing=False) as lent:
        row = lent.execute("SELECT count(*) FROM pgrecall.items").fetchone()
    assert row is not None
    return int(next(iter(row)))
