"""Episodes of bursts: theirs is another place, and nothing else is theirs."""

from __future__ import annotations

import subprocess
import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo
from tests.integration.bursts.conftest import counts, episode, merge_all, unit
from tests.integration.words.conftest import check_statistics

from pgrecall import Memory
from pgrecall.errors import NotFound
from pgrecall.models import Route
from pgrecall.ops.backup import tools
from pgrecall.ops.embeddings import Switch
from pgrecall.testing import Database

Owner = psycopg.Connection[Any]


def fill(memory: Memory, plain: int, burst: int, seed: int = 3) -> list[Any]:
    """Record so many plainly and so many in a burst; return their vectors by number."""
    rng = np.random.default_rng(seed)
    vectors = [unit(rng) for _ in range(plain + burst)]
    rows = [episode(i, vector, f"p{i % 3}") for i, vector in enumerate(vectors)]
    memory.episodes.record_many(rows[:plain])
    memory.episodes.record_many(rows[plain:], burst=True)
    return vectors


def found(memory: Memory, vector: Any, **options: Any) -> list[str | None]:
    hits = memory.episodes.recall(embedding=vector, limit=5, outcome_weight=0, **options)
    return [hit.episode.external_id for hit in hits]


def nearest(vectors: list[Any], query: Any, numbers: Any = None) -> list[str]:
    numbers = range(len(vectors)) if numbers is None else numbers
    return [str(i) for i in sorted(numbers, key=lambda i: -float(vectors[i] @ query))][:5]


@pytest.mark.parametrize("route", [None, "index", "codes", "exact"])
@pytest.mark.parametrize("merged", [0, 40, None])
def test_recalled_by_every_route(
    memory: Memory, owner: Owner, route: Route | None, merged: int | None
) -> None:
    vectors = fill(memory, 150, 100)
    assert counts(owner) == (150, 100)
    if merged is None:
        assert merge_all(owner) == 100
    elif merged:
        owner.execute("SELECT pgrecall.merge_recent(%s)", [merged])
    rng = np.random.default_rng(9)
    for _ in range(10):
        query = unit(rng)
        assert found(memory, query, route=route) == nearest(vectors, query)
        own = found(memory, query, route=route, project_id="p1")
        assert own == nearest(vectors, query, range(1, 250, 3))
        filtered = found(memory, query, route=route, perception={"number": 201})
        assert filtered == ["201"] or route == "index"


def test_a_row_is_read_changed_and_deleted_as_any_other(memory: Memory, owner: Owner) -> None:
    vectors = fill(memory, 3, 3)
    rows = owner.execute(
        "SELECT external_id, embedding FROM agent_episodes ORDER BY external_id"
    ).fetchall()
    assert [row[0] for row in rows] == ["0", "1", "2", "3", "4", "5"]
    assert all(row[1] is not None for row in rows)
    (hit,) = memory.episodes.recall("uncommon4", mode="words", limit=1)
    assert hit.episode.external_id == "4"
    changed = memory.episodes.record_outcome(hit.episode.episode_id, {"ok": True}, 0.9)
    assert changed.outcome_quality == 0.9
    assert memory.episodes.get(hit.episode.episode_id).outcome_quality == 0.9
    assert memory.episodes.count() == 6
    assert memory.episodes.delete(hit.episode.episode_id) == 1
    with pytest.raises(NotFound):
        memory.episodes.get(hit.episode.episode_id)
    assert found(memory, vectors[4])[0] != "4"
    codes = owner.execute("SELECT count(*) FROM pgrecall.recent_codes").fetchone()
    assert codes == (2,)
    check_statistics(owner)
    merge_all(owner)
    check_statistics(owner)
    assert memory.episodes.recall("uncommon4", mode="words", limit=1) == []
    owner.execute("TRUNCATE agent_episodes")
    assert owner.execute("SELECT count(*) FROM pgrecall.recent_codes").fetchone() == (0,)


def test_a_key_stands_for_one_row_wherever_it_is(memory: Memory, owner: Owner) -> None:
    rng = np.random.default_rng(1)
    first = memory.episodes.record(**episode(1, unit(rng)))
    again = memory.episodes.record(**episode(1, unit(rng)), burst=True)
    assert again.episode_id == first.episode_id
    second = memory.episodes.record(**episode(2, unit(rng)), burst=True)
    assert memory.episodes.record(**episode(2, unit(rng))).episode_id == second.episode_id
    assert memory.episodes.record(**episode(2, unit(rng)), burst=True) == second
    many = [episode(i, unit(rng)) for i in (1, 2, 3, 3)]
    recorded = memory.episodes.record_many(many, burst=True)
    assert (recorded.created, recorded.existing) == (1, 3)
    given_id = uuid4()
    for burst in (True, False, True):
        memory.episodes.record(**episode(4, unit(rng), episode_id=given_id), burst=burst)
    assert memory.episodes.count() == 4
    assert counts(owner) == (1, 3)
    with pytest.raises(psycopg.errors.UniqueViolation, match="burst"):
        owner.execute(
            "INSERT INTO agent_episodes (project_id, agent_version, perception, reasoning, action, "
            "external_id) VALUES ('p0', '1', '{}', '{}', '{}', '3')"
        )
    with pytest.raises(psycopg.errors.UniqueViolation, match="burst"):
        owner.execute(
            "INSERT INTO agent_episodes (episode_id, project_id, agent_version, perception, "
            "reasoning, action) VALUES (%s, 'p0', '1', '{}', '{}', '{}')",
            [given_id],
        )
    merge_all(owner)
    assert counts(owner) == (4, 0)
    waiting = owner.execute("SELECT count(*) FROM pgrecall.embedding_queue").fetchone()
    assert waiting == (0,)


def test_writers_of_both_kinds_agree_on_keys(pgrecall_database: Database, owner: Owner) -> None:
    def write(mine: int) -> dict[str, UUID]:
        rng = np.random.default_rng(mine)
        with Memory.open(pgrecall_database.dsn, settings=pgrecall_database.settings) as memory:
            return {
                str(number): memory.episodes.record(
                    **episode(int(number), unit(rng)), burst=bool(mine % 2)
                ).episode_id
                for number in rng.permutation(80)
            }

    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(write, mine) for mine in range(4)]
        while not all(writer.done() for writer in writers):
            owner.execute("SELECT pgrecall.merge_recent(7)")
        ids = [writer.result() for writer in writers]
    assert ids[0] == ids[1] == ids[2] == ids[3]
    row = owner.execute("SELECT count(*), count(DISTINCT external_id) FROM agent_episodes")
    assert row.fetchone() == (80, 80)


@pytest.mark.parametrize("burst_first", [True, False])
def test_the_same_key_waits_for_the_other_kind(
    memory: Memory, pgrecall_database: Database, burst_first: bool
) -> None:
    vector = unit(np.random.default_rng(2))
    with (
        psycopg.connect(pgrecall_database.dsn, prepare_threshold=None) as mine,
        ThreadPoolExecutor() as pool,
    ):
        first = memory.episodes.record(**episode(1, vector), burst=burst_first, connection=mine)
        other = pool.submit(memory.episodes.record, **episode(1, vector), burst=not burst_first)
        with pytest.raises(TimeoutError):
            other.result(timeout=0.5)
        mine.commit()
        assert other.result().episode_id == first.episode_id
    assert memory.episodes.count() == 1


def test_a_dump_takes_recent_rows_along(
    memory: Memory, pgrecall_database: Database, owner: Owner, tmp_path: Path
) -> None:
    fill(memory, 5, 5)
    shown = "SELECT external_id, embedding::text, tableoid::regclass::text FROM agent_episodes"
    before = sorted(owner.execute(shown).fetchall())
    file = tmp_path / "dump"
    dump, restore = (
        str(tools.find(name, pgrecall_database.settings).path) for name in ("pg_dump", "pg_restore")
    )
    subprocess.run([dump, "-Fc", "-f", file, pgrecall_database.admin_dsn], check=True)
    with psycopg.connect(pgrecall_database.admin_dsn, autocommit=True) as admin:
        admin.execute("CREATE DATABASE restored_with_recent TEMPLATE template0")
        try:
            target = make_conninfo(pgrecall_database.admin_dsn, dbname="restored_with_recent")
            subprocess.run([restore, "-e", "-d", target, file], check=True)
            with psycopg.connect(target, autocommit=True) as restored:
                assert sorted(restored.execute(shown).fetchall()) == before
                assert merge_all(restored) == 5
                check_statistics(restored)
        finally:
            admin.execute("DROP DATABASE restored_with_recent WITH (FORCE)")


def change(dsn: str, ids: dict[str, UUID], seed: int, done: threading.Event) -> Counter[str]:
    """Count up in random rows; return how often in which."""
    chance = np.random.default_rng(seed)
    changed: Counter[str] = Counter()
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
        while not done.is_set():
            number = str(chance.integers(len(ids)))
            with connection.transaction():
                if seed % 2:
                    connection.execute(
                        "SELECT FROM agent_episodes WHERE external_id = %s FOR UPDATE", [number]
                    )
                cursor = connection.execute(
                    "UPDATE agent_episodes SET sprint_id = "
                    "(coalesce(sprint_id, '0')::integer + 1)::text WHERE episode_id = %s",
                    [ids[number]],
                )
                assert cursor.rowcount == 1, number
            changed[number] += 1
    return changed


def look(dsn: str, memory: Memory, vector: Any, done: threading.Event) -> None:
    """See each row once, and find one by each search."""
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
        while not done.is_set():
            row = connection.execute(
                "SELECT count(*), count(DISTINCT external_id) FROM agent_episodes"
            ).fetchone()
            assert row == (200, 200)
            for route in ("index", "codes"):
                assert found(memory, vector, route=route)[0] == "15"


def embed(dsn: str, ids: list[UUID], done: threading.Event) -> None:
    """Store the vectors that are missing, as a worker does."""
    rng = np.random.default_rng(6)
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
        for id_ in ids:
            stored = connection.execute(
                "SELECT pgrecall.store_vectors(1, ARRAY['episodes'], %s, %s::vector[], "
                "ARRAY[NULL::text])",
                [[id_], [str(unit(rng).tolist())]],
            ).fetchone()
            assert stored == (1,)
            done.wait(0.05)


def test_no_change_is_lost_while_rows_are_merged(
    memory: Memory, pgrecall_database: Database, owner: Owner
) -> None:
    dsn = pgrecall_database.dsn
    rng = np.random.default_rng(5)
    rows = [episode(i, None if i % 10 == 0 else unit(rng)) for i in range(200)]
    memory.episodes.record_many(rows, embed="later", burst=True)
    ids = dict(owner.execute("SELECT external_id, episode_id FROM agent_episodes").fetchall())
    done = threading.Event()
    with ThreadPoolExecutor(max_workers=8) as pool:
        changers = [pool.submit(change, dsn, ids, seed, done) for seed in range(3)]
        looker = pool.submit(look, dsn, memory, rows[15]["embedding"], done)
        embedder = pool.submit(embed, dsn, [ids[str(i)] for i in range(0, 200, 10)], done)
        others: list[Future[Any]] = [*changers, looker, embedder]
        merged = 0
        try:
            while merged < 200 and not any(o.done() and o.exception() for o in others):
                row = owner.execute("SELECT pgrecall.merge_recent(10)").fetchone()
                assert row is not None
                merged += row[0]
            embedder.result()
        finally:
            done.set()
        looker.result()
        changed = sum((changer.result() for changer in changers), Counter[str]())
    assert counts(owner) == (200, 0)
    told = owner.execute(
        "SELECT external_id, coalesce(sprint_id, '0')::integer FROM agent_episodes"
    )
    assert dict(told.fetchall()) == {number: changed[number] for number in ids}
    assert sum(changed.values()) > 50
    vectors = owner.execute(
        "SELECT count(*) FROM agent_episodes WHERE embedding IS NOT NULL"
    ).fetchone()
    codes = owner.execute("SELECT count(*) FROM pgrecall.episode_codes").fetchone()
    assert vectors == codes == (200,)
    assert owner.execute("SELECT count(*) FROM pgrecall.recent_codes").fetchone() == (0,)
    check_statistics(owner)


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("record"), st.integers(0, 30), st.booleans()),
        st.tuples(st.just("outcome"), st.integers(0, 30), st.integers(0, 10)),
        st.tuples(st.just("delete"), st.integers(0, 30), st.none()),
        st.tuples(st.just("merge"), st.integers(1, 10), st.none()),
    ),
    min_size=1,
    max_size=25,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(actions=ACTIONS, seed=st.integers(0, 1000))
def test_rows_beside_the_index_and_in_it_answer_as_one(
    memory: Memory, owner: Owner, actions: list[Any], seed: int
) -> None:
    """Against a dictionary: whatever comes where, and moves when."""
    owner.execute("TRUNCATE agent_episodes")
    rng = np.random.default_rng(seed)
    truth: dict[int, tuple[Any, float | None]] = {}
    ids: dict[int, UUID] = {}
    for action, number, value in actions:
        if action == "record":
            vector = unit(rng)
            one = memory.episodes.record(**episode(number, vector), burst=value)
            assert ids.setdefault(number, one.episode_id) == one.episode_id
            truth.setdefault(number, (vector, None))
        elif action == "merge":
            owner.execute("SELECT pgrecall.merge_recent(%s)", [number])
        elif number in truth and action == "outcome":
            memory.episodes.record_outcome(ids[number], quality=value / 10)
            truth[number] = (truth[number][0], value / 10)
        elif number in truth:
            assert memory.episodes.delete(ids.pop(number)) == 1
            del truth[number]
    stored = memory.episodes.list(limit=100).items
    assert {e.external_id: e.outcome_quality for e in stored} == {
        str(number): quality for number, (_, quality) in truth.items()
    }
    assert len(stored) == len(truth)
    query = unit(rng)
    right = sorted(truth, key=lambda number: -float(truth[number][0] @ query))[:5]
    for route in (None, "index", "codes", "exact"):
        assert found(memory, query, route=route) == [str(number) for number in right]
    check_statistics(owner)


def test_a_change_of_model_goes_on_beside(memory: Memory, owner: Owner) -> None:
    fill(memory, 20, 20)
    owner.execute("SELECT pgrecall.name_model('one', NULL, 'r', NULL)")
    owner.execute("SELECT pgrecall.begin_beside('two', NULL, 'r', NULL, 32, 'vector', false)")
    owner.execute("SELECT pgrecall.queue_all(2)")
    rng = np.random.default_rng(8)
    memory.episodes.record_many([episode(i, unit(rng)) for i in range(40, 50)], burst=True)
    owner.execute("SELECT pgrecall.merge_recent(5)")
    second = {}
    for (id_,) in owner.execute(
        "SELECT id FROM pgrecall.embedding_queue WHERE model = 2"
    ).fetchall():
        second[id_] = rng.normal(size=32).astype(np.float32)
        stored = owner.execute(
            "SELECT pgrecall.store_vectors(2, ARRAY['episodes'], %s, %s::vector[], "
            "ARRAY[NULL::text])",
            [[id_], [str(second[id_].tolist())]],
        ).fetchone()
        assert stored == (1,)
    assert len(second) == 50
    owner.execute("SELECT pgrecall.merge_recent(5)")
    assert counts(owner) == (30, 20)
    owner.execute("SELECT pgrecall.swap_models()")

    def check() -> None:
        for id_, vector in second.items():
            for route in ("codes", "exact"):
                hit = owner.execute(
                    "SELECT episode_id FROM pgrecall.recall_episodes(%s::vector, 1, "
                    "p_outcome_weight => 0, p_route => %s)",
                    [str(vector.tolist()), route],
                ).fetchone()
                assert hit == (id_,)

    owner.execute("UPDATE pgrecall.embedding_models SET coded = true")
    check()
    owner.execute("SELECT pgrecall.end_beside()")
    check()
    merge_all(owner)
    check()
    assert counts(owner) == (50, 0)


def test_storage_changes_beside_recent_rows(
    memory: Memory, owner: Owner, pgrecall_database: Database
) -> None:
    fill(memory, 20, 20)
    switch = Switch(dsn=pgrecall_database.owner_dsn, settings=pgrecall_database.settings)
    switch.prepare(storage="halfvec", queries=3)
    rng = np.random.default_rng(9)
    late = {i: unit(rng) for i in range(40, 60)}
    memory.episodes.record_many([episode(i, late[i]) for i in range(40, 50)], burst=True)
    owner.execute("SELECT pgrecall.merge_recent(5)")
    switch.change_over()
    memory.episodes.record_many([episode(i, late[i]) for i in range(50, 60)], burst=True)
    owner.execute("SELECT pgrecall.merge_recent(5)")
    assert sum(counts(owner)) == 60
    for i, vector in late.items():
        routes: tuple[Route, ...] = ("codes", "exact", "index")
        for route in routes:
            (hit,) = memory.episodes.recall(embedding=vector, limit=1, route=route)
            assert hit.episode.external_id == str(i), route
    switch.finish()
    merge_all(owner)
    row = owner.execute(
        "SELECT count(embedding), count(DISTINCT pg_typeof(embedding)), "
        "(SELECT count(*) FROM pgrecall.recent_codes) FROM agent_episodes"
    ).fetchone()
    assert row == (60, 1, 0)
