"""The game: what the agent makes of what it recalls.

The memory here is a list with exact recall, to test the simulator's logic; the acceptance tests
play on PostgreSQL.
"""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from statistics import mean, stdev
from typing import Any
from uuid import UUID, uuid4

import pytest
from rich.console import Console

from pgrecall.demo import DemoResult, Step, play
from pgrecall.demo.agent import Recollection, by_experience, by_rules, expected_quality
from pgrecall.demo.outcomes import PRACTICES
from pgrecall.demo.present import select, show
from pgrecall.demo.run import compare
from pgrecall.demo.world import TROUBLES, situations
from pgrecall.models import Episode, Json, Recalled

PHRASES = tuple(TROUBLES.values())


class ListedEpisodes:
    """Episodes in a list; similarity is that of the troubles that the situations name."""

    def __init__(self) -> None:
        self.rows: dict[UUID, Episode] = {}
        self.queries: list[str] = []

    def record(self, **values: Any) -> Episode:
        episode = Episode(
            episode_id=uuid4(),
            timestamp=datetime.now(UTC),
            outcome=None,
            outcome_quality=None,
            outcome_recorded_at=None,
            chronicle_note_id=None,
            external_id=None,
            embedded=True,
            **values,
        )
        self.rows[episode.episode_id] = episode
        return episode

    def record_outcome(
        self, episode_id: UUID, outcome: Json, quality: float, *, project_id: str
    ) -> Episode:
        done = replace(self.rows[episode_id], outcome=outcome, outcome_quality=quality)
        assert done.project_id == project_id
        self.rows[episode_id] = done
        return done

    def recall(
        self, query: str, *, project_id: str, limit: int, outcome_weight: float
    ) -> Sequence[Recalled]:
        assert outcome_weight == 0
        self.queries.append(query)
        wanted = {phrase for phrase in PHRASES if phrase in query}
        hits = []
        for episode in self.rows.values():
            had = {phrase for phrase in PHRASES if phrase in episode.perception["situation"]}
            similarity = 1 - len(wanted ^ had) / len(PHRASES)
            hits.append(Recalled(episode=episode, similarity=similarity, score=similarity))
        return sorted(hits, key=lambda hit: -hit.score)[:limit]


class ListedMemory:
    def __init__(self) -> None:
        self.episodes = ListedEpisodes()


class ForgetfulEpisodes(ListedEpisodes):
    def recall(self, *args: Any, **kwargs: Any) -> Sequence[Recalled]:
        return []


class ForgetfulMemory:
    def __init__(self) -> None:
        self.episodes = ForgetfulEpisodes()


def essence(result: DemoResult) -> list[tuple[object, ...]]:
    return [
        (step.situation, step.decision, step.plan, step.outcome, step.control_quality)
        for step in result.steps
    ]


def test_a_game_is_repeatable_by_its_seed() -> None:
    games = [play(ListedMemory(), decisions=40, seed=seed) for seed in (7, 7, 8)]
    assert essence(games[0]) == essence(games[1])
    assert essence(games[0]) != essence(games[2])
    assert games[0].project_id != games[1].project_id


def test_everything_is_recorded_and_recalled_beforehand() -> None:
    memory = ListedMemory()
    seen: list[Step] = []
    result = play(memory, decisions=30, project_id="sprints", on_step=seen.append)
    assert tuple(seen) == result.steps
    assert result.project_id == "sprints"
    assert len(memory.episodes.queries) == len(memory.episodes.rows) == 30
    for number, step in enumerate(result.steps):
        assert len(step.memories) == number
        episode = memory.episodes.rows[step.episode_id]
        assert episode.perception == step.situation.perception()
        assert episode.action["practice"] == step.plan.practice
        assert episode.reasoning["recalled"] == number
        assert episode.outcome_quality == step.outcome.quality
        assert episode.sprint_id == f"sprint-{number + 1}"
        assert episode.control_mode == "memory_augmented"


def test_the_control_decides_by_rules_whatever_the_memory_holds() -> None:
    remembered = play(ListedMemory(), decisions=40)
    forgotten = play(ForgetfulMemory(), decisions=40)
    for one, other in zip(remembered.steps, forgotten.steps, strict=True):
        assert one.situation == other.situation
        assert one.control_practice == by_rules(one.situation).practice
        assert one.control_quality == other.control_quality


def test_experience_improves_decisions_over_many_worlds() -> None:
    lasts = [play(ListedMemory(), seed=seed).thirds()[-1].difference for seed in range(16)]
    error = stdev(lasts) / len(lasts) ** 0.5
    print(f"\nlast third, with memory minus without: {mean(lasts):+.4f} ± {1.96 * error:.4f}")
    assert mean(lasts) > 1.96 * error


def test_without_recall_nothing_is_gained() -> None:
    lasts = [play(ForgetfulMemory(), seed=seed).thirds()[-1].difference for seed in range(16)]
    assert mean(lasts) < 0.005


def told(practice: str, quality: float, *troubles: str, similarity: float = 0.9) -> Recollection:
    return Recollection(
        similarity=similarity, practice=practice, quality=quality, troubles=frozenset(troubles)
    )


def test_a_good_outcome_in_a_like_situation_speaks_for_a_practice() -> None:
    here = frozenset({"high debt"})
    memories = [told("debt_sprint", 0.9, "high debt"), told("full_commitment", 0.5, "high debt")]
    worth = expected_quality(memories, here, "full_commitment")
    assert worth["debt_sprint"].quality > worth["stretch_goal"].quality
    assert worth["full_commitment"].quality < worth["stretch_goal"].quality
    assert max(PRACTICES, key=lambda practice: worth[practice].quality) == "debt_sprint"


def test_what_happened_elsewhere_counts_less() -> None:
    near = [told("debt_sprint", 0.95, "high debt"), told("full_commitment", 0.6, "high debt")]
    far = [told("debt_sprint", 0.95, "deadline"), told("full_commitment", 0.6, "deadline")]
    here = frozenset({"high debt"})

    def advantage(memories: list[Recollection]) -> float:
        worth = expected_quality(memories, here, "request_help")
        return worth["debt_sprint"].quality - worth["full_commitment"].quality

    assert advantage(near) > 2 * advantage(far) > 0


def test_without_memories_the_rules_decide_mostly() -> None:
    chance = random.Random(1)
    all_situations = list(situations(2, 100))
    same = [
        by_experience(situation, [], chance).practice == by_rules(situation).practice
        for situation in all_situations
    ]
    assert 0.5 < mean(same) < 1


def test_comparison_in_thirds() -> None:
    result = play(ListedMemory(), decisions=32)
    parts = result.thirds()
    assert [part.count for part in parts] == [10, 10, 12]
    for part in parts:
        assert part.difference == pytest.approx(part.with_memory - part.without_memory)
        assert part.margin > 0
    assert compare(result.steps).count == 32
    assert [part.count for part in play(ListedMemory(), decisions=1).thirds()] == [1]


def test_lessons_count_every_decision_under_its_troubles() -> None:
    result = play(ListedMemory(), decisions=50)
    counted = sum(
        count for practices in result.lessons().values() for count, _ in practices.values()
    )
    assert counted == sum(max(1, len(step.situation.troubles)) for step in result.steps)


def test_no_decisions_are_refused() -> None:
    with pytest.raises(ValueError, match="decisions is 0"):
        play(ListedMemory(), decisions=0)


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize("decisions", [1, 5, 60])
def test_the_report_fits_the_terminal(width: int, decisions: int) -> None:
    result = play(ListedMemory(), decisions=decisions)
    output = io.StringIO()
    show(result, Console(file=output, width=width, force_terminal=False))
    text = output.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert result.project_id in text
    assert "Last third" in text
    last = result.thirds()[-1]
    assert f"{last.difference:+.3f}" in text


def test_moments_are_spread_over_the_game() -> None:
    steps = play(ListedMemory(), decisions=60).steps
    chosen = select(steps)
    assert [(step.situation.number - 1) // 10 for step in chosen] == [0, 1, 2, 3, 4, 5]
    assert len(select(steps[:3])) == 3
