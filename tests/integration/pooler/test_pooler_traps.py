"""What a transaction pooler breaks, shown to be real on this one, and what keeps us from it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.conftest import MakeEpisode
from tests.integration.pooler.conftest import Serve, Served
from tests.pgbouncer import needs_pgbouncer

from pgrecall import Memory
from pgrecall.config import load_settings
from pgrecall.driver import connect_session, is_pooled
from pgrecall.driver.settings import RECALL_SETTINGS
from pgrecall.embedding.base import Embedder
from pgrecall.errors import ConnectionLost, OperationRefused, PgrecallError, Unavailable
from pgrecall.migrations import runner
from pgrecall.ops.provision import destroy, init
from pgrecall.testing import Database, Template

pytestmark = needs_pgbouncer

Connect = Callable[..., psycopg.Connection[Any]]


@pytest.fixture
def connect(serve: Serve) -> Iterator[Connect]:
    """Connect as the application through a pooler with few server connections."""
    served = serve(default_pool_size=2)
    with ExitStack() as stack:

        def start(**options: Any) -> psycopg.Connection[Any]:
            connection = psycopg.connect(served.dsn, autocommit=True, **options)
            return stack.enter_context(connection)

        yield start


@contextmanager
def occupied(connection: psycopg.Connection[Any]) -> Iterator[int]:
    """Hold the server connection that others would get; gives its process id."""
    with connection.transaction():
        row = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
        yield row[0] if row else 0


def open_memory(served: Served, embedder: Embedder, **settings: Any) -> Memory:
    return Memory.open(
        served.dsn, embedder=embedder, settings=served.database.settings.model_copy(update=settings)
    )


def test_a_pooler_is_found_out(served: Served) -> None:
    for dsn, expected in ((served.dsn, True), (served.database.dsn, False)):
        for _ in range(3):
            with psycopg.connect(dsn) as connection:
                row = connection.execute("SELECT pg_backend_pid()").fetchone()
                assert row is not None
                assert is_pooled(connection, row[0]) is expected
                # Comparing the ids of two transactions says nothing: they are mostly the same.
                connection.commit()
                assert connection.execute("SELECT pg_backend_pid()").fetchone() == row


def run_prepared(connect: Connect, **options: Any) -> int:
    """Run the same statement often on two clients that share server connections; count errors."""
    failures = 0
    clients = [connect(**options) for _ in range(3)]
    for _ in range(20):
        for client in clients:
            with occupied(clients[-1] if client is not clients[-1] else clients[0]):
                try:
                    client.execute("SELECT 1 + %s", [1])
                except psycopg.Error:
                    failures += 1
    return failures


def test_prepared_statements(connect: Connect) -> None:
    assert run_prepared(connect) > 0  # the driver's default: prepared at the sixth time
    assert run_prepared(connect, prepare_threshold=0) > 0
    assert run_prepared(connect, prepare_threshold=None) == 0


def test_our_pool_prepares_nothing_behind_a_pooler(
    serve: Serve, pgrecall_embedder: Embedder, make_episode: MakeEpisode
) -> None:
    served = serve(default_pool_size=2)
    with ExitStack() as stack:
        memories = [
            stack.enter_context(open_memory(served, pgrecall_embedder, pool_max_size=2))
            for _ in range(3)
        ]
        blocker = stack.enter_context(psycopg.connect(served.dsn, autocommit=True))
        for turn in range(8):
            for memory in memories:
                memory.episodes.record(**make_episode())
                if turn % 2:
                    with occupied(blocker):
                        memory.episodes.list(limit=1)
        assert prepared_on(served) == []
    # On a direct connection the pool does prepare, so the look above can fail.
    direct = served.database.settings
    with Memory.open(served.database.dsn, embedder=pgrecall_embedder, settings=direct) as memory:
        database = memory.episodes._database
        for _ in range(4):
            memory.episodes.list(limit=1)
        with database._pool.connection() as own:
            assert own.execute("SELECT count(*) > 0 FROM pg_prepared_statements").fetchone() == (
                True,
            )


def prepared_on(served: Served) -> list[Any]:
    """Return the prepared statements on all server connections of the application's pool."""
    found: list[Any] = []
    for client in all_backends(served):
        found += client.execute("SELECT statement FROM pg_prepared_statements").fetchall()
        client.rollback()
    return found


def all_backends(served: Served, most: int = 2) -> Iterator[psycopg.Connection[Any]]:
    """Give a client on each server connection of the pool, all held at once."""
    with ExitStack() as stack:
        clients = []
        pids = set()
        for _ in range(most):
            client = stack.enter_context(psycopg.connect(served.dsn, prepare_threshold=None))
            row = client.execute("SELECT pg_backend_pid()").fetchone()
            assert row is not None
            pids.add(row[0])
            clients.append(client)
        assert len(pids) == most
        yield from clients


def test_on_a_caller_s_connection_nothing_is_prepared(
    serve: Serve, pgrecall_embedder: Embedder, make_episode: MakeEpisode
) -> None:
    served = serve(default_pool_size=2)
    vector = pgrecall_embedder.embed(["backlog"], "query")[0]
    # The client's own way is direct, so it knows nothing of the pooler on the caller's.
    direct = served.database.settings
    with (
        Memory.open(served.database.dsn, embedder=pgrecall_embedder, settings=direct) as memory,
        psycopg.connect(served.dsn, autocommit=True, prepare_threshold=0) as mine,
        psycopg.connect(served.dsn, autocommit=True, prepare_threshold=None) as other,
    ):
        for turn in range(12):
            episode = memory.episodes.prepare(**make_episode())
            with occupied(other) if turn % 2 else ExitStack():
                memory.episodes.record(episode, connection=mine)
                memory.episodes.recall(embedding=vector, connection=mine)
                memory.episodes.list(limit=1, connection=mine)
                memory.sessions.list(connection=mine)
        assert prepared_on(served) == []
        with mine.transaction():
            mine.execute("SELECT 41 + 1")  # the caller's own does get prepared, at the first time
            rows = mine.execute("SELECT statement FROM pg_prepared_statements", prepare=False)
            assert rows.fetchall() == [("SELECT 41 + 1",)]


def test_settings_reach_other_clients(connect: Connect) -> None:
    first, second = connect(prepare_threshold=None), connect(prepare_threshold=None)
    first.execute("SET my.project = 'apollo'")
    show = "SELECT current_setting('my.project', true)"
    assert second.execute(show).fetchone() == ("apollo",)  # a tenant's setting, at another's
    with first.transaction():
        first.execute("SELECT set_config('my.other', 'apollo', true)")
    assert second.execute("SELECT nullif(current_setting('my.other', true), '')").fetchone() == (
        None,
    )


def test_our_settings_stay_within_a_transaction(
    serve: Serve, admin: psycopg.Connection[Any], pgrecall_embedder: Embedder,
    make_episode: MakeEpisode,
) -> None:  # fmt: skip
    served = serve(default_pool_size=2)
    forget_role_settings(admin, served.database)
    vector = pgrecall_embedder.embed(["backlog"], "query")[0]
    with (
        open_memory(served, pgrecall_embedder) as memory,
        psycopg.connect(served.dsn, prepare_threshold=None) as mine,
    ):
        # The role carries none, so each recall sets what it needs, and does so for itself.
        memory.episodes.record(**make_episode())
        assert len(memory.episodes.recall("backlog", limit=1)) == 1
        assert len(memory.episodes.recall(embedding=vector, limit=1, connection=mine)) == 1
        assert ours_left(mine) == []
        mine.commit()
        for client in all_backends(served):
            assert ours_left(client) == []
            # The look can fail: a plain SET is seen by it.
            client.execute("SET hnsw.ef_search = 77")
            assert [row[0] for row in ours_left(client)] == ["hnsw.ef_search"]


def forget_role_settings(admin: psycopg.Connection[Any], database: Database) -> None:
    user = psycopg.conninfo.conninfo_to_dict(database.dsn)["user"]
    admin.execute(f'ALTER ROLE "{user}" IN DATABASE "{database.name}" RESET ALL'.encode())


def ours_left(connection: psycopg.Connection[Any]) -> list[Any]:
    """Return those of the settings for recall that a session has set."""
    return connection.execute(
        # The cast loads the vector library, without which its settings don't show.
        "SELECT name, setting FROM pg_settings"
        " WHERE name = ANY (%s) AND source = 'session' AND '[1]'::vector IS NOT NULL",
        [[*RECALL_SETTINGS]],
    ).fetchall()


def test_options_at_connecting_are_refused(
    served: Served, pgrecall_embedder: Embedder, make_episode: MakeEpisode
) -> None:
    dsn = make_conninfo(served.dsn, options="-c statement_timeout=1000")
    with pytest.raises(psycopg.OperationalError, match="unsupported startup parameter: options"):
        psycopg.connect(dsn)
    settings = served.database.settings
    with pytest.raises(Unavailable, match="attach the setting to the role"):
        Memory.open(dsn, embedder=pgrecall_embedder, settings=settings)
    with Memory.open(served.dsn, embedder=pgrecall_embedder, settings=settings) as memory:
        memory.episodes.record(**make_episode())  # we connect without any


def test_notifications_get_lost(served: Served) -> None:
    with (
        psycopg.connect(served.dsn, autocommit=True) as listener,
        psycopg.connect(served.database.dsn, autocommit=True) as sender,
    ):
        listener.execute("LISTEN news")
        for _ in range(10):
            sender.execute("NOTIFY news")
        assert list(listener.notifies(timeout=1, stop_after=10)) == []
    with pytest.raises(OperationRefused, match="notifications get lost") as caught:
        connect_session(served.dsn, purpose="test")
    assert "PGRECALL_DIRECT_DSN" in str(caught.value)
    with (
        connect_session(served.database.dsn, purpose="test") as listener,
        psycopg.connect(served.database.dsn, autocommit=True) as sender,
    ):
        listener.execute("LISTEN news")
        sender.execute("NOTIFY news")
        assert len(list(listener.notifies(timeout=10, stop_after=1))) == 1


def test_locks_of_a_session_are_given_to_others(connect: Connect) -> None:
    lock = "SELECT pg_try_advisory_lock(42)"
    first, second = connect(), connect()
    assert first.execute(lock).fetchone() == (True,)
    assert second.execute(lock).fetchone() == (True,)  # on the same server connection


def test_migrating_through_a_pooler_is_refused(served: Served, pgrecall_template: Template) -> None:
    owner = served.pooler.through(served.database.owner_dsn)
    with pytest.raises(OperationRefused, match="through a pooler") as caught:
        runner.upgrade(owner, dimensions=64)
    assert "PGRECALL_DIRECT_DSN" in str(caught.value)
    with pytest.raises(OperationRefused, match="through a pooler"):
        runner.adopt(owner, dimensions=64)
    assert runner.upgrade(served.database.owner_dsn, dimensions=64) == []
    settings = load_settings(config_dir=pgrecall_template.settings.config_dir / "x")
    name = f"pgrecall_test_{secrets.token_hex(4)}"
    with pytest.raises(OperationRefused, match="through a pooler"):
        init(owner, database=name, settings=settings)
    with pytest.raises(OperationRefused, match="through a pooler"):
        destroy(owner, database=name, settings=settings)


def test_waiting_in_vain_for_the_pooler_loses_nothing(
    serve: Serve, pgrecall_embedder: Embedder, make_episode: MakeEpisode
) -> None:
    served = serve(default_pool_size=1, settings={"query_wait_timeout": "1"})
    with (
        open_memory(served, pgrecall_embedder) as memory,
        psycopg.connect(served.dsn, prepare_threshold=None) as other,
    ):
        other.execute("SELECT 1")  # holds the only server connection
        # No server saw the statement, so it is known that nothing was written.
        with pytest.raises(PgrecallError) as caught:
            memory.episodes.record(**make_episode())
        assert type(caught.value) is ConnectionLost, caught.value
        assert "query_wait_timeout" in str(caught.value)
        other.rollback()
        assert memory.episodes.count() == 0
