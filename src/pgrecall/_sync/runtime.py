"""What has no twin on the other side: how to run blocking work, wait, and watch a socket.

The file of the same name in the asynchronous package is written by hand as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from psycopg import Connection

from pgrecall.driver.sockets import has_input

P = ParamSpec("P")
Result = TypeVar("Result")

Lock = threading.Lock


def call_blocking(function: Callable[P, Result], /, *args: P.args, **kwargs: P.kwargs) -> Result:
    """Run a blocking function here and now."""
    return function(*args, **kwargs)


def check_alive(connection: Connection[Any]) -> None:
    """Raise if an idle connection was closed by the server; costs no round trip if not.

    Raises:
        psycopg.OperationalError: The connection is dead; the pool then gives another.
    """
    if has_input(connection.pgconn.socket):
        connection.execute("")


class Periodic:
    """Calls a function every so many seconds, in a background thread, until stopped."""

    def __init__(self, function: Callable[[], object], seconds: float) -> None:
        self._function = function
        self._seconds = seconds
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="pgrecall-metrics", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Call the function soon, without waiting for the time to pass."""
        self._wake.set()

    def stop(self) -> None:
        """End after a call that is under way."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(self._seconds)
            self._wake.clear()
            if not self._stopping:
                self._function()
