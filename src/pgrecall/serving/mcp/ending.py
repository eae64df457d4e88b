"""Calls that are given up, and end in the database as well.

The SDK cancels a call again and again until it has ended. psycopg, when cancelled, asks the server
to end the statement, and a second time would keep it from that: the statement would go on without
us. So each call is a task of its own, which is cancelled once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_given_up: set[asyncio.Task[Any]] = set()


async def cancelled_once(call: Coroutine[Any, Any, T]) -> T:
    """Return what a call returns; if this is cancelled, cancel it and leave it to end by itself."""
    task = asyncio.create_task(call)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        _given_up.add(task)
        task.add_done_callback(_forget)
        task.cancel()
        raise


async def all_ended() -> None:
    """Wait for the calls of this loop that were given up, so that none is left in the database."""
    loop = asyncio.get_running_loop()
    if tasks := [task for task in _given_up if task.get_loop() is loop]:
        await asyncio.wait(tasks)


def _forget(task: asyncio.Task[Any]) -> None:
    _given_up.discard(task)
    if not task.cancelled():
        task.exception()  # nobody waits for it any more
