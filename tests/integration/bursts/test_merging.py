"""``pgrecall episodes merge`` and what is in its way."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest
from tests.integration.bursts.conftest import counts, episode, unit

from pgrecall import Memory
from pgrecall.errors import TimedOut
from pgrecall.ops.merging import Merge, merge
from pgrecall.testing import Database

Owner = psycopg.Connection[Any]


def burst(memory: Memory, begin: int, end: int) -> None:
    rng = np.random.default_rng(begin)
    memory.episodes.record_many([episode(i, unit(rng)) for i in range(begin, end)], burst=True)


def test_the_command_merges_counts_words_in_and_tidies_up(
    memory: Memory, pgrecall_database: Database, owner: Owner
) -> None:
    burst(memory, 0, 1100)
    done = subprocess.run(
        [sys.executable, "-m", "pgrecall.cli", "episodes", "merge", "--json", "--dsn",
         pgrecall_database.dsn],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert (told["merged"], told["left"]) == (1100, 0)
    assert counts(owner) == (1100, 0)
    row = owner.execute(
        "SELECT pgrecall.any_recent(), (SELECT count(*) FROM pgrecall.recent_codes), "
        "(SELECT count(*) FROM pgrecall.word_changes) < 1024"
    ).fetchone()
    assert row == (False, 0, True)


def test_it_goes_on_until_it_is_stopped(
    memory: Memory, pgrecall_database: Database, owner: Owner
) -> None:
    stop = threading.Event()
    with ThreadPoolExecutor() as pool:
        mergers = [
            pool.submit(merge, pgrecall_database.dsn, Merge(loop=True, stop=stop, batch=10))
            for _ in range(2)
        ]
        try:
            for begin in range(0, 90, 30):
                burst(memory, begin, begin + 30)
                end = time.monotonic() + 30
                while counts(owner)[1] and time.monotonic() < end:
                    time.sleep(0.05)
        finally:
            stop.set()
        assert sum(merger.result().merged for merger in mergers) == 90
    assert counts(owner) == (90, 0)


def test_writers_that_stay_are_waited_for(
    memory: Memory, pgrecall_database: Database, owner: Owner
) -> None:
    burst(memory, 0, 5)
    with (
        psycopg.connect(pgrecall_database.dsn, prepare_threshold=None) as writer,
        ThreadPoolExecutor() as pool,
    ):
        writer.execute("UPDATE agent_episodes SET sprint_id = 's' WHERE external_id = '3'")
        merging = pool.submit(merge, pgrecall_database.dsn, Merge())
        with pytest.raises(TimeoutError):
            merging.result(timeout=1.0)
        # Others write meanwhile, to either table.
        burst(memory, 5, 10)
        memory.episodes.record(**episode(11, unit(np.random.default_rng(4))))
        writer.commit()
        assert merging.result().merged == 10
    row = owner.execute("SELECT sprint_id FROM agent_episodes WHERE external_id = '3'").fetchone()
    assert row == ("s",)
    assert counts(owner) == (11, 0)


def test_it_gives_up_when_its_patience_ends(memory: Memory, pgrecall_database: Database) -> None:
    burst(memory, 0, 5)
    with psycopg.connect(pgrecall_database.owner_dsn) as other:
        other.execute("LOCK TABLE agent_episodes IN SHARE MODE")
        with pytest.raises(TimedOut):
            merge(pgrecall_database.dsn, Merge(patience=0.5))
        other.rollback()
    assert merge(pgrecall_database.dsn, Merge()).merged == 5
