"""A server that was stopped says nothing: a call must not wait for ever."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.conftest import MakeEpisode

from pgrecall import Memory
from pgrecall.embedding.base import Embedder
from pgrecall.errors import DatabaseError
from pgrecall.testing import Database


@pytest.fixture
def patient(pgrecall_database: Database, pgrecall_embedder: Embedder) -> Iterator[Memory]:
    settings = pgrecall_database.settings.model_copy(
        update={"answer_timeout": 1.0, "connect_timeout": 2.0, "metrics": False}
    )
    with Memory.open(
        pgrecall_database.dsn, embedder=pgrecall_embedder, settings=settings
    ) as memory:
        yield memory


def backends(dsn: str, name: str) -> list[int]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            (name,),
        ).fetchall()
    return [pid for (pid,) in rows]


def test_a_frozen_server_ends_the_call(
    patient: Memory, pgrecall_database: Database, make_episode: MakeEpisode
) -> None:
    patient.episodes.record(**make_episode())
    frozen = [
        pid
        for pid in backends(pgrecall_database.admin_dsn, pgrecall_database.name)
        if Path(f"/proc/{pid}").exists()
    ]
    assert frozen
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        with pytest.raises(DatabaseError):
            patient.episodes.record(**make_episode(project_id="frozen"))
        assert time.monotonic() - started < 30
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    # The next call gets a connection of its own, and works.
    patient.episodes.record(**make_episode())
