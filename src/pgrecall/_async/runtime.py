"""What has no twin on the other side: how to run blocking work, wait, and watch a socket.

The file of the same name in the synchronous package is written by hand as well.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from psycopg import AsyncConnection

from pgrecall.driver.sockets import has_input

P = ParamSpec("P")
Result = TypeVar("Result")

Lock = asyncio.Lock


async def call_blocking(
    function: Callable[P, Result], /, *args: P.args, **kwargs: P.kwargs
) -> Result:
    """Run a blocking function in a thread, so that the event loop goes on."""
    return await asyncio.to_thread(function, *args, **kwargs)


async def check_alive(connection: AsyncConnection[Any]) -> None:
    """Raise if an idle connection was closed by the server; costs no round trip if not.

    Raises:
        psycopg.OperationalError: The connection is dead; the pool then gives another.
    """
    if has_input(connection.pgconn.socket):
        await connection.execute("")


class Periodic:
    """Calls a function every so many seconds, in the background, until stopped."""

    def __init__(self, function: Callable[[], Awaitable[object]], seconds: float) -> None:
        self._function = function
        self._seconds = seconds
        self._wake = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="pgrecall-metrics")

    def wake(self) -> None:
        """Call the function soon, without waiting for the time to pass."""
        self._wake.set()

    async def stop(self) -> None:
        """End after a call that is under way."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await self._task
            self._task = None

    async def _run(self) -> None:
        while not self._stopping:
            with contextlib.suppress(TimeoutError):  # the time having passed is the usual case
                await asyncio.wait_for(self._wake.wait(), self._seconds)
            self._wake.clear()
            if not self._stopping:
                await self._function()
