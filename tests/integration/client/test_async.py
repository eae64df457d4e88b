"""The asynchronous client is the one written by hand; its twin is tested in full beside this."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psycopg
import pytest

from pgrecall import AsyncMemory, errors
from pgrecall.testing import Database, HashEmbedder


async def test_the_four_memories(async_memory: AsyncMemory, make_episode: Any) -> None:
    memory = async_memory
    recorded = await memory.episodes.record_many(
        [make_episode(external_id=str(i), sprint_id=f"s{i}") for i in range(4)]
    )
    ids = [episode.episode_id for episode in recorded.episodes]
    await memory.episodes.record_outcome(ids[0], {"done": 1}, 0.9)
    hits = await memory.episodes.recall("declining backlog", project_id="apollo", limit=3)
    assert hits[0].episode.episode_id == ids[0]
    page = await memory.episodes.list(limit=3)
    assert len(page) + len(await memory.episodes.list(limit=3, cursor=page.next_cursor)) == 4
    known = await memory.knowledge.add("strategy", "x", {}, supporting_episodes=ids[:3])
    await asyncio.gather(
        *(
            memory.knowledge.record_application(known.knowledge_id, success=i % 2 == 0)
            for i in range(50)
        )
    )
    counted = await memory.knowledge.get(known.knowledge_id)
    assert (counted.times_applied, counted.success_count) == (50, 25)
    session = await memory.project("apollo").sessions.open(goal="plan")
    await memory.sessions.update_context(session.session_id, {"a": 1})
    assert (await memory.sessions.close(session.session_id)).active_context == {"a": 1}
    summary = await memory.metrics.summary()
    assert summary["apply_knowledge"].count == 50


async def test_a_slow_embedder_does_not_stop_the_loop(
    pgrecall_database: Database, make_episode: Any
) -> None:
    class Slow(HashEmbedder):
        def embed(self, texts: Any, mode: Any = "document") -> list[list[float]]:
            time.sleep(0.5)
            return super().embed(texts, mode)

    async with await AsyncMemory.open(
        pgrecall_database.dsn, embedder=Slow(), settings=pgrecall_database.settings
    ) as memory:
        recording = asyncio.create_task(memory.episodes.record(**make_episode()))
        start = time.perf_counter()
        assert await memory.episodes.count() == 0
        assert time.perf_counter() - start < 0.4
        assert (await recording).embedded


async def test_no_connection_is_held_while_embedding(
    pgrecall_database: Database, make_episode: Any
) -> None:
    settings = pgrecall_database.settings.model_copy(update={"pool_max_size": 1})
    running = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Waiting(HashEmbedder):
        def embed(self, texts: Any, mode: Any = "document") -> list[list[float]]:
            loop.call_soon_threadsafe(running.set)
            time.sleep(0.3)
            return super().embed(texts, mode)

    async with await AsyncMemory.open(
        pgrecall_database.dsn, embedder=Waiting(), settings=settings
    ) as memory:
        recording = asyncio.create_task(memory.episodes.record(**make_episode()))
        await running.wait()
        assert await asyncio.wait_for(memory.episodes.count(), 0.25) == 0
        await recording


async def test_a_callers_transaction(
    async_memory: AsyncMemory, pgrecall_database: Database, make_episode: Any
) -> None:
    async with await psycopg.AsyncConnection.connect(pgrecall_database.dsn) as caller:
        prepared = await async_memory.episodes.prepare(**make_episode())
        await async_memory.episodes.record(prepared, connection=caller)
        assert await async_memory.episodes.count(connection=caller) == 1
        await caller.rollback()
        assert await async_memory.episodes.count() == 0
    with (
        psycopg.connect(pgrecall_database.dsn) as wrong,
        pytest.raises(errors.InvalidInput, match="AsyncConnection"),
    ):
        await async_memory.episodes.count(connection=wrong)  # type: ignore[arg-type]


async def test_a_cancelled_call_leaves_the_pool_whole(
    async_memory: AsyncMemory, admin: psycopg.Connection[Any], make_episode: Any
) -> None:
    with admin.transaction():
        admin.execute("LOCK TABLE agent_episodes IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(async_memory.episodes.list(), 0.3)
    for _ in range(8):
        assert len(await async_memory.episodes.list()) == 0
