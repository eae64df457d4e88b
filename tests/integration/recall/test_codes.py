"""Codes follow their rows, whoever writes them; and what happens where they do not."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.integration.recall.conftest import Filled

from pgrecall import Memory, errors
from pgrecall.models import EpisodeFilters
from pgrecall.testing import Database

INSERT = (
    "INSERT INTO agent_episodes (episode_id, project_id, perception, reasoning, action, "
    "agent_version, embedding) VALUES (%s, %s, '{}', '{}', '{}', '1', %s::text::vector)"
)
UP_TO_DATE = """
SELECT (SELECT count(*) FROM agent_episodes WHERE embedding IS NOT NULL) AS vectors,
       (SELECT count(*) FROM pgrecall.episode_codes) AS codes,
       (SELECT count(*) FROM pgrecall.episode_codes AS c
          JOIN agent_episodes AS e ON e.episode_id = c.episode_id AND e.project_id = c.project_id
         WHERE c.code = pgrecall.code(e.embedding, pgrecall.thresholds(vector_dims(e.embedding)))
       ) AS right
"""


def vector(seed: int, dimensions: int = 64) -> str:
    return str(np.random.default_rng(seed).normal(size=dimensions).round(4).tolist())


def state(connection: psycopg.Connection[Any]) -> tuple[int, int, int]:
    found = connection.execute(UP_TO_DATE).fetchone()
    assert found is not None
    return (int(found[0]), int(found[1]), int(found[2]))


def test_plain_sql_keeps_the_codes(pgrecall_database: Database) -> None:
    ids = [uuid.uuid4() for _ in range(4)]
    with psycopg.connect(pgrecall_database.dsn, autocommit=True) as app:
        app.cursor().executemany(INSERT, [(id_, "p", vector(i)) for i, id_ in enumerate(ids)])
        app.execute(INSERT, [uuid.uuid4(), "p", None])
        assert state(app) == (4, 4, 4)
        app.execute("UPDATE agent_episodes SET embedding = %s::text::vector", [vector(9)])
        assert state(app) == (5, 5, 5)
        app.execute("UPDATE agent_episodes SET project_id = 'q' WHERE episode_id = %s", [ids[0]])
        app.execute("UPDATE agent_episodes SET embedding = NULL WHERE episode_id = %s", [ids[1]])
        assert state(app) == (4, 4, 4)
        app.execute("DELETE FROM agent_episodes WHERE episode_id = ANY (%s)", [ids[:3]])
        assert state(app) == (2, 2, 2)
        with app.transaction(force_rollback=True):
            app.execute(INSERT, [uuid.uuid4(), "p", vector(1)])
        with app.cursor().copy(
            "COPY agent_episodes (project_id, perception, reasoning, action, agent_version, "
            "embedding) FROM STDIN"
        ) as copying:
            for i in range(50):
                copying.write_row(("p", Jsonb({}), Jsonb({}), Jsonb({}), "1", vector(i)))
        assert state(app) == (52, 52, 52)
    with psycopg.connect(pgrecall_database.owner_dsn, autocommit=True) as owner:
        owner.execute("TRUNCATE agent_episodes")
        assert state(owner) == (0, 0, 0)


def test_the_client_keeps_the_codes(memory: Memory, make_episode: Any) -> None:
    episodes = [memory.episodes.record(**make_episode(external_id=str(i))) for i in range(4)]
    memory.episodes.record(**make_episode(external_id="0"))  # again: it is not written
    memory.episodes.record(**make_episode(external_id="later"), embed="later")
    memory.episodes.delete(episodes[0].episode_id)
    memory.episodes.record_outcome(episodes[1].episode_id, {"done": 1}, 0.5)
    known = memory.knowledge.add(
        "strategy", "x", {}, supporting_episodes=[e.episode_id for e in episodes[1:]]
    )
    with psycopg.connect(memory._database._dsn, autocommit=True) as connection:
        assert state(connection) == (3, 3, 3)
        count = "SELECT count(*) FROM pgrecall.knowledge_codes"
        assert connection.execute(count).fetchone() == (1,)
        memory.knowledge.delete(known.knowledge_id)
        assert connection.execute(count).fetchone() == (0,)


def test_an_outcome_that_comes_later_touches_no_code(pgrecall_database: Database) -> None:
    with psycopg.connect(pgrecall_database.dsn, autocommit=True) as app:
        app.execute(INSERT, [uuid.uuid4(), "p", vector(1)])
        where = "SELECT ctid FROM pgrecall.episode_codes"
        before = app.execute(where).fetchall()
        app.execute("UPDATE agent_episodes SET outcome_quality = 0.5, outcome = '{}'")
        assert app.execute(where).fetchall() == before


def test_nobody_writes_codes_but_the_triggers(pgrecall_database: Database) -> None:
    for role in ("app", "readonly", "monitor"):
        with psycopg.connect(pgrecall_database.role_dsn(role), autocommit=True) as connection:
            for table in ("episode_codes", "knowledge_codes", "embedding_models"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(f"DELETE FROM pgrecall.{table}".encode())
            if role == "app":
                connection.execute("CREATE TEMP TABLE mine (LIKE agent_episodes)")
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(
                        "CREATE TRIGGER mine AFTER INSERT ON mine REFERENCING NEW TABLE AS "
                        "new_rows FOR EACH STATEMENT EXECUTE FUNCTION pgrecall.code_new_episodes()"
                    )


def test_codes_are_made_again(small: Filled) -> None:
    with psycopg.connect(small.database.owner_dsn, autocommit=True) as owner:
        owner.execute("ALTER TABLE agent_episodes DISABLE TRIGGER USER")
        owner.execute("DELETE FROM agent_episodes WHERE project_id = 'p1'")
        owner.execute("DELETE FROM pgrecall.episode_codes WHERE project_id = 'p0'")
        owner.execute("ALTER TABLE agent_episodes ENABLE TRIGGER USER")
        vectors, codes, right = state(owner)
        assert right < vectors
        owner.execute("CALL pgrecall.code_all(100)")
        vectors, codes, right = state(owner)
        assert vectors == codes == right


def test_columns_of_another_length(small: Filled) -> None:
    query = vector(3, 16)
    with psycopg.connect(small.database.owner_dsn, autocommit=True) as owner:
        for table in ("agent_episodes", "agent_knowledge"):
            owner.execute(
                f"ALTER TABLE {table} ALTER COLUMN embedding TYPE vector(16) "
                "USING subvector(embedding, 1, 16)".encode()
            )
        recall = "SELECT account FROM pgrecall.recall_episodes(%s::text::vector, p_explain => true)"
        (account,) = owner.execute(recall, [query]).fetchone() or ({},)
        assert not account["coded"]
        assert account["route"] in ("exact", "index")
        owner.execute(INSERT, [uuid.uuid4(), "p0", query])
        owner.execute("CALL pgrecall.code_all()")
        vectors, codes, right = state(owner)
        assert vectors == codes == right == 601
        (account,) = owner.execute(recall, [query]).fetchone() or ({},)
        assert account["coded"]


INDEX = "SELECT pg_get_indexdef('idx_episodes_embedding'::regclass)"
TROUBLES = {
    "no index": ["DROP INDEX idx_episodes_embedding"],
    "an invalid index": [
        "UPDATE pg_index SET indisvalid = false "  # noqa: ISC004
        "WHERE indexrelid = 'idx_episodes_embedding'::regclass",
    ],
    "codes that are not complete": ["UPDATE pgrecall.embedding_models SET coded = false"],
    "neither": [
        "DROP INDEX idx_episodes_embedding",
        "UPDATE pgrecall.embedding_models SET coded = false",
    ],
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_right_answers_whatever_is_missing(
    small: Filled, admin: psycopg.Connection[Any], trouble: str
) -> None:
    for statement in TROUBLES[trouble]:
        admin.execute(statement.encode())
    every: list[EpisodeFilters] = [{}, {"project_id": "p1"}, {"agent_version": "1.1"}]
    for filters in every:
        query = small.query(known=True)
        truth = small.nearest(query, lambda row, given=filters: given.items() <= row.items(), 10)  # type: ignore[misc]
        hits = small.memory.episodes.recall(
            embedding=query,
            limit=10,
            outcome_weight=0,
            explain=True,
            **filters,
        )
        assert [hit.episode.external_id for hit in hits] == truth, filters
        assert hits.account is not None
        assert hits.account.indexed == (trouble == "codes that are not complete")
        assert hits.account.coded == ("index" in trouble)
        assert ("there is no valid vector index" in hits.account.why) != hits.account.indexed


def test_recalls_while_an_index_is_built(small: Filled, admin: psycopg.Connection[Any]) -> None:
    (definition,) = admin.execute(INDEX).fetchone() or ("",)
    concurrently = definition.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY", 1)
    admin.execute("DROP INDEX idx_episodes_embedding")

    def build() -> None:
        with psycopg.connect(small.database.owner_dsn, autocommit=True) as owner:
            owner.execute(concurrently.encode())

    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(small.database.dsn) as holds_it_up,
    ):
        # A build waits for whoever may still see the table as it was before.
        holds_it_up.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        holds_it_up.execute("SELECT count(*) FROM agent_episodes")
        building = pool.submit(build)
        deadline = time.monotonic() + 30
        while not admin.execute("SELECT FROM pg_stat_progress_create_index").fetchall():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        hits = small.memory.episodes.recall(embedding=small.query(known=True), explain=True)
        assert not building.done()
        holds_it_up.rollback()
        building.result(timeout=30)
    assert len(hits) == 10
    assert hits.account is not None
    assert not hits.account.indexed
    hits = small.memory.episodes.recall(embedding=small.query(known=True), explain=True)
    assert hits.account is not None
    assert hits.account.indexed


def test_an_index_on_half_precision_is_used(small: Filled, admin: psycopg.Connection[Any]) -> None:
    admin.execute("DROP INDEX idx_episodes_embedding")
    admin.execute(
        "CREATE INDEX idx_episodes_embedding ON agent_episodes "
        "USING hnsw ((embedding::halfvec(64)) halfvec_cosine_ops)"
    )
    query = small.query(known=True)
    hits = small.memory.episodes.recall(
        embedding=query, route="index", explain=True, outcome_weight=0
    )
    assert hits.account is not None
    assert "idx_episodes_embedding" in {step.index for step in hits.account.plan}
    truth = small.nearest(query, lambda _row: True, 10)
    assert len({hit.episode.external_id for hit in hits} & set(truth)) >= 9


def test_a_route_that_is_none(small: Filled) -> None:
    with pytest.raises(errors.InvalidInput, match="route is 'luck'"):
        small.memory.episodes.recall("x", route="luck")  # type: ignore[arg-type]
