"""What a caller is told when the way to the database, or the database, fails."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import conninfo, sql

from pgrecall import Memory, errors
from pgrecall.config import load_settings
from pgrecall.testing import Database, HashEmbedder


class Cutter:
    """A proxy that forwards until a client sends ``marker``, then drops the reply and hangs up.

    What was sent still reaches the server: so it looks when a network fails at the worst moment.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.marker: bytes | None = None
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # the test is over
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        cut = threading.Event()
        with client, socket.create_connection(self._target) as server:
            back = threading.Thread(target=self._forward, args=(server, client, cut), daemon=True)
            back.start()
            # Either side may hang up first; then there is nothing left to forward.
            with contextlib.suppress(OSError):
                self._forward_until_marked(client, server, cut)
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            back.join()

    def _forward_until_marked(
        self, client: socket.socket, server: socket.socket, cut: threading.Event
    ) -> None:
        while data := client.recv(65536):
            if self.marker is not None and self.marker in data:
                cut.set()
                self.cuts += 1
                server.sendall(data)
                time.sleep(0.3)  # the server works on it
                client.shutdown(socket.SHUT_RDWR)
                return
            server.sendall(data)

    def _forward(self, server: socket.socket, client: socket.socket, cut: threading.Event) -> None:
        try:
            while data := server.recv(65536):
                if not cut.is_set():
                    client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)
        except OSError:  # one of the two has hung up, which is what this proxy is for
            return

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def cutter(pgrecall_database: Database) -> Iterator[Cutter]:
    parts = conninfo.conninfo_to_dict(pgrecall_database.dsn)
    cutter = Cutter(str(parts["host"]), int(str(parts["port"])))
    yield cutter
    cutter.close()


@pytest.fixture
def cut_memory(pgrecall_database: Database, cutter: Cutter) -> Iterator[Memory]:
    """A memory behind the proxy."""
    dsn = conninfo.make_conninfo(pgrecall_database.dsn, host="127.0.0.1", port=cutter.port)
    settings = load_settings(
        config_dir=pgrecall_database.settings.config_dir, pool_max_size=2, metrics=False
    )
    with Memory.open(dsn, embedder=HashEmbedder(), settings=settings) as memory:
        yield memory


def test_a_write_whose_reply_is_lost_is_unknown_and_safe_to_repeat(
    cut_memory: Memory, cutter: Cutter, memory: Memory, make_episode: Any
) -> None:
    cutter.marker = b"the-moment"
    values = make_episode(perception={"when": "the-moment"}, external_id="once")
    with pytest.raises(errors.OutcomeUnknown, match="same external_id"):
        cut_memory.episodes.record(**values)
    assert cutter.cuts == 1
    assert memory.episodes.count() == 1  # here it did happen
    cutter.marker = None
    repeated = cut_memory.episodes.record(**values)
    assert repeated.external_id == "once"
    assert memory.episodes.count() == 1


def test_a_commit_whose_reply_is_lost_is_unknown(
    cut_memory: Memory, cutter: Cutter, memory: Memory, make_episode: Any
) -> None:
    cutter.marker = b"COMMIT"
    with pytest.raises(errors.OutcomeUnknown):
        cut_memory.episodes.record_many([make_episode(external_id=str(i)) for i in range(3)])
    assert memory.episodes.count() == 3
    cutter.marker = None
    result = cut_memory.episodes.record_many([make_episode(external_id=str(i)) for i in range(3)])
    assert (result.created, result.existing) == (0, 3)


def test_a_connection_lost_before_the_commit_wrote_nothing(
    cut_memory: Memory, cutter: Cutter, memory: Memory, make_episode: Any
) -> None:
    cutter.marker = b"the-moment"
    with pytest.raises(errors.ConnectionLost, match="nothing was written"):
        cut_memory.episodes.record_many(
            [make_episode(), make_episode(perception={"when": "the-moment"})]
        )
    assert memory.episodes.count() == 0


def test_a_read_that_is_cut_is_no_write(cut_memory: Memory, cutter: Cutter) -> None:
    cutter.marker = b"agent_episodes"
    with pytest.raises(errors.ConnectionLost):
        cut_memory.episodes.list()
    cutter.marker = None
    assert len(cut_memory.episodes.list()) == 0


def test_connections_closed_while_idle_disturb_nobody(
    memory: Memory, admin: psycopg.Connection[Any], make_episode: Any
) -> None:
    memory.episodes.record(**make_episode())
    admin.execute(
        "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert memory.episodes.record(**make_episode()).embedded
    assert memory.episodes.count() == 2


def in_background(call: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    caught: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except errors.PgrecallError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, caught


def test_a_backend_that_is_terminated_while_writing(
    memory: Memory, admin: psycopg.Connection[Any], make_episode: Any
) -> None:
    episode = memory.episodes.record(**make_episode())
    with admin.transaction():
        admin.execute("LOCK TABLE agent_episodes IN EXCLUSIVE MODE")
        thread, caught = in_background(
            lambda: memory.episodes.record_outcome(episode.episode_id, quality=1)
        )
        deadline = time.monotonic() + 20
        while not admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchall():
            assert time.monotonic() < deadline
            time.sleep(0.02)
    thread.join(20)
    assert [type(error) for error in caught] == [errors.OutcomeUnknown]
    assert memory.episodes.get(episode.episode_id).outcome_quality is None


def give_setting(admin: psycopg.Connection[Any], database: Database, name: str, value: str) -> None:
    user = str(conninfo.conninfo_to_dict(database.dsn)["user"])
    admin.execute(
        sql.SQL("ALTER ROLE {} IN DATABASE {} SET {} = {}").format(
            sql.Identifier(user), sql.Identifier(database.name), sql.Identifier(name), value
        )
    )


def test_a_statement_that_takes_too_long(
    pgrecall_database: Database, admin: psycopg.Connection[Any], make_episode: Any
) -> None:
    # As an operator would set it: a pooler takes no options of a connection.
    give_setting(admin, pgrecall_database, "lock_timeout", "100ms")
    dsn = pgrecall_database.dsn
    with Memory.open(dsn, embedder=HashEmbedder(), settings=pgrecall_database.settings) as memory:
        episode = memory.episodes.record(**make_episode())
        with admin.transaction():
            admin.execute("LOCK TABLE agent_episodes IN EXCLUSIVE MODE")
            with pytest.raises(errors.TimedOut, match="lock timeout"):
                memory.episodes.record_outcome(episode.episode_id, quality=1)


def test_a_server_that_takes_no_writes(
    pgrecall_database: Database, admin: psycopg.Connection[Any], make_episode: Any
) -> None:
    give_setting(admin, pgrecall_database, "default_transaction_read_only", "on")
    dsn = pgrecall_database.dsn
    with Memory.open(dsn, embedder=HashEmbedder(), settings=pgrecall_database.settings) as memory:
        with pytest.raises(errors.ReadOnlyServer, match="connect to the primary"):
            memory.episodes.record(**make_episode())
        assert memory.episodes.recall("backlog") == []


def test_a_role_without_the_right(pgrecall_database: Database, make_episode: Any) -> None:
    with Memory.open(
        pgrecall_database.role_dsn("readonly"),
        embedder=HashEmbedder(),
        settings=pgrecall_database.settings,
    ) as memory:
        with pytest.raises(errors.PermissionDenied, match="agent_episodes"):
            memory.episodes.record(**make_episode())
        assert memory.episodes.recall("backlog") == []


def test_no_server_at_all() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(errors.Unavailable, match="refused"):
        Memory.open(f"postgresql://127.0.0.1:{port}/agent_memory")


def test_a_database_that_holds_no_memory(admin_dsn: str) -> None:
    with pytest.raises(errors.SchemaMissing, match="pgrecall init"):
        Memory.open(admin_dsn)


@pytest.mark.parametrize(
    ("revision", "error", "hint"),
    [
        ("1.0.0", errors.SchemaTooOld, "pgrecall migrate"),
        ("99.0", errors.SchemaTooNew, "upgrade pgrecall"),
    ],
)
def test_a_schema_of_another_version(
    pgrecall_database: Database,
    admin: psycopg.Connection[Any],
    revision: str,
    error: type[errors.PgrecallError],
    hint: str,
) -> None:
    admin.execute("UPDATE pgrecall.alembic_version SET version_num = %s", [revision])
    with pytest.raises(error, match=revision) as caught:
        Memory.open(pgrecall_database.dsn)
    assert hint in str(caught.value)


def test_an_embedder_of_another_dimension(pgrecall_database: Database) -> None:
    with pytest.raises(errors.ConfigurationError, match="64") as caught:
        Memory.open(pgrecall_database.dsn, embedder=HashEmbedder(32))
    assert "32" in str(caught.value)


def test_a_fork_gets_connections_of_its_own(pgrecall_database: Database) -> None:
    program = """
import os, sys
from pgrecall import Memory
from pgrecall.testing import HashEmbedder
with Memory.open(sys.argv[1], embedder=HashEmbedder()) as memory:
    values = dict(agent_version="1", perception={"a": "b"}, reasoning={}, action={})
    memory.episodes.record(project_id="parent", **values)
    child = os.fork()
    if child == 0:
        memory.episodes.record(project_id="child", **values)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    memory.episodes.record(project_id="parent", **values)
    assert memory.episodes.count(project_id="parent") == 2
    assert memory.episodes.count(project_id="child") == 1
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, pgrecall_database.dsn],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_secrets_stay_out_of_errors_and_reprs(pgrecall_database: Database) -> None:
    password = str(conninfo.conninfo_to_dict(pgrecall_database.dsn)["password"])
    wrong = conninfo.make_conninfo(pgrecall_database.dsn, password="hunter2-wrong")
    with pytest.raises(errors.Unavailable, match="authentication") as caught:
        Memory.open(wrong)
    assert "hunter2" not in str(caught.value)
    with Memory.open(
        pgrecall_database.dsn, embedder=HashEmbedder(), settings=load_settings(dsn=wrong)
    ) as memory:
        assert password not in repr(vars(memory))
        assert "hunter2" not in repr(memory._database.settings)


@pytest.mark.parametrize("dsn", ["just words", "postgresql://u:hunter2@h/db?colour=red"])
def test_a_connection_string_that_cannot_be_read(dsn: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="cannot be read") as caught:
        Memory.open(dsn)
    assert caught.value.__cause__ is None
    assert "hunter2" not in str(caught.value)
