"""Recall: the nearest, all of them that match, weighted with their outcomes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgrecall import Memory, errors


def unit(seed: int, dimensions: int = 64) -> list[float]:
    numbers = random.Random(seed)
    vector = [numbers.gauss(0, 1) for _ in range(dimensions)]
    length = math.sqrt(sum(v * v for v in vector))
    return [v / length for v in vector]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def blend(a: list[float], b: list[float], share: float) -> list[float]:
    return [(1 - share) * x + share * y for x, y in zip(a, b, strict=True)]


def test_words_find_the_episode_that_has_them(memory: Memory, make_episode: Any) -> None:
    wanted = memory.episodes.record(
        **make_episode(perception={"alert": "database disk nearly full"}, action={"grow": "volume"})
    )
    for topic in ("holiday calendar", "login page colour", "invoice total"):
        memory.episodes.record(**make_episode(perception={"topic": topic}))
    hits = memory.episodes.recall("disk nearly full", project_id="apollo", limit=2)
    assert hits[0].episode == wanted
    assert (hits[0].similarity or 0) > (hits[1].similarity or 0)
    assert hits[0].score > hits[1].score
    assert len(hits) == 2


def test_a_situation_finds_like_a_text(memory: Memory, make_episode: Any) -> None:
    perception = {"alert": "database disk nearly full", "host": "db-3"}
    wanted = memory.episodes.record(**make_episode(perception=perception))
    memory.episodes.record(**make_episode(perception={"topic": "invoice"}))
    assert memory.episodes.recall(perception, limit=1)[0].episode == wanted


def test_similarity_is_the_cosine_and_the_score_as_documented(
    memory: Memory, make_episode: Any
) -> None:
    query, near = unit(1), blend(unit(1), unit(2), 0.4)
    memory.episodes.record(**make_episode(embedding=near, outcome_quality=0.9))
    (hit,) = memory.episodes.recall(embedding=query, outcome_weight=0.25)
    expected = cosine(query, near) / math.sqrt(cosine(near, near))
    assert hit.similarity == pytest.approx(expected, abs=1e-5)
    assert hit.score == pytest.approx(0.75 * expected + 0.25 * 0.9, abs=1e-5)
    (plain,) = memory.episodes.recall(embedding=query, outcome_weight=0)
    assert plain.score == plain.similarity


def test_a_good_outcome_lifts_and_an_unknown_one_is_neutral(
    memory: Memory, make_episode: Any
) -> None:
    query = unit(1)
    for name, share, quality in [("bad", 0.30, 0.0), ("unknown", 0.31, None), ("good", 0.32, 1.0)]:
        memory.episodes.record(
            **make_episode(
                embedding=blend(query, unit(2), share),
                outcome_quality=quality,
                decision_source=name,
            )
        )

    def order(weight: float) -> list[str | None]:
        hits = memory.episodes.recall(embedding=query, outcome_weight=weight)
        return [hit.episode.decision_source for hit in hits]

    assert order(0) == ["bad", "unknown", "good"]
    assert order(0.15) == ["good", "unknown", "bad"]


def test_as_many_as_asked_for_under_every_filter(memory: Memory, make_episode: Any) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        make_episode(
            project_id="rare" if i % 100 == 0 else "common",
            embedding=unit(i),
            timestamp=start + timedelta(hours=i),
            outcome_quality=(i % 10) / 10,
            outcome={"i": i} if i % 2 else None,
            decision_source=f"source-{i % 50}",
            sprint_id=f"sprint-{i % 40}",
            agent_version=f"{i % 30}",
        )
        for i in range(1500)
    ]
    memory.episodes.record_many(rows)
    query = unit(10_000)
    cases: list[tuple[dict[str, Any], int]] = [
        ({}, 1500),
        ({"project_id": "rare"}, 15),
        ({"project_id": "common"}, 1485),
        ({"decision_source": "source-7"}, 30),
        ({"sprint_id": "sprint-7"}, 38),
        ({"agent_version": "7"}, 50),
        ({"min_quality": 0.9}, 150),
        ({"max_quality": 0.0}, 150),
        ({"with_outcome": True}, 750),
        ({"since": start + timedelta(hours=1490)}, 10),
        ({"project_id": "rare", "min_quality": 0.5}, 0),
    ]
    for filters, matching in cases:
        for limit in (1, 10, 60):
            hits = memory.episodes.recall(embedding=query, limit=limit, **filters)
            assert len(hits) == min(limit, matching), (filters, limit)
            assert [hit.score for hit in hits] == sorted((h.score for h in hits), reverse=True)


def test_the_nearest_are_the_true_nearest(memory: Memory, make_episode: Any) -> None:
    vectors = {i: unit(i) for i in range(800)}
    memory.episodes.record_many(
        [make_episode(embedding=v, decision_source=str(i)) for i, v in vectors.items()]
    )
    right = 0
    for seed in range(1_000, 1_020):
        query = unit(seed)
        truth = sorted(vectors, key=lambda i: -cosine(query, vectors[i]))[:10]
        hits = memory.episodes.recall(embedding=query, limit=10, outcome_weight=0)
        right += len({hit.episode.decision_source for hit in hits} & {str(i) for i in truth})
    assert right / 200 > 0.97


def test_minimum_similarity(memory: Memory, make_episode: Any) -> None:
    query = unit(1)
    for share in (0.1, 0.4, 0.9):
        memory.episodes.record(**make_episode(embedding=blend(query, unit(2), share)))
    assert len(memory.episodes.recall(embedding=query)) == 3
    assert len(memory.episodes.recall(embedding=query, min_similarity=0.5)) == 2
    assert memory.episodes.recall(embedding=query, min_similarity=1.0) == []


def test_episodes_without_a_vector_are_found_by_words_alone(
    memory: Memory, make_episode: Any
) -> None:
    episode = memory.episodes.record(**make_episode(), embed="later")
    assert memory.episodes.recall("backlog", mode="vector") == []
    for mode in ("hybrid", "words"):
        (hit,) = memory.episodes.recall("backlog", mode=mode)
        assert (hit.episode, hit.similarity) == (episode, None)
    assert memory.episodes.recall("unheard of", mode="words") == []
    assert memory.episodes.recall("backlog", min_similarity=0.1) == []


def test_an_empty_memory_recalls_nothing(memory: Memory) -> None:
    assert memory.episodes.recall("anything") == []
    assert memory.knowledge.recall("anything") == []


def test_queries_that_cannot_be_meant(memory: Memory) -> None:
    vector = unit(1)
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: memory.episodes.recall(), "neither a text nor embedding= was given"),
        (lambda: memory.episodes.recall(embedding=vector, mode="words"), "there is no text"),
        (lambda: memory.episodes.recall(embedding=vector, mode="hybrid"), "there is no text"),
        (lambda: memory.episodes.recall("a", mode="both"), "mode is 'both'"),  # type: ignore[arg-type]
        (lambda: memory.episodes.recall("  "), "text to look for is '  '"),
        (lambda: memory.episodes.recall("a", limit=0), "limit is 0"),
        (lambda: memory.episodes.recall("a", limit=10**9), "limit is 1000000000"),
        (lambda: memory.episodes.recall("a", min_similarity=2), "min_similarity is 2"),
        (lambda: memory.episodes.recall("a", outcome_weight=-1), "outcome_weight is -1"),
        (lambda: memory.episodes.recall("a", min_quality=float("nan")), "min_quality is nan"),
        (lambda: memory.episodes.recall("a", since=datetime(2026, 1, 1)), "has no time zone"),  # noqa: DTZ001
        (lambda: memory.episodes.recall(embedding=vector[:-1]), "63"),
    ]
    for call, message in calls:
        with pytest.raises(errors.InvalidInput, match=message):
            call()


def test_a_query_that_the_database_cannot_take_is_a_wrong_value(memory: Memory) -> None:
    with pytest.raises(errors.InvalidInput, match="NUL"):
        memory.episodes.recall("a\0b", mode="words")
