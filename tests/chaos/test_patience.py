"""How long a client waits for a server that is silent, and what the settings do."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.chaos.proxy import Cut, Proxy, proxied

from pgrecall import AsyncMemory, Memory, errors
from pgrecall.driver import connect
from pgrecall.driver.patience import transport_options
from pgrecall.testing import Database, HashEmbedder

PATIENCE = 0.5


@pytest.fixture
def proxy(pgrecall_database: Database) -> Iterator[Proxy]:
    with proxied(pgrecall_database.dsn) as made:
        yield made


def settings(database: Database, **others: Any) -> Any:
    values = {"answer_timeout": PATIENCE, "metrics": False, "pool_max_size": 1, **others}
    return database.settings.model_copy(update=values)


def test_a_silent_server_ends_a_call_and_no_call_after_it(
    pgrecall_database: Database, proxy: Proxy, make_episode: Any
) -> None:
    chosen = settings(pgrecall_database)
    with Memory.open(proxy.dsn, embedder=HashEmbedder(), settings=chosen) as memory:
        proxy.arm(Cut(5, "before", "stall"))
        with pytest.raises(errors.OutcomeUnknown, match=r"not answered for 0\.5 seconds") as caught:
            memory.episodes.record(**make_episode(external_id="once"))
        assert "same external_id" in str(caught.value)
        memory.episodes.record(**make_episode(external_id="once"))
        assert memory.episodes.count() == 1
        proxy.arm(Cut(5, "before", "stall"))
        with pytest.raises(errors.ConnectionLost, match="not answered"):
            memory.episodes.count()
        assert memory.episodes.count() == 1


async def test_a_coroutine_ends_too(
    pgrecall_database: Database, proxy: Proxy, make_episode: Any
) -> None:
    chosen = settings(pgrecall_database)
    async with await AsyncMemory.open(
        proxy.dsn, embedder=HashEmbedder(), settings=chosen
    ) as memory:
        proxy.arm(Cut(5, "before", "stall"))
        with pytest.raises(errors.OutcomeUnknown, match="not answered"):
            await asyncio.wait_for(memory.episodes.record(**make_episode()), 20)
        assert await memory.episodes.count() == 1


def test_a_server_that_is_silent_while_a_client_opens(
    pgrecall_database: Database, proxy: Proxy
) -> None:
    proxy.arm(None)
    Memory.open(proxy.dsn, embedder=HashEmbedder(), settings=settings(pgrecall_database)).close()
    ready = proxy.seen.index("<ReadyForQuery")
    proxy.arm(Cut(ready + 3, "before", "stall"))
    with pytest.raises(errors.Unavailable, match="not answered"):
        Memory.open(proxy.dsn, embedder=HashEmbedder(), settings=settings(pgrecall_database))


def test_without_a_limit_a_late_answer_is_waited_for(
    pgrecall_database: Database, proxy: Proxy, make_episode: Any
) -> None:
    chosen = settings(pgrecall_database, answer_timeout=0.0)
    with Memory.open(proxy.dsn, embedder=HashEmbedder(), settings=chosen) as memory:
        proxy.arm(Cut(5, "before", "pause"))
        started = time.monotonic()

        async def resume() -> None:
            await asyncio.sleep(PATIENCE * 2)
            proxy.resumed.set()

        async def both() -> None:
            await asyncio.gather(
                resume(), asyncio.to_thread(memory.episodes.record, **make_episode())
            )

        asyncio.run(both())
        assert time.monotonic() - started >= PATIENCE * 2


def test_a_peer_that_is_gone_is_noticed(pgrecall_database: Database) -> None:
    def option(connection: psycopg.Connection[Any], number: int) -> int:
        with socket.socket(fileno=socket.dup(connection.pgconn.socket)) as known:
            return known.getsockopt(socket.IPPROTO_TCP, number)

    with connect(pgrecall_database.dsn, purpose="test") as connection:
        assert option(connection, socket.TCP_USER_TIMEOUT) == 60_000
        assert option(connection, socket.TCP_KEEPIDLE) == 30
    own = make_conninfo(pgrecall_database.dsn, tcp_user_timeout=5_000)
    with connect(own, purpose="test") as connection:
        assert option(connection, socket.TCP_USER_TIMEOUT) == 5_000
    with (
        Memory.open(own, embedder="none", settings=pgrecall_database.settings) as memory,
        memory._database.statement(None, writing=False) as lent,
    ):
        assert option(lent, socket.TCP_USER_TIMEOUT) == 5_000
        assert option(lent, socket.TCP_KEEPIDLE) == 30


def test_what_a_connection_string_says_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGCONNECT_TIMEOUT", raising=False)
    assert transport_options("", connect_timeout=10)["connect_timeout"] == 10
    assert "connect_timeout" not in transport_options("connect_timeout=3", connect_timeout=10)
    assert transport_options("service=mine", connect_timeout=10) == {}
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "3")
    assert "connect_timeout" not in transport_options("", connect_timeout=10)


def test_an_operator_s_command_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgrecall.driver.connecting.CONNECT_TIMEOUT", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(errors.Unavailable, match="timeout"):
            connect(f"postgresql://a@127.0.0.1:{port}/b", purpose="test")
        assert time.monotonic() - started < 30
