"""Conversations of the OpenAI Agents SDK in working memory."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast
from uuid import uuid4

import psycopg
import pytest
from agents import Agent, Runner, set_tracing_disabled
from agents.memory import Session, SessionSettings
from agents.testing import ScriptedModel, assistant_message, function_call

from pgrecall import AsyncMemory, Memory
from pgrecall.errors import Conflict, InvalidInput
from pgrecall.integrations.openai_agents import PgrecallSession
from pgrecall.testing import Database

set_tracing_disabled(True)


def said(*texts: str) -> list[Any]:
    return [{"role": "user", "content": text} for text in texts]


def texts(items: list[Any]) -> list[str]:
    return [item["content"] for item in items]


@pytest.fixture
def session(memory: Memory) -> PgrecallSession:
    return PgrecallSession("chat-1", memory.project("apollo"), user_id="ada")


def test_it_is_a_session_of_the_sdk(session: PgrecallSession) -> None:
    assert isinstance(session, Session)
    assert session.session_settings == SessionSettings()


async def test_a_conversation_is_a_row_and_its_items_are_thoughts(
    session: PgrecallSession, memory: Memory
) -> None:
    await session.add_items(said("What is a platypus?", "«é» 𝄞 \U0001f9ff \\u0000"))
    row = memory.sessions.get(session.key)
    assert (row.project_id, row.user_id) == ("apollo", "ada")
    assert row.active_context == {"openai_agents_session_id": "chat-1"}
    assert row.thought_history == await session.get_items()
    assert row.thought_history == said("What is a platypus?", "«é» 𝄞 \U0001f9ff \\u0000")
    (hit,) = memory.sessions.recall("platypus", project_id="apollo")
    assert (hit.session_id, hit.thought) == (session.key, said("What is a platypus?")[0])


async def test_the_last_items(session: PgrecallSession) -> None:
    await session.add_items(said(*"abcd"))
    assert texts(await session.get_items(2)) == ["c", "d"]
    assert texts(await session.get_items(20_000)) == [*"abcd"]
    assert await session.get_items(0) == []
    session.session_settings = SessionSettings(limit=3)
    assert texts(await session.get_items()) == ["b", "c", "d"]
    assert await session.pop_item() == said("d")[0]
    await session.clear_session()
    assert await session.get_items() == []
    assert await session.pop_item() is None


async def test_nothing_of_what_cannot_be_stored_is(session: PgrecallSession) -> None:
    await session.add_items(said("first"))
    with pytest.raises(InvalidInput, match=r"thoughts\[1\]\.content"):
        await session.add_items(said("second", "a\0b"))
    assert texts(await session.get_items()) == ["first"]


async def test_an_ended_conversation_is_forgotten_and_begins_anew(
    memory: Memory, admin: psycopg.Connection[Any]
) -> None:
    session = PgrecallSession("chat", memory, project_id="apollo", ttl=3600)
    assert await session.get_items() == []
    assert await session.pop_item() is None
    await session.clear_session()
    for end in (
        lambda: memory.sessions.close(session.key),
        lambda: admin.execute("UPDATE agent_working_memory SET expires_at = now()"),
    ):
        await session.add_items(said("old"))
        end()
        assert await session.get_items() == []
        assert await session.pop_item() is None
        await session.clear_session()
        await session.add_items(said("new"))
        assert texts(await session.get_items()) == ["new"]
        memory.sessions.close(session.key)


async def test_every_addition_extends_it(memory: Memory, admin: psycopg.Connection[Any]) -> None:
    session = PgrecallSession("chat", memory, project_id="apollo", ttl=3600)

    def minutes_left() -> float:
        row = admin.execute(
            "SELECT extract(epoch FROM expires_at - now()) / 60 FROM agent_working_memory"
        ).fetchone()
        assert row is not None
        return float(row[0])

    await session.add_items(said("a"))
    admin.execute("UPDATE agent_working_memory SET expires_at = now() + interval '10 minutes'")
    await session.get_items()
    await session.pop_item()
    assert minutes_left() <= 10
    await session.add_items(said("b"))
    assert minutes_left() > 50


async def test_projects_have_conversations_of_their_own(memory: Memory) -> None:
    apollo = PgrecallSession("chat", memory.project("apollo"))
    zeus = PgrecallSession("chat", memory, project_id="zeus")
    assert apollo.key != zeus.key
    await apollo.add_items(said("secret"))
    assert await zeus.get_items() == []

    name = str(uuid4())
    apollo = PgrecallSession(name, memory.project("apollo"))
    zeus = PgrecallSession(name, memory.project("zeus"))
    assert str(apollo.key) == str(zeus.key) == name
    await apollo.add_items(said("secret"))
    assert await zeus.get_items() == []
    assert await zeus.pop_item() is None
    await zeus.clear_session()
    with pytest.raises(Conflict, match="another project than 'zeus'"):
        await zeus.add_items(said("mine"))
    assert texts(await apollo.get_items()) == ["secret"]


def test_names(memory: Memory) -> None:
    name = "9F1C3B0A-0000-4000-8000-000000000001"
    spellings = {PgrecallSession(s, memory, project_id="a").key for s in (name, name.lower())}
    assert len(spellings) == 2, "each spelling is another name"
    for bad in ("", " ", "a\0b", "x" * 501):
        with pytest.raises(InvalidInput, match="session_id"):
            PgrecallSession(bad, memory, project_id="apollo")
    with pytest.raises(InvalidInput, match="project_id is missing"):
        PgrecallSession("chat", memory)
    with pytest.raises(InvalidInput, match="bound to project 'apollo'"):
        PgrecallSession("chat", memory.project("apollo"), project_id="zeus")
    with pytest.raises(InvalidInput, match="ttl"):
        PgrecallSession("chat", memory, project_id="apollo", ttl=0)


async def test_tasks_at_once_lose_nothing(session: PgrecallSession) -> None:
    await asyncio.gather(*(session.add_items(said(f"{n}a", f"{n}b")) for n in range(20)))
    items = texts(await session.get_items())
    assert sorted(items) == sorted(f"{n}{side}" for n in range(20) for side in "ab")
    assert all(items[i][:-1] == items[i + 1][:-1] for i in range(0, 40, 2)), "each pair together"
    popped = await asyncio.gather(*(session.pop_item() for _ in range(50)))
    found = [cast("Any", item)["content"] for item in popped if item is not None]
    assert sorted(found) == sorted(items)


def test_threads_with_loops_of_their_own(session: PgrecallSession) -> None:
    def talk(n: int) -> None:
        asyncio.run(session.add_items(said(str(n))))
        asyncio.run(session.get_items())

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(talk, range(24)))
    assert sorted(texts(asyncio.run(session.get_items()))) == sorted(map(str, range(24)))


async def test_a_cancelled_addition_is_waited_for(
    session: PgrecallSession, admin: psycopg.Connection[Any]
) -> None:
    await session.add_items(said("first"))
    with admin.transaction():
        admin.execute("SELECT FROM agent_working_memory FOR UPDATE")
        adding = asyncio.create_task(session.add_items(said("second")))
        waiting = (
            "SELECT FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        while admin.execute(waiting).fetchone() is None:  # noqa: ASYNC110  # the server tells
            await asyncio.sleep(0.01)
        for _ in range(2):
            adding.cancel()
            await asyncio.sleep(0.05)
        assert not adding.done()
    with pytest.raises(asyncio.CancelledError):
        await adding
    assert texts(await session.get_items()) == ["first", "second"]


async def test_with_an_asynchronous_memory(async_memory: AsyncMemory) -> None:
    here = threading.active_count()
    session = PgrecallSession("chat", async_memory.project("apollo"))
    await asyncio.gather(*(session.add_items(said(str(n))) for n in range(10)))
    assert sorted(texts(await session.get_items())) == sorted(map(str, range(10)))
    assert len(await session.get_items(3)) == 3
    assert await session.pop_item() is not None
    assert threading.active_count() == here, "no thread is needed"
    await session.clear_session()
    assert await session.get_items() == []


def agent(*replies: Any) -> tuple[Agent[Any], ScriptedModel]:
    model = ScriptedModel([[reply] for reply in replies])
    return Agent(name="guide", model=model), model


@pytest.fixture
def default_loop() -> Iterator[None]:
    """The loop that ``run_sync`` takes, and leaves open."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()
    asyncio.set_event_loop(None)


@pytest.mark.usefixtures("default_loop")
@pytest.mark.parametrize("way", ["run", "run_sync", "run_streamed"])
def test_a_conversation_goes_on_in_another_process(
    way: str, memory: Memory, pgrecall_database: Database
) -> None:
    def ask(question: str, guide: Agent[Any], session: PgrecallSession) -> str:
        if way == "run_sync":
            return str(Runner.run_sync(guide, question, session=session).final_output)

        async def run() -> str:
            if way == "run":
                return str((await Runner.run(guide, question, session=session)).final_output)
            result = Runner.run_streamed(guide, question, session=session)
            async for _ in result.stream_events():
                pass
            return str(result.final_output)

        return asyncio.run(run())

    first, _ = agent(assistant_message("San Francisco"))
    where = "What city is the Golden Gate Bridge in?"
    assert ask(where, first, PgrecallSession("chat", memory, project_id="apollo")) == (
        "San Francisco"
    )
    with Memory.open(
        pgrecall_database.dsn, embedder="none", settings=pgrecall_database.settings
    ) as other:
        second, model = agent(assistant_message("California"))
        again = PgrecallSession("chat", other, project_id="apollo")
        assert ask("What state is it in?", second, again) == "California"
    seen = cast("list[Any]", model.calls[-1].input)
    assert [item["content"] for item in seen if item.get("role") == "user"] == [
        where,
        "What state is it in?",
    ]
    assert len(seen) == 3


async def test_calls_of_tools_are_kept(session: PgrecallSession) -> None:
    from agents import function_tool

    @function_tool
    def capital(country: str) -> str:
        return f"capital of {country}: Rome"

    guide = Agent(
        name="guide",
        tools=[capital],
        model=ScriptedModel(
            [
                [function_call("capital", {"country": "Italy"}, call_id="call-1")],
                [assistant_message("Rome")],
            ]
        ),
    )
    result = await Runner.run(guide, "Capital of Italy?", session=session)
    assert result.final_output == "Rome"
    kinds = [cast("Any", item).get("type", "input") for item in await session.get_items()]
    assert kinds == ["input", "function_call", "function_call_output", "message"]


def test_without_the_sdk_the_extra_is_named() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.modules['agents'] = None; import pgrecall.integrations.openai_agents",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'pgrecall[openai-agents]'" in done.stderr
