"""Old episodes go, in small transactions; evidence stays, and nobody waits."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from typer.testing import CliRunner

from pgrecall import Memory
from pgrecall.cli.app import app
from pgrecall.ops.retention import Retention, prune
from pgrecall.testing import Database

NOW = datetime.now(UTC)
MONTH = NOW - timedelta(days=30)


@pytest.fixture
def memory(pgrecall_database: Database) -> Iterator[Memory]:
    with Memory.open(
        pgrecall_database.dsn, embedder="none", settings=pgrecall_database.settings
    ) as memory:
        yield memory


def fill(memory: Memory, project: str, old: int, new: int) -> list[UUID]:
    """Record episodes; gives the identifiers of the old ones."""
    ages = [timedelta(days=60, seconds=i // 3) for i in range(old)] + [timedelta(days=1)] * new
    recorded = memory.episodes.record_many(
        {"project_id": project, "agent_version": "1", "perception": {"n": i}, "reasoning": {},
         "action": {}, "timestamp": NOW - age} for i, age in enumerate(ages)
    )  # fmt: skip
    return [episode.episode_id for episode in recorded.episodes[:old]]


def test_what_is_old_goes_and_evidence_stays(memory: Memory, pgrecall_database: Database) -> None:
    old = fill(memory, "a", 30, 5)
    fill(memory, "b", 10, 5)
    memory.knowledge.add("strategy", "rests on them", {}, supporting_episodes=old[4:7])
    told: list[tuple[int, int, str]] = []
    done = prune(
        pgrecall_database.dsn,
        Retention(before=MONTH, batch=4, share=1,
                  on_progress=lambda done, total, name, _: told.append((done, total, name))),
    )  # fmt: skip
    assert (done.old, done.deleted, done.evidence, done.left) == (40, 37, 3, 0)
    assert told[-1] == (40, 40, "b")
    assert memory.episodes.count() == 13
    kept = {memory.episodes.get(one).episode_id for one in old[4:7]}
    assert len(kept) == 3
    again = prune(pgrecall_database.dsn, Retention(before=MONTH, share=1))
    assert (again.old, again.deleted, again.evidence) == (3, 0, 3)
    with psycopg.connect(pgrecall_database.owner_dsn) as owner:
        left = owner.execute(
            "SELECT (SELECT count(*) FROM pgrecall.texts WHERE kind = 'episodes'), "
            "(SELECT count(*) FROM pgrecall.embedding_queue WHERE kind = 'episodes')"
        ).fetchone()
    assert left is not None
    assert left[0] <= 13


def test_a_dry_run_only_counts(memory: Memory, pgrecall_database: Database) -> None:
    fill(memory, "a", 7, 2)
    done = prune(pgrecall_database.dsn, Retention(before=MONTH), dry_run=True)
    assert (done.old, done.deleted) == (7, 0)
    assert memory.episodes.count() == 9


def test_only_the_project_that_is_named(memory: Memory, pgrecall_database: Database) -> None:
    fill(memory, "a", 3, 0)
    fill(memory, "b", 3, 0)
    done = prune(pgrecall_database.dsn, Retention(before=MONTH, project_id="b", share=1))
    assert done.deleted == 3
    assert memory.episodes.count(project_id="a") == 3


def test_who_is_at_work_on_an_episode_keeps_it_and_waits_for_nobody(
    memory: Memory, pgrecall_database: Database
) -> None:
    old = fill(memory, "a", 20, 0)
    with psycopg.connect(pgrecall_database.dsn, prepare_threshold=None) as busy:
        busy.execute(
            "UPDATE agent_episodes SET outcome_quality = 1 WHERE episode_id = %s", [old[3]]
        )
        done = prune(pgrecall_database.dsn, Retention(before=MONTH, batch=5, share=1))
        busy.commit()
    assert (done.deleted, done.left) == (19, 1)
    assert memory.episodes.get(old[3]).outcome_quality == 1


def test_writers_go_on_meanwhile(memory: Memory, pgrecall_database: Database) -> None:
    fill(memory, "a", 600, 0)
    slowest = 0.0
    stop = threading.Event()

    def delete() -> None:
        prune(pgrecall_database.dsn, Retention(before=MONTH, batch=50))
        stop.set()

    work = threading.Thread(target=delete)
    work.start()
    while not stop.is_set():
        begun = time.perf_counter()
        memory.episodes.record(project_id="a", agent_version="1", perception={}, reasoning={},
                               action={})  # fmt: skip
        slowest = max(slowest, time.perf_counter() - begun)
    work.join()
    assert slowest < 2
    assert memory.episodes.count(project_id="a") >= 1


def test_it_can_be_stopped(memory: Memory, pgrecall_database: Database) -> None:
    fill(memory, "a", 40, 0)
    stop = threading.Event()

    def once(*_: Any) -> None:
        stop.set()

    done = prune(
        pgrecall_database.dsn, Retention(before=MONTH, batch=10, stop=stop, on_progress=once)
    )
    assert (done.deleted, done.left) == (10, 30)
    assert memory.episodes.count() == 30


def test_the_command(memory: Memory, pgrecall_database: Database) -> None:
    fill(memory, "a", 5, 1)
    words = ["episodes", "prune", "--older-than", "30", "--dsn", pgrecall_database.dsn]
    dry = CliRunner().invoke(app, [*words, "--dry-run", "--table"])
    assert "5 episodes are old enough; nothing was changed" in dry.output
    done = CliRunner().invoke(app, [*words, "--share", "1"])
    assert json.loads(done.stdout) == {
        "old": 5, "deleted": 5, "evidence": 0, "left": 0, "dry_run": False,
    }  # fmt: skip
    assert memory.episodes.count() == 1
