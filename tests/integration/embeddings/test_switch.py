"""Changing the model: prepared, made over, undone, finished, given up; and who may use which."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from tests.integration.embeddings.conftest import open_memory, record

from pgrecall import AsyncMemory, Memory
from pgrecall.embedding.base import Embedder
from pgrecall.errors import ConfigurationError, InvalidVector, OperationRefused
from pgrecall.ops.embeddings import Backfill, Switch, backfill, status
from pgrecall.testing import Database, HashEmbedder

Rows = psycopg.Connection[dict[str, Any]]
HASH_64, HASH_96, OTHER = (
    f"python:embedders_for_tests:{name}" for name in ("hash_64", "hash_96", "other")
)
TEXTS = [f"case {i}: {word} order of {word}s" for i, word in enumerate("abcdefghijklmnop")]


@pytest.fixture
def memory(pgrecall_database: Database) -> Iterator[Memory]:
    """A memory with some episodes and a strategy, opened by the embedder's name."""
    with open_memory(pgrecall_database) as memory:
        episodes = [record(memory, text) for text in TEXTS]
        memory.knowledge.add(
            "strategy", "check the order first", {},
            supporting_episodes=[episode.episode_id for episode in episodes[:3]],
        )  # fmt: skip
        yield memory


@pytest.fixture
def switch(pgrecall_database: Database) -> Switch:
    return Switch(dsn=pgrecall_database.owner_dsn, settings=pgrecall_database.settings)


def columns(owner: Rows) -> dict[str, str]:
    found = owner.execute(
        "SELECT attname, format_type(atttypid, atttypmod) AS type FROM pg_attribute "
        "WHERE attrelid = 'agent_episodes'::regclass AND attname LIKE 'embedding%' "
        "AND NOT attisdropped"
    ).fetchall()
    return {row["attname"]: row["type"] for row in found}


def by_index(owner: Rows, vector: str) -> str:
    """Return the nearest episode's text by SQL as the specification has it, by its index."""
    with owner.transaction():
        owner.execute("SET LOCAL enable_seqscan = off")
        query = (
            "SELECT perception->>'text' AS text FROM agent_episodes "
            f"ORDER BY embedding <=> '{vector}' LIMIT 1"
        )
        plan = owner.execute(f"EXPLAIN {query}").fetchall()
        assert any("idx_episodes_embedding " in line["QUERY PLAN"] + " " for line in plan)
        row = owner.execute(query).fetchone()
    assert row is not None
    return str(row["text"])


def test_a_change_to_other_dimensions_and_back_while_clients_are_open(
    memory: Memory, switch: Switch, owner: Rows
) -> None:
    ready = switch.prepare(HASH_96, queries=5)
    assert (ready.state, ready.serving, ready.beside) == ("ready", "hash:64", "hash:96")
    assert ready.comparison is not None
    assert ready.comparison.recall == 1.0
    assert ready.comparison.overlap is not None
    assert columns(owner) == {"embedding": "vector(64)", "embedding_beside": "vector(96)"}
    assert memory.episodes.recall(TEXTS[3])[0].episode.perception["text"] == TEXTS[3]
    record(memory, "recorded in between")

    done = switch.change_over()
    assert (done.state, done.serving, done.beside) == ("switched", "hash:96", "hash:64")
    assert columns(owner) == {"embedding": "vector(96)", "embedding_beside": "vector(64)"}
    # The client that was open follows, in what it reads and in what it writes.
    hits = memory.episodes.recall("recorded in between", mode="vector", explain=True)
    assert hits[0].episode.perception["text"] == "recorded in between"
    assert hits[0].similarity == pytest.approx(1, abs=0.2)
    assert memory.dimensions == 96
    assert record(memory, "after the change").embedded
    assert memory.knowledge.recall("order", mode="vector")
    vector = HashEmbedder(96).embed([TEXTS[5]])[0]
    assert by_index(owner, str(vector)).startswith("case 5")

    undone = switch.back()
    assert (undone.serving, undone.beside) == ("hash:64", "hash:96")
    assert memory.episodes.recall("after the change", mode="vector")[0].episode.perception == {
        "text": "after the change"
    }
    assert memory.dimensions == 64
    assert switch.change_over().serving == "hash:96"
    finished = switch.finish()
    assert (finished.serving, finished.beside) == ("hash:96", None)
    assert columns(owner) == {"embedding": "vector(96)"}
    models = {row["model"] for row in owner.execute(
        "SELECT DISTINCT model FROM pgrecall.episode_codes").fetchall()}  # fmt: skip
    assert len(models) == 1
    left = owner.execute("SELECT count(*) AS n FROM agent_episodes WHERE embedding IS NULL")
    assert left.fetchone() == {"n": 0}


def test_the_two_are_compared_by_queries_that_agents_posed(
    pgrecall_database: Database, switch: Switch, owner: Rows
) -> None:
    settings = pgrecall_database.settings.model_copy(update={"recall_sample_rate": 1.0})
    with Memory.open(pgrecall_database.dsn, embedder=HASH_64, settings=settings) as memory:
        for text in TEXTS:
            record(memory, text)
        for text in ("order of as", "case 3"):
            memory.episodes.recall(text)
        memory.knowledge.recall("not of episodes")
    posed = owner.execute("SELECT asked FROM pgrecall.recall_samples WHERE kind = 'episodes'")
    assert {row["asked"] for row in posed} == {"order of as", "case 3"}
    found = switch.prepare(HASH_96, queries=5).comparison
    assert found is not None
    assert (found.queries, found.posed, found.recall) == (5, 2, 1.0)
    switch.change_over()
    # Queries of the old model are none of the new one.
    left = owner.execute("SELECT count(*) AS n FROM pgrecall.recall_samples").fetchone()
    assert left == {"n": 0}


def test_models_of_the_same_length_are_never_mixed(
    memory: Memory, switch: Switch, pgrecall_database: Database
) -> None:
    before = memory.embed("case 1", mode="query")[0]
    switch.prepare(OTHER, queries=0)
    switch.change_over()
    hits = memory.episodes.recall(TEXTS[1], mode="vector")
    assert hits[0].episode.perception["text"] == TEXTS[1]
    assert memory.embed("case 1", mode="query")[0] != before
    assert record(memory, "one more").embedded
    hits = memory.episodes.recall("one more", mode="vector")
    assert hits[0].similarity == pytest.approx(1, abs=0.2)
    with pytest.raises(ConfigurationError, match=r"other:64.*hash:64.*switch"):
        open_memory(pgrecall_database)
    with open_memory(pgrecall_database, None) as newcomer:
        assert newcomer.embedder.identity == "other:64"


def test_everything_that_a_change_made_can_be_given_up(
    memory: Memory, switch: Switch, owner: Rows
) -> None:
    switch.prepare(HASH_96, queries=0)
    given_up = switch.abort()
    assert (given_up.state, given_up.serving, given_up.beside) == ("aborted", "hash:64", None)
    assert columns(owner) == {"embedding": "vector(64)"}
    switch.prepare(HASH_96, queries=0)
    switch.change_over()
    record(memory, "meanwhile")
    assert switch.abort().serving == "hash:64"
    assert columns(owner) == {"embedding": "vector(64)"}
    assert memory.episodes.recall("meanwhile", mode="vector")[0].episode.embedded
    assert switch.abort().serving == "hash:64"
    triggers = owner.execute(
        "SELECT count(*) AS n FROM pg_trigger WHERE tgname LIKE 'pgrecall_beside%'"
    ).fetchone()
    assert triggers == {"n": 0}


def test_steps_are_refused_out_of_their_order(memory: Memory, switch: Switch) -> None:
    assert memory.embedder.identity == "hash:64"
    for step in (switch.change_over, switch.back):
        with pytest.raises(OperationRefused):
            step()
    with pytest.raises(OperationRefused, match="makes no vectors"):
        switch.prepare("none")
    assert switch.prepare(HASH_64).beside is None
    switch.prepare(HASH_96, queries=0)
    with pytest.raises(OperationRefused, match="under way"):
        switch.prepare(OTHER)
    with pytest.raises(OperationRefused, match="does not serve yet"):
        switch.finish()
    switch.change_over()
    assert switch.change_over().state == "switched"
    with pytest.raises(OperationRefused, match="not finished"):
        switch.prepare(HASH_64)


def test_what_follows_the_column_by_its_number_is_named(
    memory: Memory, switch: Switch, owner: Rows
) -> None:
    assert memory.dimensions == 64
    owner.execute("CREATE VIEW mine AS SELECT episode_id, embedding FROM agent_episodes")
    with pytest.raises(OperationRefused, match="mine"):
        switch.prepare(HASH_96)
    assert columns(owner) == {"embedding": "vector(64)"}


def test_an_object_that_nobody_can_name_cannot_follow(
    pgrecall_database: Database, switch: Switch
) -> None:
    class Mine(HashEmbedder):
        pass

    mine: Embedder = Mine(64)
    with Memory.open(
        pgrecall_database.dsn, embedder=mine, settings=pgrecall_database.settings
    ) as memory:
        late = record(memory, "made by an object")
        switch.prepare(HASH_96, queries=0)
        switch.change_over()
        assert memory.episodes.recall("made by an object")[0].episode.episode_id == late.episode_id
        with pytest.raises(InvalidVector):
            memory.episodes.recall(embedding=mine.embed(["made by an object"])[0])


async def test_the_asynchronous_client_follows_as_well(
    pgrecall_database: Database, switch: Switch
) -> None:
    async with await AsyncMemory.open(
        pgrecall_database.dsn, embedder=HASH_64, settings=pgrecall_database.settings
    ) as memory:
        await memory.episodes.record(
            project_id="p",
            agent_version="1",
            perception={"text": "a b c d e f"},
            reasoning={},
            action={},
        )
        switch.prepare(OTHER, queries=0)
        switch.change_over()
        hits = await memory.episodes.recall("a b c d e f", mode="vector")
        assert hits[0].similarity == pytest.approx(1, abs=0.2)


def test_readers_and_writers_notice_nothing(
    pgrecall_database: Database, switch: Switch, owner: Rows
) -> None:
    """Four readers and two writers; a change there and back; no call fails, none finds less.

    They pause after each call, as the one worker here shares a processor with the six of them.
    """
    stop = threading.Event()
    recalls = [0] * 4
    records = [0] * 2
    with open_memory(pgrecall_database) as first:
        first.episodes.record_many(
            {"project_id": "p", "agent_version": "1", "perception": {"text": f"seed {i} {i % 7}"},
             "reasoning": {}, "action": {}} for i in range(400)
        )  # fmt: skip

    def read(number: int) -> None:
        with open_memory(pgrecall_database, None) as memory:
            while not stop.is_set():
                hits = memory.episodes.recall(f"seed {recalls[number] % 400}", limit=10,
                                              group_repeats=False)  # fmt: skip
                assert len(hits) == 10
                recalls[number] += 1
                stop.wait(0.02)

    def write(number: int) -> None:
        with open_memory(pgrecall_database, None) as memory:
            while not stop.is_set():
                record(memory, f"writer {number} {records[number]}",
                       external_id=f"{number}-{records[number]}")  # fmt: skip
                records[number] += 1
                stop.wait(0.02)

    with ThreadPoolExecutor(6) as pool:
        work = [
            *(pool.submit(read, i) for i in range(4)),
            *(pool.submit(write, i) for i in range(2)),
        ]
        try:
            for target in (HASH_96, HASH_64):
                switch.prepare(target, queries=3)
                switch.change_over()
                switch.finish()
        finally:
            stop.set()
        for one in work:
            one.result(30)
    backfill(pgrecall_database.dsn, Backfill(settings=pgrecall_database.settings))
    row = owner.execute(
        "SELECT count(*) AS n, count(embedding) AS e, count(DISTINCT external_id) AS d "
        "FROM agent_episodes"
    ).fetchone()
    total = 400 + sum(records)
    assert row == {"n": total, "e": total, "d": sum(records)}
    codes = owner.execute("SELECT count(*) AS n FROM pgrecall.episode_codes").fetchone()
    assert codes == {"n": total}
    (model,) = status(pgrecall_database.dsn).models
    assert (model.identity, model.waiting) == ("hash:64", 0)
    assert min(*recalls, *records) > 0


def test_a_memory_of_brought_vectors_gets_a_model(
    pgrecall_database: Database, switch: Switch, owner: Rows
) -> None:
    with Memory.open(
        pgrecall_database.dsn, embedder="none", settings=pgrecall_database.settings
    ) as memory:
        record(memory, "brought", embedding=HashEmbedder(64).embed(["text: brought"])[0])
        record(memory, "without")
        switch.prepare(HASH_96, queries=3)
        switch.change_over()
        report = backfill(pgrecall_database.dsn, Backfill(settings=pgrecall_database.settings))
        assert report.refused == 0
        assert memory.episodes.recall("without")[0].episode.embedded
    # Nobody knows what made the old ones, so none is added to them.
    row = owner.execute("SELECT count(embedding) AS new, count(embedding_beside) AS old "
                        "FROM agent_episodes").fetchone()  # fmt: skip
    assert row == {"new": 2, "old": 1}
    assert switch.back().serving == "vectors that callers bring"
    assert switch.abort().beside is None
