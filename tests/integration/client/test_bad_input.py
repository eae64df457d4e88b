"""Bad input is refused with what was wrong and which value, and nothing is half-written."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from pgrecall import Memory, errors
from pgrecall.embedding.base import Embedder
from pgrecall.testing import Template


def nested(levels: int) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for _ in range(levels):
        document = {"a": document}
    return document


BAD_EPISODES: list[tuple[dict[str, Any], str]] = [
    ({"project_id": ""}, "project_id"),
    ({"project_id": "p" * 51}, "51"),
    ({"project_id": "a\0b"}, "NUL"),
    ({"project_id": "a\ud800"}, "surrogate"),
    ({"project_id": 7}, "project_id"),
    ({"agent_version": None}, "agent_version"),
    ({"agent_version": "v" * 21}, "agent_version"),
    ({"control_mode": "autopilot"}, "control_mode is 'autopilot'"),
    ({"decision_source": "d" * 51}, "decision_source"),
    ({"sprint_id": "s" * 51}, "sprint_id"),
    ({"external_id": "e" * 201}, "external_id"),
    ({"external_id": ""}, "external_id"),
    ({"perception": None}, "perception"),
    ({"perception": [1, 2]}, "perception"),
    ({"perception": {"a": float("nan")}}, "perception.a"),
    ({"perception": {"a": [0, float("inf")]}}, r"perception.a\[1\]"),
    ({"perception": {"a": "x\0y"}}, "perception.a"),
    ({"perception": {"a\0": 1}}, "perception"),
    ({"perception": {"a": "\udfff"}}, "perception.a"),
    ({"perception": {"when": datetime(2026, 1, 1)}}, "perception.when"),  # noqa: DTZ001
    ({"perception": {1: "x"}}, "perception"),
    ({"perception": {"a": object()}}, "perception.a"),
    ({"perception": {"a": "x" * 2_000_000}}, "1,048,576|1048576"),
    ({"perception": nested(5000)}, "perception"),
    ({"action": "jump"}, "action"),
    ({"outcome": 3}, "outcome"),
    ({"outcome_quality": 1.01}, "outcome_quality is 1.01"),
    ({"outcome_quality": -0.1}, "outcome_quality is -0.1"),
    ({"outcome_quality": float("nan")}, "outcome_quality is nan"),
    ({"outcome_quality": "good"}, "outcome_quality must be a number"),
    ({"outcome_quality": True}, "outcome_quality must be a number"),
    ({"timestamp": datetime(2026, 1, 1)}, "no time zone"),  # noqa: DTZ001
    ({"timestamp": datetime(9999, 12, 31, tzinfo=UTC)}, "end of the calendar"),
    ({"timestamp": "yesterday"}, "timestamp must be a datetime"),
    ({"episode_id": "seven"}, "not a UUID"),
    ({"chronicle_note_id": "x"}, "not a UUID"),
    ({"embedding": [1.0] * 63}, "63"),
    ({"embedding": [0.0] * 64}, "zero"),
    ({"embedding": [float("nan")] + [1.0] * 63}, "nan|NaN"),
    ({"embedding": [1.0] * 63 + [float("inf")]}, "inf"),
    ({"embedding": [1e300] * 64}, "float32|large|range|overflow"),
    ({"embedding": ["a"] * 64}, "embedding|number"),
    ({"embedding": "vector"}, "embedding|sequence|number"),
    ({"embed": "sometime"}, "embed is 'sometime'"),
]


@pytest.fixture(scope="module")
def shared(pgrecall_template: Template, pgrecall_embedder: Embedder) -> Iterator[Memory]:
    with (
        pgrecall_template.clone() as database,
        Memory.open(database.dsn, embedder=pgrecall_embedder, settings=database.settings) as memory,
    ):
        yield memory


@pytest.fixture
def untouched(shared: Memory) -> Iterator[Memory]:
    """One memory for all, since none of these calls may leave anything in it."""
    yield shared
    assert shared.episodes.count() == 0


@pytest.mark.parametrize(
    ("values", "message"),
    BAD_EPISODES,
    ids=[f"{i}-{next(iter(v))}" for i, (v, _) in enumerate(BAD_EPISODES)],
)
def test_bad_episodes(
    untouched: Memory, make_episode: Any, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(errors.InvalidInput, match=message):
        untouched.episodes.record(**make_episode(**values))


def test_unknown_values_are_refused(untouched: Memory, make_episode: Any) -> None:
    with pytest.raises(errors.InvalidInput, match="colour"):
        untouched.episodes.record_many([make_episode(colour="red")])
    with pytest.raises(errors.InvalidInput, match="NewEpisode"):
        untouched.episodes.record("an episode")  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidInput, match="project_id is missing"):
        untouched.episodes.record(agent_version="1", perception={}, reasoning={}, action={})


def test_the_largest_document_is_configurable(
    memory: Memory, make_episode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory._database.settings, "max_document_bytes", 100)
    with pytest.raises(errors.InvalidInput, match="100"):
        memory.episodes.record(**make_episode(perception={"a": "x" * 200}))


def test_bad_projects(memory: Memory) -> None:
    for project in ("", "p" * 51, "a\0b"):
        with pytest.raises(errors.InvalidInput, match="project_id"):
            memory.project(project)


def test_bad_outcomes(memory: Memory, make_episode: Any) -> None:
    episode = memory.episodes.record(**make_episode())
    bad: list[tuple[Any, Any]] = [({"a": float("nan")}, 1), (None, 2), ([], 0.5), ({}, "x")]
    for outcome, quality in bad:
        with pytest.raises(errors.InvalidInput):
            memory.episodes.record_outcome(episode.episode_id, outcome, quality)
    found = memory.episodes.get(episode.episode_id)
    assert (found.outcome, found.outcome_quality) == (None, None)


def test_nothing_said_means_no_vector(memory: Memory) -> None:
    """Of an empty episode nothing can be said, so no query is like it; yet it is stored."""
    episode = memory.episodes.record(
        project_id="p", agent_version="1", perception={}, reasoning={}, action={}
    )
    assert not episode.embedded
