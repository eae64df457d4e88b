"""Many clients share few server connections: nobody fails, nobody sees another's settings."""

from __future__ import annotations

import threading
import uuid
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from tests.conftest import MakeEpisode
from tests.integration.pooler.conftest import Serve
from tests.pgbouncer import needs_pgbouncer

from pgrecall import Memory
from pgrecall.driver.settings import RECALL_SETTINGS
from pgrecall.embedding.base import Embedder
from pgrecall.errors import NotFound

pytestmark = needs_pgbouncer

CLIENTS = 32
POOL = 4
TURNS = 6


@pytest.mark.parametrize("carried", [True, False], ids=["role carries settings", "set locally"])
def test_many_clients_on_a_small_pool(
    carried: bool,
    serve: Serve,
    admin: psycopg.Connection[Any],
    pgrecall_embedder: Embedder,
    make_episode: MakeEpisode,
) -> None:
    served = serve(default_pool_size=POOL)
    user = str(conninfo_to_dict(served.dsn)["user"])
    if not carried:
        reset = sql.SQL("ALTER ROLE {} IN DATABASE {} RESET ALL")
        admin.execute(reset.format(*map(sql.Identifier, (user, served.database.name))))
    settings = served.database.settings.model_copy(update={"pool_max_size": 1})
    failures: list[BaseException] = []
    strangers: list[Any] = []
    start = threading.Barrier(CLIENTS)

    def client(number: int) -> None:
        project = f"project-{number}"
        try:
            with (
                Memory.open(served.dsn, embedder=pgrecall_embedder, settings=settings) as memory,
                psycopg.connect(served.dsn) as mine,
            ):
                start.wait(60)
                for turn in range(TURNS):
                    work(memory, mine, project, turn, make_episode, strangers)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test tells it
            failures.append(error)
            start.abort()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    assert failures == []
    assert strangers == []
    counted = admin.execute("SELECT count(*), count(outcome_quality) FROM agent_episodes")
    assert counted.fetchone() == (CLIENTS * TURNS * 2, CLIENTS * TURNS)
    look_at_every_server_connection(served.dsn)
    used = admin.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = %s",
        [user],
    ).fetchone()
    assert used == (POOL,)


def work(
    memory: Memory,
    mine: psycopg.Connection[Any],
    project: str,
    turn: int,
    make_episode: MakeEpisode,
    strangers: list[Any],
) -> None:
    """One turn of an agent: its own calls, and one transaction of its caller's."""
    values = {"project_id": project, "action": {"turn": turn}}
    episode = memory.episodes.record(**make_episode(**values))
    memory.episodes.record_outcome(episode.episode_id, quality=0.5)
    hits = memory.episodes.recall("velocity declining", project_id=project, limit=3)
    assert hits
    assert {hit.episode.project_id for hit in hits} == {project}
    session = memory.sessions.open(project_id=project, goal="plan")
    memory.sessions.close(session.session_id)
    with pytest.raises(NotFound):
        memory.episodes.get(uuid.uuid4())
    prepared = memory.episodes.prepare(**make_episode(**values))
    with mine.transaction():
        # What a service with row-level security does, for this transaction only.
        before = "SELECT nullif(current_setting('app.project_id', true), '')"
        found = mine.execute(before, prepare=False).fetchone()
        if found != (None,):
            strangers.append(found)
        mine.execute("SELECT set_config('app.project_id', %s, true)", [project], prepare=False)
        memory.episodes.record(prepared, connection=mine)
        assert prepared.embedding is not None
        memory.episodes.recall(
            embedding=prepared.embedding, project_id=project, limit=2, connection=mine
        )
        assert mine.execute(before, prepare=False).fetchone() == (project,)


def look_at_every_server_connection(dsn: str) -> None:
    """Hold all server connections of the pool at once, and look at what is set on each."""
    with ExitStack() as stack:
        pids = set()
        for _ in range(POOL):
            held = stack.enter_context(psycopg.connect(dsn))
            row = held.execute(
                "SELECT pg_backend_pid(), nullif(current_setting('app.project_id', true), ''),"
                " (SELECT count(*) FROM pg_prepared_statements)"
            ).fetchone()
            assert row is not None
            pids.add(row[0])
            assert row[1:] == (None, 0)
            # The cast loads the vector library, without which its settings don't show.
            left = held.execute(
                "SELECT name, setting FROM pg_settings WHERE source = 'session'"
                " AND (name = ANY (%s) OR name LIKE '%%timeout') AND '[1]'::vector IS NOT NULL",
                [[*RECALL_SETTINGS]],
                prepare=False,
            ).fetchall()
            assert left == []
        assert len(pids) == POOL
