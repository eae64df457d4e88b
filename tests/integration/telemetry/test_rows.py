"""The rows of agent_memory_metrics: written whole, whoever writes them, and none lost unseen."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from pgrecall import AsyncMemory, Memory

LOCK = "LOCK TABLE agent_memory_metrics IN ACCESS EXCLUSIVE MODE"
WAITING = (
    "SELECT count(*) FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation "
    "WHERE c.relname = 'agent_memory_metrics' AND NOT l.granted"
)


def until_one_waits(admin: psycopg.Connection[Any]) -> Callable[[], bool]:
    return lambda: admin.execute(WAITING).fetchone() == (1,)


def test_who_flushes_waits_for_what_another_is_writing(
    memory: Memory, admin: psycopg.Connection[Any]
) -> None:
    memory.episodes.list()
    one_waits = until_one_waits(admin)
    with admin.transaction():
        admin.execute(LOCK)
        first = threading.Thread(target=memory.metrics.flush)
        first.start()
        deadline = time.monotonic() + 20
        while not one_waits():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        second = threading.Thread(target=memory.metrics.flush)
        second.start()
        second.join(0.2)
        assert second.is_alive()
    first.join(20)
    second.join(20)
    assert admin.execute("SELECT count(*) FROM agent_memory_metrics").fetchone() == (1,)


def test_many_may_flush_at_once(memory: Memory, admin: psycopg.Connection[Any]) -> None:
    def work() -> None:
        for _ in range(30):
            memory.episodes.count()
            memory.metrics.flush()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert admin.execute("SELECT count(*) FROM agent_memory_metrics").fetchone() == (120,)
    assert memory.metrics.lost == 0


async def test_rows_of_a_flush_that_is_given_up_count_as_lost(
    async_memory: AsyncMemory, admin: psycopg.Connection[Any]
) -> None:
    for _ in range(3):
        await async_memory.episodes.list()
    one_waits = until_one_waits(admin)
    with admin.transaction():
        admin.execute(LOCK)
        flushing = asyncio.create_task(async_memory.metrics.flush())
        deadline = time.monotonic() + 20
        while not await asyncio.to_thread(one_waits):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        flushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await flushing
    assert async_memory.metrics.lost == 3
    await async_memory.episodes.list()
    assert await async_memory.metrics.flush() == 1
