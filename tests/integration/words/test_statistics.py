"""What is counted equals a recount, whatever happens; and nobody waits for it."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, suppress
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb
from tests.integration.words.conftest import (
    INSERT,
    Connection,
    check_statistics,
    fold,
    say,
)

from pgrecall import Memory
from pgrecall.testing import Database

PICK = "(SELECT episode_id FROM agent_episodes ORDER BY md5(episode_id::text) LIMIT 1)"
TEXTS = ("gold ship ERR-4711", "ship", "", "gold gold", "plan of createOrder", "the")
COPY = "COPY agent_episodes (project_id, perception, reasoning, action, agent_version) FROM STDIN"
THINK = (
    "WITH changed AS (UPDATE agent_working_memory SET thought_history = thought_history || "
    "%(thought)s::jsonb RETURNING 1) INSERT INTO agent_working_memory (project_id, "
    "thought_history) SELECT %(project)s, ARRAY[%(thought)s::jsonb] "
    "WHERE NOT EXISTS (SELECT FROM changed)"
)
LEARN = (
    "INSERT INTO agent_knowledge (knowledge_type, content, description, is_active, project_id) "
    "VALUES ('pattern', '{}', %(text)s, false, %(owner)s)"
)
STATEMENTS = {
    "change": f"UPDATE agent_episodes SET action = %(thought)s WHERE episode_id = {PICK}",
    "move": f"UPDATE agent_episodes SET project_id = %(project)s WHERE episode_id = {PICK}",
    "outcome": f"UPDATE agent_episodes SET outcome = '{{}}' WHERE episode_id = {PICK}",
    "delete": f"DELETE FROM agent_episodes WHERE episode_id = {PICK}",
    "fold": "SELECT pgrecall.fold_words()",
    "learn": LEARN,
    "think": THINK,
    "forget": "DELETE FROM agent_working_memory",
    "savepoint": "SAVEPOINT here",
    "back": "ROLLBACK TO SAVEPOINT here",
}
NAMES = ("insert", "copy", "commit", "rollback", *STATEMENTS)
STEPS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.integers(0, 1), st.integers(0, 5)), min_size=5, max_size=25
)
DELETE = "DELETE FROM agent_episodes WHERE episode_id = %s"
NEARLY = "SELECT setval(pg_get_serial_sequence('pgrecall.word_changes', 'change'), 1020)"
"""A few changes before the one that makes a writer fold."""
HELD = (psycopg.errors.LockNotAvailable, psycopg.errors.InvalidSavepointSpecification)
"""The other transaction holds the row, or there is no savepoint: the step does nothing."""


def step(connection: Connection, name: str, n: int) -> None:
    """Do something in the transaction that is open."""
    text, project = TEXTS[n], ("apollo", "gemini")[n % 2]
    thought = Jsonb({"did": text})
    if name == "insert":
        say(connection, text, project)
    elif name == "copy":
        with connection.cursor().copy(COPY) as copy:
            for _ in range(3):
                copy.write_row((project, thought, Jsonb({}), Jsonb({}), "1"))
    else:
        owner = None if n % 3 else project
        values = {"text": text, "project": project, "thought": thought, "owner": owner}
        connection.execute(STATEMENTS[name].encode(), values)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_counts_equal_a_recount(pgrecall_database: Database, steps: Any) -> None:
    """Two transactions, their steps interleaved; rows that the other holds are left alone."""
    with ExitStack() as stack:
        pair = [stack.enter_context(psycopg.connect(pgrecall_database.owner_dsn)) for _ in range(2)]
        for connection in pair:
            connection.execute("SET lock_timeout = '100ms'")
            connection.execute("SET idle_in_transaction_session_timeout = '60s'")
            connection.commit()
        for name, which, n in steps:
            connection = pair[which]
            if name == "commit":
                connection.commit()
            elif name == "rollback":
                connection.rollback()
            else:
                connection.execute("SELECT 1")  # opens a transaction, which stays open
                with suppress(*HELD), connection.transaction():  # the latter is a savepoint
                    step(connection, name, n)
        for connection in pair:
            connection.commit()
    with psycopg.connect(pgrecall_database.owner_dsn, autocommit=True) as owner:
        check_statistics(owner)
        fold(owner)
        assert owner.execute("SELECT count(*) FROM pgrecall.word_changes").fetchone() == (0,)
        check_statistics(owner)


def test_a_truncated_table_has_no_words(owner: Connection) -> None:
    say(owner, "gold")
    fold(owner)
    say(owner, "ship")
    owner.execute("TRUNCATE agent_episodes")
    check_statistics(owner)
    assert owner.execute("SELECT count(*) FROM pgrecall.vocabulary").fetchone() == (0,)


def test_a_folder_in_an_open_transaction_holds_up_nobody(
    pgrecall_database: Database, owner: Connection, app: Connection
) -> None:
    say(app, "gold ship")
    with psycopg.connect(pgrecall_database.dsn, prepare_threshold=None) as slow:
        say(slow, "gold gold")
        assert fold(slow) == 2
        app.execute("SET statement_timeout = '1s'")
        episode = say(app, "gold ship bronze")
        app.execute(
            "UPDATE agent_episodes SET action = '{\"x\": 1}' WHERE episode_id = %s", [episode]
        )
        assert fold(app) is None
        hits = app.execute(
            "SELECT episode_id FROM pgrecall.recall_episodes(NULL, p_text => 'bronze')"
        ).fetchall()
        assert hits == [(episode,)]
        app.execute("DELETE FROM agent_episodes WHERE episode_id = %s", [episode])
        slow.rollback()
    check_statistics(owner)
    assert (fold(app) or 0) > 0
    check_statistics(owner)


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_writer_with_an_old_snapshot_does_not_fail(
    pgrecall_database: Database, owner: Connection, isolation: str
) -> None:
    say(owner, "gold")
    with psycopg.connect(pgrecall_database.dsn, prepare_threshold=None) as old:
        old.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
        old.execute("SELECT count(*) FROM agent_episodes")
        say(owner, "gold")
        fold(owner)
        # The next number that makes a writer fold is passed on the way.
        owner.execute(
            "SELECT setval(pg_get_serial_sequence('pgrecall.word_changes', 'change'), 1020)"
        )
        for i in range(10):
            say(old, f"gold {i}")
        old.commit()
    check_statistics(owner)
    assert fold(owner) == 10


def test_writers_fold_now_and_then(owner: Connection, app: Connection) -> None:
    owner.execute(NEARLY)
    for i in range(5):
        say(app, f"gold {i}")
    left = owner.execute("SELECT count(*) FROM pgrecall.word_changes").fetchone()
    assert left == (1,)
    check_statistics(owner)


def test_the_client_folds_in_the_background(
    memory: Memory, make_episode: Any, owner: Connection
) -> None:
    memory.episodes.record(**make_episode())
    deadline = time.monotonic() + 20
    while owner.execute("SELECT count(*) FROM pgrecall.word_changes").fetchone() != (0,):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    check_statistics(owner)


def test_many_writers_at_once(pgrecall_database: Database, owner: Connection) -> None:
    failures: list[Exception] = []
    until = time.monotonic() + 3

    def write(seed: int) -> None:
        ids: list[UUID] = []
        try:
            with psycopg.connect(pgrecall_database.dsn, prepare_threshold=None) as connection:
                n = seed
                while time.monotonic() < until:
                    n += 1
                    with connection.transaction(force_rollback=n % 7 == 0):
                        mine = uuid4()
                        connection.execute(
                            INSERT, [mine, f"p{n % 3}", Jsonb({"t": f"gold w{n % 50}"})]
                        )
                        if n % 5 == 0:
                            fold(connection)
                        if ids and n % 4 == 0:
                            connection.execute(
                                "DELETE FROM agent_episodes WHERE episode_id = %s",
                                [ids[n % len(ids)]],
                            )
                    if n % 7:
                        ids.append(mine)
        except Exception as error:  # noqa: BLE001 - told by the test
            failures.append(error)

    threads = [threading.Thread(target=write, args=(i * 1000,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    check_statistics(owner)
    fold(owner)
    check_statistics(owner)
