"""Vectors in half precision: another storage of the same model, copied, not made anew."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from tests.integration.embeddings.conftest import open_memory, record

from pgrecall import Memory
from pgrecall.errors import OperationRefused
from pgrecall.ops.doctor import doctor
from pgrecall.ops.embeddings import Backfill, Switch, backfill, status
from pgrecall.ops.verify import verify
from pgrecall.testing import Database, HashEmbedder

Rows = psycopg.Connection[dict[str, Any]]
WIDE = "python:embedders_for_tests:wide"
TEXTS = [f"case {i}: {word} order" for i, word in enumerate("abcdefghij")]


@pytest.fixture
def switch(pgrecall_database: Database) -> Switch:
    return Switch(dsn=pgrecall_database.owner_dsn, settings=pgrecall_database.settings)


def types(owner: Rows) -> dict[str, str]:
    rows = owner.execute(
        "SELECT attrelid::regclass || '.' || attname AS name, "
        "format_type(atttypid, atttypmod) AS type FROM pg_attribute "
        "WHERE attrelid IN ('agent_episodes'::regclass, 'agent_knowledge'::regclass) "
        "AND attname LIKE 'embedding%' AND NOT attisdropped"
    ).fetchall()
    return {row["name"]: row["type"] for row in rows}


def codes(owner: Rows) -> int:
    row = owner.execute(
        "SELECT count(*) AS n FROM pgrecall.episode_codes AS c JOIN pgrecall.embedding_models AS m "
        "ON m.model = c.model AND m.serving"
    ).fetchone()
    assert row is not None
    return int(row["n"])


def test_vectors_are_copied_there_and_back_under_open_clients(
    pgrecall_database: Database, switch: Switch, owner: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = pgrecall_database.settings.config_dir / "embedded"
    with open_memory(pgrecall_database, "slow") as memory:
        kept = [record(memory, text) for text in TEXTS]
        memory.knowledge.add("strategy", "check the order first", {}, embed="now",
                             supporting_episodes=[one.episode_id for one in kept[:3]])  # fmt: skip
        late = record(memory, "made afterwards", embed="later")
        monkeypatch.setenv("EMBEDDED_LOG", str(log))
        ready = switch.prepare(storage="halfvec", queries=5)
        assert (ready.serving, ready.beside) == ("hash:64", "hash:64 in halfvec")
        assert ready.comparison is not None
        assert (ready.comparison.recall, ready.comparison.overlap) == (1.0, 1.0)
        # Through the triggers of both columns, on a connection that has used them before.
        between = record(memory, "recorded in between")
        done = switch.change_over()
        assert (done.serving, done.beside) == ("hash:64 in halfvec", "hash:64")
        assert types(owner) == {
            "agent_episodes.embedding": "halfvec(64)", "agent_knowledge.embedding": "halfvec(64)",
            "agent_episodes.embedding_beside": "vector(64)",
            "agent_knowledge.embedding_beside": "vector(64)",
        }  # fmt: skip
        for text in (*TEXTS, "recorded in between"):
            hit = memory.episodes.recall(text, mode="vector", limit=1)[0]
            assert hit.episode.perception == {"text": text}
            assert hit.similarity == pytest.approx(1, abs=0.2)
        assert memory.knowledge.recall("check the order", mode="vector")
        after = record(memory, "recorded after")
        memory.episodes.record_outcome(after.episode_id, {"ok": True}, quality=1.0)
        memory.episodes.record_outcome(between.episode_id, {"ok": True}, quality=1.0)
        assert (
            backfill(pgrecall_database.dsn, Backfill(settings=pgrecall_database.settings)).stored
            == 1
        )
        hit = memory.episodes.recall("made afterwards", mode="vector", limit=1)[0]
        assert hit.episode.episode_id == late.episode_id
        assert codes(owner) == len(TEXTS) + 3
        same = owner.execute("SELECT count(*) AS n FROM agent_episodes "
            "WHERE embedding::vector <=> embedding_beside < 1e-3").fetchone()  # fmt: skip
        assert same == {"n": len(TEXTS) + 3}
        assert switch.finish().beside is None
        assert switch.prepare(storage="vector", queries=3).beside == "hash:64"
        assert switch.change_over().serving == "hash:64"
        assert switch.back().serving == "hash:64 in halfvec"
        assert switch.abort().serving == "hash:64 in halfvec"
        assert record(memory, "recorded last").embedded
    # Embedded were queries and records alone: what is copied would have come in batches.
    assert {line.split()[1] for line in log.read_text().splitlines()} == {"1"}
    embedded = owner.execute("SELECT count(embedding) AS n FROM agent_episodes").fetchone()
    assert embedded == {"n": len(TEXTS) + 4}
    (model,) = status(pgrecall_database.dsn).models
    assert (model.storage, model.waiting) == ("halfvec", 0)


def test_all_that_looks_at_a_memory_takes_half_precision(
    pgrecall_database: Database, switch: Switch, owner: Rows
) -> None:
    with open_memory(pgrecall_database) as memory:
        for text in TEXTS:
            record(memory, text)
        switch.prepare(storage="halfvec", queries=0)
        switch.change_over()
        switch.finish()
        ids = [hit.episode.episode_id for hit in memory.episodes.recall("case 1", limit=3)]
        stored = memory.episodes.embeddings(ids)
        assert {len(vector.to_list()) for vector in stored.values()} == {64}
    checks = {
        check.id: check
        for check in doctor(pgrecall_database.admin_dsn, settings=pgrecall_database.settings,
                            embedder_dimensions=64)
    }  # fmt: skip
    for name in ("vector-indexes", "dimensions", "codes", "vectors"):
        assert checks[name].status == "passed", checks[name]
    failed = [check for check in verify(pgrecall_database.admin_dsn) if check.status == "failed"]
    assert not failed
    # SQL as the specification has it finds its index.
    vector = HashEmbedder(64).embed([f"text: {TEXTS[4]}"])[0]
    with owner.transaction():
        owner.execute("SET LOCAL enable_seqscan = off")
        query = f"FROM agent_episodes ORDER BY embedding <=> '{vector}' LIMIT 1"
        plan = owner.execute(f"EXPLAIN SELECT episode_id {query}").fetchall()
        assert "Index Scan using idx_episodes_embedding" in str(plan)
        row = owner.execute(f"SELECT perception {query}").fetchone()
    assert row == {"perception": {"text": TEXTS[4]}}


def test_vectors_that_callers_bring_are_copied_as_well(
    pgrecall_database: Database, switch: Switch, owner: Rows
) -> None:
    with Memory.open(
        pgrecall_database.dsn, embedder="none", settings=pgrecall_database.settings
    ) as memory:
        mine = HashEmbedder(64)
        for text in TEXTS:
            record(memory, text, embedding=mine.embed([text])[0])
        record(memory, "without a vector")
        assert switch.prepare(storage="halfvec", queries=3).comparison is not None
        switch.change_over()
        record(memory, "one more", embedding=mine.embed(["one more"])[0])
        found = memory.episodes.recall(embedding=mine.embed([TEXTS[2]])[0], limit=1)
        assert found[0].episode.perception == {"text": TEXTS[2]}
        switch.finish()
    assert types(owner)["agent_episodes.embedding"] == "halfvec(64)"
    row = owner.execute("SELECT count(embedding) AS n FROM agent_episodes").fetchone()
    assert row == {"n": len(TEXTS) + 1}


def test_longer_vectors_need_half_precision(
    pgrecall_database: Database, switch: Switch, owner: Rows
) -> None:
    with open_memory(pgrecall_database) as memory:
        record(memory, "long")
        with pytest.raises(OperationRefused, match="2500 dimensions.*vector holds 2000") as refused:
            switch.prepare(WIDE)
        assert refused.value.hint == "add --storage halfvec"
        switch.prepare(WIDE, storage="halfvec", queries=1)
        switch.change_over()
        hit = memory.episodes.recall("long", mode="vector")[0]
        assert hit.similarity == pytest.approx(0.8, abs=0.2)
    assert types(owner)["agent_episodes.embedding"] == "halfvec(2500)"


def test_nobody_notices_that_storage_changes(
    pgrecall_database: Database, switch: Switch, owner: Rows
) -> None:
    """Two readers and two writers; vectors halved and made whole again; no call fails."""
    stop = threading.Event()
    records = [0, 0]
    with open_memory(pgrecall_database) as memory:
        memory.episodes.record_many(
            {"project_id": "p", "agent_version": "1", "perception": {"text": f"seed {i}"},
             "reasoning": {}, "action": {}} for i in range(300)
        )  # fmt: skip

        def read() -> int:
            count = 0
            while not stop.wait(0.01):
                hits = memory.episodes.recall(f"seed {count % 300}", limit=10)
                assert len(hits) == 10
                count += 1
            return count

        def write(number: int) -> None:
            while not stop.wait(0.01):
                made = record(memory, f"writer {number} {records[number]}")
                memory.episodes.record_outcome(made.episode_id, {}, quality=0.5)
                records[number] += 1

        with ThreadPoolExecutor(4) as pool:
            reading = [pool.submit(read), pool.submit(read)]
            writing = [pool.submit(write, i) for i in (0, 1)]
            try:
                for storage in ("halfvec", "vector"):
                    switch.prepare(storage=storage, queries=3)
                    switch.change_over()
                    switch.finish()
            finally:
                stop.set()
            assert min(one.result(30) for one in reading) > 0
            for one in writing:
                one.result(30)
    total = 300 + sum(records)
    row = owner.execute(
        "SELECT count(*) AS n, count(embedding) AS e FROM agent_episodes"
    ).fetchone()
    assert row == {"n": total, "e": total}
    assert codes(owner) == total
    assert types(owner)["agent_episodes.embedding"] == "vector(64)"
