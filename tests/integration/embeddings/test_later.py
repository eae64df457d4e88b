"""Recording without a model, and the worker that makes the vectors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.integration.embeddings.conftest import open_memory, record

from pgrecall.errors import EmbedderUnavailable, InvalidInput
from pgrecall.ops.embeddings import Backfill, backfill, retry, status
from pgrecall.testing import Database

Rows = psycopg.Connection[dict[str, Any]]


def count(owner: Rows, condition: str) -> int:
    row = owner.execute(f"SELECT count(*) AS n FROM agent_episodes WHERE {condition}").fetchone()
    return int(row["n"]) if row else -1


def test_what_is_recorded_later_is_found_by_words_and_then_by_its_vector(
    pgrecall_database: Database,
) -> None:
    with open_memory(pgrecall_database) as memory:
        late = record(memory, "quarterly report of the sales team", embed="later")
        assert not late.embedded
        assert memory.episodes.recall("quarterly report")[0].episode.episode_id == late.episode_id
        report = backfill(pgrecall_database.dsn, Backfill(settings=pgrecall_database.settings))
        assert (report.stored, report.left) == (1, 0)
        (hit,) = memory.episodes.recall("quarterly report", mode="vector")
        assert hit.episode.episode_id == late.episode_id
        assert hit.episode.embedded
        stored = memory.episodes.embeddings([late.episode_id])[late.episode_id]
        now = record(memory, "quarterly report of the sales team")
        assert stored == memory.episodes.embeddings([now.episode_id])[now.episode_id]


def test_a_memory_can_record_everything_later(pgrecall_database: Database) -> None:
    with open_memory(pgrecall_database, embed="later") as memory:
        assert not record(memory, "one").embedded
        assert record(memory, "two", embed="now").embedded
        with pytest.raises(InvalidInput, match="soon"):
            record(memory, "three", embed="soon")
    with pytest.raises(InvalidInput, match="'never'"):
        open_memory(pgrecall_database, embed="never")


def test_rows_of_plain_sql_and_knowledge_get_their_vectors(
    pgrecall_database: Database, owner: Rows
) -> None:
    with open_memory(pgrecall_database) as memory:
        episodes = [record(memory, f"case {i}") for i in range(3)]
        memory.knowledge.add(
            "strategy", "ask before booking", {}, embed="later",
            supporting_episodes=[episode.episode_id for episode in episodes],
        )  # fmt: skip
        owner.execute(
            "INSERT INTO agent_episodes (project_id, perception, reasoning, action, agent_version) "
            "VALUES ('p', %s, '{}', '{}', '1')",
            [Jsonb({"text": "by hand"})],
        )
        owner.execute("UPDATE agent_episodes SET embedding = NULL WHERE episode_id = %s",
                      [episodes[0].episode_id])  # fmt: skip
        report = backfill(pgrecall_database.dsn, Backfill(settings=pgrecall_database.settings))
        assert report.stored == 3
        (hit,) = memory.knowledge.recall("booking", mode="vector")
        assert hit.knowledge.description == "ask before booking"
    assert count(owner, "embedding IS NULL") == 0
    codes = owner.execute("SELECT count(*) AS n FROM pgrecall.episode_codes").fetchone()
    assert codes == {"n": 4}


def test_a_row_that_goes_or_gets_a_vector_meanwhile_is_forgotten(
    pgrecall_database: Database, owner: Rows
) -> None:
    with open_memory(pgrecall_database) as memory:
        gone, given = (record(memory, text, embed="later") for text in ("gone", "given"))
        memory.episodes.delete(gone.episode_id)
        (vector,) = memory.embed("given", mode="document")
        owner.execute("UPDATE agent_episodes SET embedding = %s::vector WHERE episode_id = %s",
                      [vector.to_text(), given.episode_id])  # fmt: skip
        report = backfill(pgrecall_database.dsn, Backfill(settings=pgrecall_database.settings))
    assert (report.stored, report.left) == (0, 0)
    left = owner.execute("SELECT count(*) AS n FROM pgrecall.embedding_queue").fetchone()
    assert left == {"n": 0}


def test_refused_texts_are_parked_with_the_reason_and_stop_no_other(
    pgrecall_database: Database,
) -> None:
    with open_memory(pgrecall_database, "picky", embed="later") as memory:
        for i in range(10):
            record(memory, "forbidden words" if i == 4 else f"fine {i}")
    report = backfill(pgrecall_database.dsn, Backfill(settings=pgrecall_database.settings))
    assert (report.stored, report.refused, report.left) == (9, 1, 0)
    found = status(pgrecall_database.dsn)
    (parked,) = found.refused
    assert "forbidden" in parked.reason
    assert (found.models[0].waiting, found.models[0].refused) == (0, 1)
    assert retry(pgrecall_database.dsn) == 1
    again = backfill(pgrecall_database.dsn, Backfill(settings=pgrecall_database.settings))
    assert (again.stored, again.refused) == (0, 1)


def test_the_worker_waits_while_the_embedder_is_down(
    pgrecall_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = tmp_path / "down"
    down.touch()
    monkeypatch.setenv("EMBEDDER_DOWN", str(down))
    settings = pgrecall_database.settings
    with open_memory(pgrecall_database, "picky", embed="later") as memory:
        late = record(memory, "patience")
        with pytest.raises(EmbedderUnavailable):
            backfill(pgrecall_database.dsn, Backfill(settings=settings, patience=0.5))
        stop = threading.Event()
        worker = threading.Thread(
            target=backfill,
            args=(pgrecall_database.dsn, Backfill(settings=settings, loop=True, stop=stop)),
        )
        worker.start()
        time.sleep(0.5)
        assert not memory.episodes.get(late.episode_id).embedded
        down.unlink()
        deadline = time.monotonic() + 20
        while not memory.episodes.get(late.episode_id).embedded:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        stop.set()
        worker.join(20)
        assert not worker.is_alive()


def test_four_workers_of_which_one_is_killed_embed_every_row_once(
    pgrecall_database: Database, owner: Rows, tmp_path: Path
) -> None:
    rows = 5000
    with open_memory(pgrecall_database, "slow"):
        pass  # names the model
    with owner.cursor().copy(
        "COPY agent_episodes (project_id, perception, reasoning, action, agent_version) FROM STDIN"
    ) as copy:
        for i in range(rows):
            copy.write_row(("p", Jsonb({"text": f"row {i}"}), "{}", "{}", "1"))
    owner.execute(
        "CREATE TABLE written (id uuid);"
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS "
        "$$BEGIN IF NEW.embedding IS DISTINCT FROM OLD.embedding THEN "
        "INSERT INTO public.written VALUES (NEW.episode_id); END IF; RETURN NULL; END$$;"
        "CREATE TRIGGER note AFTER UPDATE ON agent_episodes FOR EACH ROW EXECUTE FUNCTION note()"
    )
    log = tmp_path / "log"
    environment = {**os.environ, "PGRECALL_DSN": pgrecall_database.dsn, "EMBEDDED_LOG": str(log)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "pgrecall.cli", "embeddings", "backfill", "--lease", "3",
             "--batch-size", "50"],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for _ in range(4)
    ]  # fmt: skip
    deadline = time.monotonic() + 60
    while not log.exists() or len(log.read_text().split("\n")) < 20:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    victim = workers[0]
    victim.send_signal(signal.SIGKILL)
    for worker in workers[1:]:
        assert worker.wait(120) == 0, worker.stderr and worker.stderr.read()
    victim.wait()
    for worker in workers:
        if worker.stderr:
            worker.stderr.close()
    assert count(owner, "embedding IS NULL") == 0
    written = owner.execute("SELECT count(*) AS n, count(DISTINCT id) AS d FROM written").fetchone()
    assert written == {"n": rows, "d": rows}
    by = Counter(int(line.split()[0]) for line in log.read_text().splitlines())
    assert len(by) >= 2, "only one worker worked"


def test_serve_makes_missing_vectors_as_well(pgrecall_database: Database, owner: Rows) -> None:
    with open_memory(pgrecall_database, "slow", embed="later") as memory:
        record(memory, "made by the server")
    environment = {
        **os.environ,
        "PGRECALL_DSN": pgrecall_database.dsn,
        "PGRECALL_EMBEDDER": "python:embedders_for_tests:slow",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "pgrecall.cli", "serve", "--port", "0", "--backfill"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as server:  # fmt: skip
        deadline = time.monotonic() + 30
        while count(owner, "embedding IS NULL"):
            assert time.monotonic() < deadline
            assert server.poll() is None, server.stderr and server.stderr.read()
            time.sleep(0.05)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
