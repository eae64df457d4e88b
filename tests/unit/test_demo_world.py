"""The simulator's world: situations by seed, outcomes by cause."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pgrecall.demo.outcomes import (
    PRACTICES,
    Plan,
    carry_out,
    make_plan,
    quality_of,
)
from pgrecall.demo.world import (
    ORDINARY,
    TROUBLES,
    WORKING_DAYS,
    Hidden,
    Situation,
    Team,
    situations,
    troubles_in,
)

CALM = Situation(
    number=1,
    team=Team(name="Apollo", size=6, pace=5.0, fragility=1.0, openness=0.8),
    absent_members=0,
    velocity_last_3=(30, 30, 30),
    holidays_in_sprint=0,
    technical_debt=0.1,
    tasks=(5, 3) * 8,
    deadline_pressure="low",
    hidden=Hidden(true_velocity=30.0, incident_loss=0.0),
)


def quality(situation: Situation, practice: str) -> float:
    return carry_out(situation, make_plan(situation, practice)).quality


def test_the_same_seed_gives_the_same_world() -> None:
    assert list(situations(3, 40)) == list(situations(3, 40))
    assert list(situations(3, 40)) != list(situations(4, 40))
    assert list(situations(3, 40))[:10] == list(situations(3, 10))


def test_every_trouble_occurs_and_is_said() -> None:
    seen = set()
    for situation in situations(1, 200):
        seen |= set(situation.troubles)
        perception = situation.perception()
        assert troubles_in(json.loads(json.dumps(perception))) == situation.troubles
        assert perception["situation"] == situation.describe()
        assert (perception["situation"] == ORDINARY) == (not situation.troubles)
    assert seen == set(TROUBLES)


def test_the_hidden_side_is_not_perceived() -> None:
    other = replace(CALM, hidden=Hidden(true_velocity=9.0, incident_loss=0.25))
    assert CALM.perception() == other.perception()
    assert quality(CALM, "full_commitment") > quality(other, "full_commitment")


@pytest.mark.parametrize("practice", PRACTICES)
def test_outcomes_stay_in_bounds(practice: str) -> None:
    for situation in situations(5, 300):
        plan = make_plan(situation, practice)
        outcome = carry_out(situation, plan)
        assert 0 <= outcome.quality <= 1
        assert 0 <= outcome.completed_points <= plan.committed_points
        assert outcome.carried_over == plan.committed_points - outcome.completed_points
        assert outcome.defects >= 0
        assert outcome.overtime_hours >= 0
        assert plan.buffer >= 0
        assert plan.tasks_assigned > 0
        assert outcome == carry_out(situation, plan)


def test_the_quality_formula() -> None:
    plan = Plan(practice="full_commitment", committed_points=30, tasks_assigned=8, buffer=0)
    assert quality_of(CALM, plan, 30, 0, 0) == 1
    assert quality_of(CALM, plan, 0, 9, 1000) == 0
    # half kept, half the pace, two thirds sound, half calm
    assert quality_of(CALM, plan, 15, 1, 30) == pytest.approx(0.5333, abs=1e-4)
    urgent = replace(CALM, deadline_pressure="high")
    # before a deadline, half kept costs less and half the pace more
    assert quality_of(urgent, plan, 15, 0, 0) == pytest.approx(0.65)


@pytest.mark.parametrize("practice", PRACTICES)
def test_fewer_days_and_people_complete_less(practice: str) -> None:
    plan = make_plan(CALM, practice)
    by_holidays = [
        carry_out(replace(CALM, holidays_in_sprint=days), plan).completed_points
        for days in range(WORKING_DAYS)
    ]
    assert by_holidays == sorted(by_holidays, reverse=True)
    assert by_holidays[0] > by_holidays[4]
    if practice != "request_help":  # which is there to make up for absences
        by_absence = [
            carry_out(replace(CALM, absent_members=absent), plan).completed_points
            for absent in range(CALM.team.size)
        ]
        assert by_absence == sorted(by_absence, reverse=True)


def test_more_debt_means_more_defects_and_less_done() -> None:
    plan = make_plan(CALM, "full_commitment")
    outcomes = [carry_out(replace(CALM, technical_debt=d / 10), plan) for d in range(1, 10)]
    rates = [outcome.defects / max(1, outcome.completed_points) for outcome in outcomes]
    assert rates[0] < rates[4] < rates[8]
    done = [outcome.completed_points for outcome in outcomes]
    assert done == sorted(done, reverse=True)


@pytest.mark.parametrize(
    ("trouble", "remedy"),
    [
        ({"holidays_in_sprint": 3}, "reserve_buffer"),
        ({"technical_debt": 0.8}, "debt_sprint"),
        ({"tasks": (13, 5, 3) * 3}, "split_large_tasks"),
        ({"absent_members": 2}, "request_help"),
        ({"hidden": Hidden(true_velocity=24.0, incident_loss=0.0)}, "reserve_buffer"),
    ],
)
def test_each_trouble_has_a_remedy(trouble: dict[str, object], remedy: str) -> None:
    troubled = replace(CALM, **trouble)  # type: ignore[arg-type]
    assert quality(troubled, remedy) > quality(troubled, "full_commitment") + 0.05
    assert quality(CALM, remedy) <= quality(CALM, "full_commitment")
