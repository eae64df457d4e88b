"""The ledger finds what it is there to find: rows that are lost, doubled, torn or unasked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from tests.chaos.ledger import Fate, Ledger, Tally, Updated
from tests.chaos.load import episode

from pgrecall import Memory, errors
from pgrecall.testing import Database

COUNT = 3


@pytest.fixture
def judge(memory: Memory, pgrecall_database: Database) -> Callable[[Ledger], Tally]:
    """Judge a ledger as if this database were where its writes went."""

    def judge(ledger: Ledger) -> Tally:
        return ledger.judge(pgrecall_database.admin_dsn)

    return judge


def write(ledger: Ledger, memory: Memory, error: Exception | None = None) -> tuple[int, ...]:
    """Write three rows at once, and tell the ledger that it ended with an error."""
    with ledger.entry("bulk", COUNT) as entry:
        memory.episodes.record_many([episode(entry, n) for n in entry.numbers])
        if error is not None:
            raise error
    return entry.numbers


def test_what_is_there_once_is_good(memory: Memory, judge: Callable[[Ledger], Tally]) -> None:
    ledger = Ledger("good")
    write(ledger, memory)
    write(ledger, memory, errors.OutcomeUnknown("who knows"))
    tally = judge(ledger)
    assert tally.good
    assert (tally.writes, tally.acknowledged, tally.unknown) == (2 * COUNT, COUNT, COUNT)


def test_lost_and_torn(
    memory: Memory, admin: psycopg.Connection[Any], judge: Callable[[Ledger], Tally]
) -> None:
    ledger = Ledger("lost")
    numbers = write(ledger, memory)
    admin.execute(
        "DELETE FROM agent_episodes WHERE (perception ->> 'number')::int = %s", [numbers[1]]
    )
    tally = judge(ledger)
    assert (tally.lost, tally.torn, tally.good) == (1, 1, False)


def test_doubled(
    memory: Memory, admin: psycopg.Connection[Any], judge: Callable[[Ledger], Tally]
) -> None:
    ledger = Ledger("doubled")
    write(ledger, memory)
    admin.execute(
        "INSERT INTO agent_episodes"
        " (project_id, perception, reasoning, action, agent_version, control_mode)"
        " SELECT project_id, perception, reasoning, action, agent_version, control_mode"
        " FROM agent_episodes LIMIT 2"
    )
    tally = judge(ledger)
    assert (tally.doubled, tally.good) == (2, False)


def test_refused_and_there(memory: Memory, judge: Callable[[Ledger], Tally]) -> None:
    ledger = Ledger("ghosts")
    write(ledger, memory, errors.ConnectionLost("nothing was written"))
    tally = judge(ledger)
    assert (tally.refused, tally.ghosts, tally.good) == (COUNT, COUNT, False)


def test_an_error_of_another_kind_and_rows_of_nobody(
    memory: Memory, judge: Callable[[Ledger], Tally]
) -> None:
    ledger = Ledger("wrong")
    write(ledger, memory, errors.ConfigurationError("which nobody expects"))
    write(Ledger("another"), memory)
    write(Ledger("a third"), memory)
    tally = judge(ledger)
    assert "ConfigurationError" in tally.wrong[0]


def test_rows_that_nobody_wrote(
    memory: Memory, admin: psycopg.Connection[Any], judge: Callable[[Ledger], Tally]
) -> None:
    ledger = Ledger("nobody's")
    write(ledger, memory)
    admin.execute("UPDATE agent_episodes SET perception = '{\"number\": 99}'")
    assert not judge(ledger).good


def fail(error: Exception) -> None:
    raise error


def test_an_unknown_write_stays_one_until_its_repetition_is_acknowledged(memory: Memory) -> None:
    ledger = Ledger("unknown")
    with ledger.entry("one") as entry:
        fail(errors.OutcomeUnknown("who knows"))
    with ledger.attempt(entry):
        fail(errors.Unavailable("the repetition was refused, which says nothing of the first"))
    assert entry.fate.name == "UNKNOWN"
    with ledger.attempt(entry):
        memory.episodes.record(**episode(entry, entry.numbers[0], keyed=True))
    assert entry.fate.name == "ACKNOWLEDGED"


@pytest.mark.parametrize(
    ("told", "stands", "lost", "ghosts"),
    [
        ((Fate.ACKNOWLEDGED, Fate.ACKNOWLEDGED), 2, 0, 0),
        ((Fate.ACKNOWLEDGED, Fate.UNKNOWN), 1, 0, 0),
        ((Fate.ACKNOWLEDGED, Fate.UNKNOWN), 2, 0, 0),
        ((Fate.ACKNOWLEDGED, Fate.REFUSED), 2, 0, 1),
        ((Fate.ACKNOWLEDGED, Fate.ACKNOWLEDGED), 1, 1, 0),
    ],
)
def test_outcomes(
    memory: Memory,
    judge: Callable[[Ledger], Tally],
    told: tuple[Fate, ...],
    stands: int,
    lost: int,
    ghosts: int,
) -> None:
    ledger = Ledger("outcomes")
    recorded = memory.episodes.record(
        project_id="chaos", agent_version="1", perception={"a": 1}, reasoning={},
        action={}, outcome={"number": stands},
    )  # fmt: skip
    updated = Updated(recorded.episode_id)
    ledger.follow(updated)
    for number, fate in enumerate(told, start=1):
        ledger.update(updated, fate, number)
    tally = judge(ledger)
    assert (tally.lost, tally.ghosts) == (lost, ghosts)
