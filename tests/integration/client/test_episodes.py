"""Episodes: what is recorded can be found again, with its outcome, and only once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from pgrecall import Memory, errors
from pgrecall.core.episode_rows import EPISODE_FIELDS

DAY = datetime(2026, 3, 1, 9, tzinfo=UTC)


def test_a_recorded_episode_is_what_get_returns(memory: Memory, make_episode: Any) -> None:
    note = uuid4()
    recorded = memory.episodes.record(
        **make_episode(
            outcome={"completed": 5, "unicode": "naïve ☕ 雪"},
            outcome_quality=0.5,
            timestamp=DAY,
            control_mode="memory_augmented",
            decision_source="planner",
            sprint_id="S-1",
            chronicle_note_id=note,
            external_id="run-1",
        )
    )
    found = memory.episodes.get(recorded.episode_id)
    assert found == recorded
    assert found.timestamp == DAY
    assert found.outcome_recorded_at is not None
    assert found.chronicle_note_id == note
    assert found.embedded


def test_defaults_are_those_of_the_specification(memory: Memory, make_episode: Any) -> None:
    before = datetime.now(UTC)
    episode = memory.episodes.record(**make_episode())
    assert before - timedelta(minutes=1) < episode.timestamp
    assert episode.control_mode == "rule_based_only"
    assert episode.outcome is None
    assert episode.outcome_recorded_at is None


def test_the_same_external_id_gives_the_same_episode(memory: Memory, make_episode: Any) -> None:
    first = memory.episodes.record(**make_episode(external_id="job-7"))
    second = memory.episodes.record(**make_episode(external_id="job-7"))
    assert second == first
    assert memory.episodes.count() == 1
    other_project = memory.episodes.record(**make_episode(project_id="b", external_id="job-7"))
    assert other_project.episode_id != first.episode_id


def test_numbers_that_jsonb_writes_differently_are_no_conflict(
    memory: Memory, make_episode: Any
) -> None:
    values = make_episode(external_id="n", perception={"huge": 1e23, "tiny": 1e-7, "one": 1.0})
    assert (
        memory.episodes.record(**values).episode_id == memory.episodes.record(**values).episode_id
    )


def test_other_content_under_an_external_id_is_a_conflict(
    memory: Memory, make_episode: Any
) -> None:
    memory.episodes.record(**make_episode(external_id="job-7"))
    with pytest.raises(errors.Conflict, match=r"'job-7'.*action differ"):
        memory.episodes.record(**make_episode(external_id="job-7", action={"other": True}))
    assert memory.episodes.count() == 1


def test_record_many_is_all_or_nothing(memory: Memory, make_episode: Any) -> None:
    memory.episodes.record(**make_episode(external_id="taken"))
    with pytest.raises(errors.Conflict):
        memory.episodes.record_many(
            [
                make_episode(external_id="new"),
                make_episode(external_id="taken", action={"other": 1}),
            ]
        )
    assert memory.episodes.count() == 1


def test_record_many_tells_new_from_existing(memory: Memory, make_episode: Any) -> None:
    stored = memory.episodes.record(**make_episode(external_id="a"))
    result = memory.episodes.record_many(
        [make_episode(external_id=external) for external in ("a", "b", "b")] + [make_episode()]
    )
    assert (result.created, result.existing) == (2, 2)
    assert result.episodes[0] == stored
    assert result.episodes[1].episode_id == result.episodes[2].episode_id
    assert memory.episodes.count() == 3
    assert memory.episodes.record_many([]).created == 0


def test_record_many_names_the_bad_one(memory: Memory, make_episode: Any) -> None:
    with pytest.raises(errors.InvalidInput, match="episode 2: outcome_quality is 1.5"):
        memory.episodes.record_many([make_episode()] * 2 + [make_episode(outcome_quality=1.5)])
    assert memory.episodes.count() == 0


def test_an_outcome_is_attached_later(memory: Memory, make_episode: Any) -> None:
    episode = memory.episodes.record(**make_episode())
    judged = memory.episodes.record_outcome(episode.episode_id, outcome={"done": 5}, quality=0.83)
    assert judged.outcome == {"done": 5}
    assert judged.outcome_quality == 0.83
    assert judged.outcome_recorded_at is not None
    revised = memory.episodes.record_outcome(str(episode.episode_id), quality=0.9)
    assert revised.outcome == {"done": 5}
    assert revised.outcome_quality == 0.9
    assert memory.episodes.get(episode.episode_id) == revised


def test_an_outcome_needs_an_episode_of_the_project(memory: Memory, make_episode: Any) -> None:
    episode = memory.episodes.record(**make_episode())
    with pytest.raises(errors.NotFound, match="in project 'other'"):
        memory.project("other").episodes.record_outcome(episode.episode_id, quality=1)
    with pytest.raises(errors.NotFound):
        memory.episodes.record_outcome(uuid4(), quality=1)
    with pytest.raises(errors.InvalidInput, match="neither outcome nor quality"):
        memory.episodes.record_outcome(episode.episode_id)
    assert memory.episodes.get(episode.episode_id).outcome_quality is None


def test_pages_show_every_episode_once_while_others_arrive(
    memory: Memory, make_episode: Any
) -> None:
    for day in range(25):
        # Equal times test that the identifier breaks ties.
        memory.episodes.record(**make_episode(timestamp=DAY + timedelta(days=day // 3)))
    seen = []
    page = memory.episodes.list(limit=10)
    while True:
        seen += [episode.episode_id for episode in page]
        if page.next_cursor is None:
            break
        memory.episodes.record(**make_episode(timestamp=DAY + timedelta(days=99)))
        page = memory.episodes.list(limit=10, cursor=page.next_cursor)
    assert len(seen) == len(set(seen)) == 25


def test_listing_filters(memory: Memory, make_episode: Any) -> None:
    wanted = memory.episodes.record(
        **make_episode(
            project_id="p", timestamp=DAY, sprint_id="S1", decision_source="rules",
            agent_version="2", outcome={"ok": 1}, outcome_quality=0.7,
        )
    )  # fmt: skip
    memory.episodes.record(**make_episode(project_id="q", timestamp=DAY - timedelta(days=9)))
    for filters in (
        {"project_id": "p"},
        {"since": DAY, "until": DAY + timedelta(seconds=1)},
        {"sprint_id": "S1"},
        {"decision_source": "rules"},
        {"agent_version": "2"},
        {"min_quality": 0.6, "max_quality": 0.7},
        {"with_outcome": True},
    ):
        assert [e.episode_id for e in memory.episodes.list(**filters)] == [wanted.episode_id]
        assert memory.episodes.count(**filters) == 1, filters
    assert memory.episodes.count(with_outcome=False) == 1
    with pytest.raises(errors.InvalidInput, match="not a filter"):
        memory.episodes.count(colour="red")  # type: ignore[call-arg]


def test_deleting(memory: Memory, make_episode: Any) -> None:
    kept, gone = (memory.episodes.record(**make_episode()) for _ in range(2))
    assert memory.project("other").episodes.delete(gone.episode_id) == 0
    assert memory.episodes.delete(gone.episode_id, uuid4()) == 1
    with pytest.raises(errors.NotFound):
        memory.episodes.get(gone.episode_id)
    assert memory.episodes.get(kept.episode_id) == kept


def test_evidence_cannot_be_deleted_from_under_knowledge(memory: Memory, make_episode: Any) -> None:
    episodes = [memory.episodes.record(**make_episode()) for _ in range(3)]
    memory.knowledge.add(
        "strategy",
        "Keep a buffer",
        {},
        supporting_episodes=[episode.episode_id for episode in episodes],
    )
    with pytest.raises(errors.Conflict, match="Keep a buffer"):
        memory.episodes.delete(*(episode.episode_id for episode in episodes))
    assert memory.episodes.count() == 3


def test_a_project_sees_only_its_own(memory: Memory, make_episode: Any) -> None:
    apollo = memory.project("apollo")
    values = make_episode()
    del values["project_id"]
    mine = apollo.episodes.record(**values)
    other = memory.episodes.record(**make_episode(project_id="gemini"))
    assert [e.episode_id for e in apollo.episodes.list()] == [mine.episode_id]
    assert apollo.episodes.count() == 1
    assert memory.episodes.count() == 2
    with pytest.raises(errors.NotFound):
        apollo.episodes.get(other.episode_id)
    assert apollo.episodes.embeddings([mine.episode_id, other.episode_id]).keys() == {
        mine.episode_id
    }
    with pytest.raises(errors.InvalidInput, match="bound to project 'apollo'"):
        apollo.episodes.list(project_id="gemini")
    with pytest.raises(errors.InvalidInput, match="bound to project"):
        apollo.episodes.record_many([make_episode(project_id="gemini")])


def test_stored_vectors_can_be_read(memory: Memory, make_episode: Any) -> None:
    vector = [0.5] * memory.dimensions
    given = memory.episodes.record(**make_episode(embedding=vector))
    without = memory.episodes.record(**make_episode(), embed="later")
    assert not without.embedded
    found = memory.episodes.embeddings([given.episode_id, without.episode_id])
    assert {key: value.to_list() for key, value in found.items()} == {given.episode_id: vector}


def test_columns_of_a_recalled_row_are_in_the_order_of_the_record(
    admin: psycopg.Connection[Any],
) -> None:
    columns = {
        row[0]
        for row in admin.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'agent_episodes'::regclass "
            "AND attnum > 0 AND NOT attisdropped"
        )
    }
    assert columns == (set(EPISODE_FIELDS) - {"embedded"}) | {"embedding"}
