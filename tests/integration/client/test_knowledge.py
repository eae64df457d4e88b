"""Knowledge: rests on evidence, counts its applications, is shared or of one project."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest

from pgrecall import Memory, errors


@pytest.fixture
def evidence(memory: Memory, make_episode: Any) -> list[UUID]:
    recorded = memory.episodes.record_many([make_episode(sprint_id=str(i)) for i in range(5)])
    return [episode.episode_id for episode in recorded.episodes]


def test_added_knowledge_is_what_get_returns(memory: Memory, evidence: list[UUID]) -> None:
    added = memory.knowledge.add(
        "strategy",
        "Reserve a fifth of the sprint when velocity declines",
        {"buffer": 0.2},
        supporting_episodes=evidence[:3],
        contradicting_episodes=evidence[3:4],
        confidence=0.7,
        created_by="analyst",
    )
    assert memory.knowledge.get(added.knowledge_id) == added
    assert list(added.supporting_episodes) == evidence[:3]
    assert added.is_active
    assert added.success_rate is None
    assert added.project_id is None


def test_too_little_evidence_is_refused_unless_it_is_a_candidate(
    memory: Memory, evidence: list[UUID]
) -> None:
    for supporting in ([], evidence[:2], [evidence[0]] * 3):
        with pytest.raises(errors.InvalidInput, match="at least 3 different"):
            memory.knowledge.add("pattern", "x", {}, supporting_episodes=supporting)
    candidate = memory.knowledge.add(
        "pattern", "x", {}, supporting_episodes=evidence[:1], active=False
    )
    assert not candidate.is_active
    assert [k.knowledge_id for k in memory.knowledge.list(active=False)] == [candidate.knowledge_id]
    assert len(memory.knowledge.list()) == 0


def test_evidence_must_exist(memory: Memory, evidence: list[UUID]) -> None:
    memory.episodes.delete(evidence[0])
    with pytest.raises(errors.InvalidInput, match=str(evidence[0])):
        memory.knowledge.add("pattern", "x", {}, supporting_episodes=evidence[:3])
    with pytest.raises(errors.InvalidInput, match="both support and contradict"):
        memory.knowledge.add(
            "pattern", "x", {}, supporting_episodes=evidence[1:4],
            contradicting_episodes=evidence[1:2],
        )  # fmt: skip
    assert len(memory.knowledge.list(active=None)) == 0


def test_bad_values_are_refused(memory: Memory, evidence: list[UUID]) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"knowledge_type": "hunch"}, "knowledge_type is 'hunch'"),
        ({"confidence": 1.2}, "confidence is 1.2"),
        ({"description": ""}, "description"),
        ({"content": {"a": float("nan")}}, "content"),
        ({"created_by": "x" * 51}, "created_by"),
        ({"embedding": [1.0]}, "64"),
    ]
    for values, message in cases:
        given: dict[str, Any] = {
            "knowledge_type": "strategy", "description": "d", "content": {},
            "supporting_episodes": evidence[:3], **values,
        }  # fmt: skip
        with pytest.raises(errors.InvalidInput, match=message):
            memory.knowledge.add(**given)


def test_concurrent_applications_are_all_counted(memory: Memory, evidence: list[UUID]) -> None:
    added = memory.knowledge.add("heuristic", "x", {}, supporting_episodes=evidence[:3])
    with ThreadPoolExecutor(10) as pool:
        list(
            pool.map(
                lambda i: memory.knowledge.record_application(
                    added.knowledge_id, success=i % 5 != 0
                ),
                range(50),
            )
        )
    found = memory.knowledge.get(added.knowledge_id)
    assert (found.times_applied, found.success_count, found.failure_count) == (50, 40, 10)
    assert found.success_rate == pytest.approx(0.8)
    assert found.last_applied is not None


def test_an_application_can_be_evidence(memory: Memory, evidence: list[UUID]) -> None:
    added = memory.knowledge.add("strategy", "x", {}, supporting_episodes=evidence[:3])
    for _ in range(2):
        memory.knowledge.record_application(
            added.knowledge_id, success=True, episode_id=evidence[3]
        )
    found = memory.knowledge.record_application(
        added.knowledge_id, success=False, episode_id=evidence[4]
    )
    assert list(found.supporting_episodes) == evidence[:4]
    assert list(found.contradicting_episodes or []) == evidence[4:]
    with pytest.raises(errors.InvalidInput, match="no such episodes"):
        memory.knowledge.record_application(added.knowledge_id, success=True, episode_id=uuid4())


def test_retired_knowledge_is_kept_but_not_used(memory: Memory, evidence: list[UUID]) -> None:
    added = memory.knowledge.add("strategy", "reserve a buffer", {}, supporting_episodes=evidence)
    assert [hit.knowledge for hit in memory.knowledge.recall("buffer")] == [added]
    assert not memory.knowledge.retire(added.knowledge_id).is_active
    assert memory.knowledge.recall("buffer") == []
    assert len(memory.knowledge.recall("buffer", active=None)) == 1
    with pytest.raises(errors.NotFound, match="no active knowledge"):
        memory.knowledge.record_application(added.knowledge_id, success=True)


def test_a_project_sees_its_own_and_the_shared(memory: Memory, evidence: list[UUID]) -> None:
    def add(description: str, **values: Any) -> UUID:
        return memory.knowledge.add(
            "strategy", description, {}, supporting_episodes=evidence[:3], **values
        ).knowledge_id

    shared, own, foreign = add("a"), add("b", project_id="apollo"), add("c", project_id="gemini")
    apollo = memory.project("apollo")
    assert {k.knowledge_id for k in apollo.knowledge.list()} == {shared, own}
    assert {hit.knowledge.knowledge_id for hit in apollo.knowledge.recall("b")} == {shared, own}
    with pytest.raises(errors.NotFound):
        apollo.knowledge.get(foreign)
    of_project = apollo.knowledge.add("pattern", "d", {}, supporting_episodes=evidence[:3])
    assert of_project.project_id == "apollo"
    for_all = apollo.knowledge.add(
        "pattern", "e", {}, supporting_episodes=evidence[:3], shared=True
    )
    assert for_all.project_id is None


def test_confidence_weighs_in_recall(memory: Memory, evidence: list[UUID]) -> None:
    vector = [1.0] * memory.dimensions
    for confidence in (0.2, 0.9):
        memory.knowledge.add(
            "strategy", f"at {confidence}", {}, supporting_episodes=evidence[:3],
            confidence=confidence, embedding=vector,
        )  # fmt: skip
    hits = memory.knowledge.recall(embedding=vector)
    assert [hit.knowledge.confidence for hit in hits] == [0.9, 0.2]
    assert hits[0].score == pytest.approx(0.85 * 1 + 0.15 * 0.9)
    assert len(memory.knowledge.recall(embedding=vector, min_confidence=0.5)) == 1


def test_deleting(memory: Memory, evidence: list[UUID]) -> None:
    added = memory.knowledge.add("strategy", "x", {}, supporting_episodes=evidence)
    memory.knowledge.delete(added.knowledge_id)
    with pytest.raises(errors.NotFound):
        memory.knowledge.delete(added.knowledge_id)
    assert memory.episodes.delete(*evidence) == 5
