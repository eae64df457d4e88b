"""A standby answers recalls as its primary does, refuses writes by name, and says its age."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.chaos.place import Place, wait_for
from tests.standby import Standby, standby

from pgrecall import AsyncMemory, Memory, errors
from pgrecall.models import Route, SearchMode, Staleness

MODES: tuple[SearchMode, ...] = ("vector", "words", "hybrid")
ASKED = "declining velocity with a large backlog"


@pytest.fixture(scope="module")
def recorded(place: Place) -> list[UUID]:
    """Episodes, knowledge of them, and a session, on the primary."""
    with place.memory() as memory:
        done = memory.episodes.record_many(
            {
                "project_id": f"project-{number % 3}",
                "agent_version": "1",
                "perception": {"velocity": "declining" if number % 2 else "steady", "n": number},
                "reasoning": {"because": f"the backlog of team {number % 7} is large"},
                "action": {"plan": number},
                "outcome_quality": (number % 10) / 10,
            }
            for number in range(200)
        )
        ids = [episode.episode_id for episode in done.episodes]
        for number in range(5):
            memory.knowledge.add(
                knowledge_type="strategy", content={"n": number}, supporting_episodes=ids[:3],
                description=f"with declining velocity plan {number} items of the backlog",
            )  # fmt: skip
        session = memory.sessions.open(project_id="project-0", goal="plan the sprint")
        memory.sessions.append_thought(session.session_id, {"text": "the velocity is declining"})
        return [*ids, session.session_id]


@pytest.fixture
def reader(
    place: Place, replica: Standby, recorded: list[UUID], caught_up: Callable[[], None]
) -> Iterator[Memory]:
    """A memory on the standby, which has caught up."""
    caught_up()
    with place.memory(replica.at(place.dsn)) as memory:
        yield memory


@pytest.mark.parametrize("mode", MODES)
def test_it_recalls_the_same(primary: Memory, reader: Memory, mode: SearchMode) -> None:
    for project in (None, "project-1"):
        there = primary.episodes.recall(ASKED, mode=mode, project_id=project, limit=20)
        here = reader.episodes.recall(ASKED, mode=mode, project_id=project, limit=20)
        assert len(there) == 20
        assert [(hit.episode, hit.score) for hit in here] == [
            (hit.episode, hit.score) for hit in there
        ]
        known = primary.knowledge.recall(ASKED, mode=mode, project_id=project)
        found = reader.knowledge.recall(ASKED, mode=mode, project_id=project)
        assert len(known) == 5
        assert [(hit.knowledge, hit.score) for hit in found] == [
            (hit.knowledge, hit.score) for hit in known
        ]


@pytest.mark.parametrize("route", ["exact", "codes", "index"])
def test_every_route_reads_only(reader: Memory, route: Route) -> None:
    hits = reader.episodes.recall(
        ASKED, mode="vector", route=route, diversity=0.3, age_weight=0.1, neighbours=True,
        explain=True,
    )  # fmt: skip
    assert hits.account is not None
    assert (hits.account.route, len(hits)) == (route, 10)


def test_sessions_lists_and_counts_are_read(primary: Memory, reader: Memory) -> None:
    (session,) = primary.sessions.list()
    assert reader.sessions.get(session.session_id) == session
    thoughts = reader.sessions.recall("velocity")
    assert [(hit.session_id, hit.thought) for hit in thoughts] == [
        (session.session_id, {"text": "the velocity is declining"})
    ]
    assert reader.episodes.count() == primary.episodes.count()
    listed = primary.episodes.list(limit=200)
    assert reader.episodes.list(limit=200).items == listed.items
    assert reader.metrics.list(operation_type="record_episodes").items == (
        primary.metrics.list(operation_type="record_episodes").items
    )


WRITES: dict[str, Callable[[Memory, list[UUID]], object]] = {
    "record": lambda memory, ids: memory.episodes.record(
        project_id="p", agent_version="1", perception={"a": 1}, reasoning={}, action={"b": 1}
    ),
    "record_later": lambda memory, ids: memory.episodes.record(
        project_id="p", agent_version="1", perception={"a": 1}, reasoning={}, action={"b": 1},
        embed="later",
    ),
    "record_outcome": lambda memory, ids: memory.episodes.record_outcome(ids[0], {"a": 1}, 1.0),
    "delete": lambda memory, ids: memory.episodes.delete(ids[100]),
    "add": lambda memory, ids: memory.knowledge.add(
        knowledge_type="pattern", content={"a": 1}, description="a", supporting_episodes=ids[:3]
    ),
    "open": lambda memory, ids: memory.sessions.open(project_id="p"),
    "close": lambda memory, ids: memory.sessions.close(ids[-1]),
    "expire": lambda memory, ids: memory.sessions.expire(),
    "prune": lambda memory, ids: memory.metrics.prune(keep=1),
}  # fmt: skip


@pytest.mark.parametrize("write", WRITES)
def test_a_write_is_refused_and_changes_nothing(
    place: Place, primary: Memory, reader: Memory, recorded: list[UUID], write: str
) -> None:
    def rows() -> list[tuple[object, ...]]:
        with psycopg.connect(place.admin_dsn) as admin:
            return admin.execute(
                "SELECT (SELECT count(*) FROM agent_episodes WHERE outcome IS NULL), "
                "(SELECT count(*) FROM agent_knowledge), "
                "(SELECT count(*) FROM agent_working_memory WHERE is_active), "
                "(SELECT count(*) FROM pgrecall.embedding_queue)"
            ).fetchall()

    before = rows()
    with pytest.raises(errors.ReadOnlyServer, match="connect to the primary"):
        WRITES[write](reader, recorded)
    assert rows() == before


def test_what_a_client_writes_down_aside_breaks_no_recall(
    place: Place, reader: Memory, replica: Standby, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.INFO, "pgrecall"),
        place.memory(replica.at(place.dsn), recall_sample_rate=1.0) as sampled,
    ):
        for _ in range(3):
            assert len(sampled.episodes.recall(ASKED)) == 10
            assert sampled.metrics.flush() == 0
        assert sampled.metrics.lost == 3
    told = [record for record in caplog.records if record.name == "pgrecall"]
    assert [record.levelname for record in told] == ["INFO"]
    assert "no metrics are kept" in told[0].getMessage()


async def test_coroutines_read_it_as_well(place: Place, reader: Memory, replica: Standby) -> None:
    settings = place.settings
    embedder = reader.embedder
    async with await AsyncMemory.open(
        replica.at(place.dsn), embedder=embedder, settings=settings
    ) as memory:
        hits = await memory.episodes.recall(ASKED)
        assert [hit.episode for hit in hits] == [h.episode for h in reader.episodes.recall(ASKED)]
        assert (await memory.staleness()).standby


def test_a_primary_is_never_behind(primary: Memory) -> None:
    assert primary.staleness() == Staleness(standby=False, receiving=False, seconds=0, bytes=0)


def test_a_standby_that_has_replayed_all_is_not_behind(reader: Memory) -> None:
    up_to_date = Staleness(standby=True, receiving=True, seconds=0, bytes=0)
    wait_for(lambda: reader.staleness() == up_to_date, "the standby to be up to date")


def test_what_waits_to_be_replayed_is_told(
    place: Place, primary: Memory, reader: Memory, replica: Standby,
    caught_up: Callable[[], None],
) -> None:  # fmt: skip
    count = reader.episodes.count()
    with psycopg.connect(replica.at(place.admin_dsn), autocommit=True) as here:
        here.execute("SELECT pg_wal_replay_pause()")
        wait_for(
            lambda: (
                here.execute("SELECT pg_get_wal_replay_pause_state()").fetchone() == ("paused",)
            ),
            "replay to pause",
        )
        try:
            primary.episodes.record(
                project_id="late", agent_version="1", perception={"late": uuid4().hex},
                reasoning={}, action={"a": 1},
            )  # fmt: skip
            wait_for(lambda: reader.staleness().bytes, "the standby to receive it")
            assert reader.staleness().receiving
            first = age(reader)
            assert first > 0
            wait_for(lambda: age(reader) > first, "time to pass")
            assert reader.episodes.count() == count
            said = place.command(
                "doctor", "--json", PGRECALL_DIRECT_DSN=replica.at(place.owner_dsn)
            )
            assert "it receives from its primary and is" in said.stdout
            assert "to be replayed" in said.stdout
        finally:
            here.execute("SELECT pg_wal_replay_resume()")
    caught_up()
    assert reader.episodes.count() == count + 1
    wait_for(lambda: reader.staleness().seconds == 0, "the standby to be up to date")


def test_a_standby_without_its_primary_grows_old(
    place: Place, primary: Memory, recorded: list[UUID]
) -> None:
    with (
        standby(place.server, place.directory / "second") as other,
        place.memory(other.at(place.dsn)) as memory,
    ):
        last = primary.sessions.open(project_id="last")
        wait_for(lambda: memory.sessions.list(project_id="last").items, "the standby to receive")
        wait_for(lambda: memory.staleness().seconds == 0, "the standby to be up to date")
        with psycopg.connect(other.at(place.admin_dsn), autocommit=True) as here:
            here.execute("ALTER SYSTEM SET primary_conninfo = ''")
            here.execute("SELECT pg_reload_conf()")
        wait_for(lambda: not memory.staleness().receiving, "the standby to be cut off")
        primary.sessions.delete(last.session_id)
        wait_for(lambda: memory.staleness().bytes == 0, "what was received to be replayed")
        assert memory.staleness().standby
        first = age(memory)
        assert first > 0
        wait_for(lambda: age(memory) > first, "time to pass")
        assert memory.sessions.get(last.session_id) == last
        assert len(memory.episodes.recall(ASKED)) == 10


def age(memory: Memory) -> float:
    seconds = memory.staleness().seconds
    assert seconds is not None
    return seconds


def both(place: Place, replica: Standby, wanted: str) -> str:
    """Name both servers in one connection string."""
    return make_conninfo(
        place.dsn, host="127.0.0.1,127.0.0.1", port=f"{place.port},{replica.port}",
        target_session_attrs=wanted,
    )  # fmt: skip


def test_one_string_for_reading_outlives_its_standby(
    place: Place, primary: Memory, recorded: list[UUID]
) -> None:
    with (
        standby(place.server, place.directory / "third") as other,
        place.memory(both(place, other, "prefer-standby"), pool_max_size=1) as memory,
    ):
        assert memory.staleness().standby
        wait_for(lambda: len(memory.episodes.recall(ASKED)) == 10, "the standby to catch up")
        other.kill()
        # The connection that the pool held is noticed to be broken before it is lent.
        assert len(memory.episodes.recall(ASKED)) == 10
        assert not memory.staleness().standby


def test_one_string_for_writing_finds_the_primary(place: Place, replica: Standby) -> None:
    dsn = make_conninfo(
        place.dsn, host="127.0.0.1,127.0.0.1", port=f"{replica.port},{place.port}",
        target_session_attrs="read-write",
    )  # fmt: skip
    with place.memory(dsn) as memory:
        assert not memory.staleness().standby
        memory.sessions.delete(memory.sessions.open(project_id="p").session_id)
