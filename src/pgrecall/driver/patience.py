"""How long a client waits for a server that says nothing: frozen, or behind a broken network.

A server that died closes its connections, and every call ends at once. One that was stopped, or
that a network lost without a word, does not: no time-out of the server can expire there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Mapping
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict

Result = TypeVar("Result")

_TCP = {
    # A peer that is gone is noticed within a minute, on idle connections as well.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    # Milliseconds that what was sent may stay without the peer's acknowledgement.
    "tcp_user_timeout": 60_000,
}


def transport_options(dsn: str, **others: object) -> dict[str, Any]:
    """Return the connection parameters by which a vanished peer is noticed.

    Args:
        dsn: Connection string; what it says itself is left to it.
        **others: More parameters that it may say itself.

    Raises:
        psycopg.ProgrammingError: It cannot be read.
    """
    given = conninfo_to_dict(dsn)
    if "service" in given:  # its file says what holds
        return {}
    wanted: Mapping[str, object] = {**_TCP, **others}
    from_environment = {"connect_timeout"} if os.environ.get("PGCONNECT_TIMEOUT") else set()
    return {
        name: value
        for name, value in wanted.items()
        if name not in given and name not in from_environment
    }


def patient(
    waiting: Generator[Any, Any, Result], connection: psycopg.BaseConnection[Any], seconds: float
) -> Generator[Any, Any, Result]:
    """Go on with what waits for a connection's socket, as long as the socket is not silent.

    Args:
        waiting: A generator of psycopg's, which is sent what the socket is ready for, or nothing
            when an interval has passed.
        connection: Its connection. It is closed when it was silent for too long: what its server
            still answers would be taken for the answer to something else.
        seconds: Longest silence.

    Raises:
        psycopg.OperationalError: The silence was longer.
    """
    try:
        wanted = next(waiting)
        since = time.monotonic()
        while True:
            ready = yield wanted
            if ready:
                since = time.monotonic()
            elif time.monotonic() - since > seconds:
                connection.pgconn.finish()
                raise psycopg.OperationalError(
                    f"the server has not answered for {seconds:g} seconds"
                )
            wanted = waiting.send(ready)
    except StopIteration as done:
        result: Result = done.value
        return result
