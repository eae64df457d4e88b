"""On a caller's connection memory shares the caller's fate, and leaves nothing else behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from pgrecall import Memory, errors
from pgrecall.testing import Database


@pytest.fixture
def caller(pgrecall_database: Database) -> Iterator[psycopg.Connection[Any]]:
    """A connection as an application has it: no autocommit, nothing registered."""
    with psycopg.connect(pgrecall_database.dsn) as connection:
        yield connection
        connection.rollback()


def test_writes_commit_with_the_callers_work(
    memory: Memory, caller: psycopg.Connection[Any], make_episode: Any
) -> None:
    prepared = memory.episodes.prepare(**make_episode())
    episode = memory.episodes.record(prepared, connection=caller)
    memory.episodes.record_outcome(episode.episode_id, quality=1, connection=caller)
    assert caller.info.transaction_status == TransactionStatus.INTRANS
    with pytest.raises(errors.NotFound):
        memory.episodes.get(episode.episode_id)
    caller.commit()
    assert memory.episodes.get(episode.episode_id).outcome_quality == 1


def test_writes_roll_back_with_the_callers_work(
    memory: Memory, caller: psycopg.Connection[Any], make_episode: Any
) -> None:
    kept = [memory.episodes.record(**make_episode()) for _ in range(3)]
    prepared = memory.episodes.prepare(**make_episode())
    memory.episodes.record(prepared, connection=caller)
    memory.episodes.record_many([prepared, prepared], connection=caller)
    memory.episodes.delete(kept[0].episode_id, connection=caller)
    memory.knowledge.add(
        "strategy", "x", {}, connection=caller, embedding=[1.0] * memory.dimensions,
        supporting_episodes=[memory.episodes.record(prepared, connection=caller).episode_id,
                             kept[1].episode_id, kept[2].episode_id],
    )  # fmt: skip
    memory.sessions.open(project_id="apollo", connection=caller)
    assert memory.episodes.count(connection=caller) == 6
    caller.rollback()
    assert memory.episodes.count() == 3
    assert len(memory.knowledge.list()) == len(memory.sessions.list()) == 0


def test_an_idle_autocommit_connection_commits_each_call(
    memory: Memory, pgrecall_database: Database, make_episode: Any
) -> None:
    with psycopg.connect(pgrecall_database.dsn, autocommit=True) as caller:
        memory.episodes.record(**make_episode(), embed="later", connection=caller)
        assert caller.info.transaction_status == TransactionStatus.IDLE
        assert memory.episodes.count() == 1
        with caller.transaction(force_rollback=True):
            memory.episodes.record(**make_episode(), embed="later", connection=caller)
        assert memory.episodes.count() == 1


def test_a_refused_write_leaves_the_callers_transaction_usable(
    memory: Memory, caller: psycopg.Connection[Any], make_episode: Any
) -> None:
    first = memory.episodes.record(
        **make_episode(external_id="a"), embed="later", connection=caller
    )
    with pytest.raises(errors.Conflict):
        memory.episodes.record(
            **make_episode(external_id="a", action={"other": 1}), embed="later", connection=caller
        )
    with pytest.raises(errors.PgrecallError, match="must be owner"):
        memory._database.execute("DROP TABLE agent_episodes", {}, connection=caller)
    caller.commit()
    assert memory.episodes.get(first.episode_id) == first


def test_nothing_of_ours_stays_on_the_connection(
    memory: Memory, caller: psycopg.Connection[Any], make_episode: Any
) -> None:
    memory.episodes.record_many(
        [make_episode(embedding=[float(i + 1)] * memory.dimensions) for i in range(5)]
    )
    settings = "SELECT name, setting FROM pg_settings ORDER BY name"
    # What loads a library brings its settings; loading it is no setting.
    caller.execute("SELECT '[1]'::vector")
    caller.execute("DO 'BEGIN END'")
    before = caller.execute(settings).fetchall()
    assert caller.adapters.types.get("vector") is None
    hits = memory.episodes.recall(
        embedding=[1.0] * memory.dimensions, group_repeats=False, connection=caller
    )
    assert len(hits) == 5
    assert memory.episodes.embeddings([hits[0].episode.episode_id], connection=caller)
    assert caller.execute(settings).fetchall() == before
    assert caller.adapters.types.get("vector") is None
    assert caller.execute("SELECT '[1]'::vector").fetchone() == ("[1]",)
    assert caller.row_factory is psycopg.rows.tuple_row


def test_a_callers_settings_survive_a_recall(
    memory: Memory, caller: psycopg.Connection[Any]
) -> None:
    caller.execute("SELECT '[1]'::vector")
    caller.execute("SET LOCAL hnsw.ef_search = 77")
    memory.episodes.recall(embedding=[1.0] * memory.dimensions, connection=caller)
    assert caller.execute("SHOW hnsw.ef_search").fetchone() == ("77",)


def test_a_callers_connection_leaves_no_metrics(
    memory: Memory, caller: psycopg.Connection[Any], make_episode: Any
) -> None:
    memory.episodes.record(**make_episode(), embed="later", connection=caller)
    memory.episodes.list(connection=caller)
    caller.commit()
    assert memory.metrics.flush() == 0


def test_no_model_works_inside_a_callers_transaction(
    memory: Memory, caller: psycopg.Connection[Any], make_episode: Any
) -> None:
    with pytest.raises(errors.InvalidInput, match=r"prepare\(\) before"):
        memory.episodes.record(**make_episode(), connection=caller)
    with pytest.raises(errors.InvalidInput, match=r"memory.embed\(text\)"):
        memory.episodes.recall("backlog", connection=caller)
    (vector,) = memory.embed("backlog")
    assert memory.episodes.recall(embedding=vector, connection=caller) == []


def test_only_psycopg_connections_are_taken(memory: Memory) -> None:
    with pytest.raises(errors.InvalidInput, match="connection is a builtins.str"):
        memory.episodes.list(connection="postgresql://")  # type: ignore[arg-type]


def test_an_aborted_transaction_is_said_to_be_one(
    memory: Memory, caller: psycopg.Connection[Any]
) -> None:
    with pytest.raises(psycopg.Error):
        caller.execute("SELECT 1/0")
    with pytest.raises(errors.DatabaseError, match="aborted"):
        memory.episodes.list(connection=caller)
