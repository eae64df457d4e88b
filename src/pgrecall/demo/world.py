"""The world: teams, and the situations in which a sprint has to be planned.

A situation has a side that the agent sees (``perception``) and one that it does not (``Hidden``):
how much a team really loses to its debt, what helpers are worth to it, what will go wrong in the
coming sprint. Situations depend on the seed alone, not on what anyone decides, so that two agents
can be put into the same ones, with the same luck.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import mean
from types import MappingProxyType
from typing import Any

WORKING_DAYS = 10
"""Length of a sprint in days."""

MANY_HOLIDAYS, HIGH_DEBT, HUGE_TASK = 2, 0.5, 8
"""From here on the agent speaks of many holidays, high debt and a huge task."""

TROUBLES: Mapping[str, str] = MappingProxyType(
    {
        "many holidays": "many public holidays in the sprint",
        "high debt": "high technical debt slows the team",
        "huge task": "one huge task too large to finish",
        "absent members": "team members are absent",
        "declining velocity": "velocity is declining sprint after sprint",
        "deadline": "strong deadline pressure",
    }
)
"""What a sprint can be burdened with: a short name, and how the agent says it."""

ORDINARY = "an ordinary sprint without trouble"


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """A team. What it is like beyond name and size shows only in its outcomes.

    Attributes:
        pace: Points that one member completes in a sprint.
        fragility: How hard technical debt hits it; 1 is usual.
        openness: How much of a helper's work is a gain; 1 is all.
    """

    name: str
    size: int
    pace: float
    fragility: float
    openness: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hidden:
    """What nobody knows when the sprint is planned.

    Attributes:
        true_velocity: Points that the full team would complete in an undisturbed sprint.
        incident_loss: Share of the sprint, 0 to 1, that unexpected incidents will take.
    """

    true_velocity: float
    incident_loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What there is to plan.

    Attributes:
        tasks: Estimates of the backlog's tasks in points, the most important first.
        velocity_last_3: Points completed in the last three sprints, oldest first.
        technical_debt: 0 (none) to 1 (everything is in the way).
    """

    number: int
    team: Team
    absent_members: int
    velocity_last_3: tuple[int, int, int]
    holidays_in_sprint: int
    technical_debt: float
    tasks: tuple[int, ...]
    deadline_pressure: str
    hidden: Hidden

    @property
    def velocity(self) -> float:
        """Mean of the last three sprints, in points."""
        return mean(self.velocity_last_3)

    @property
    def velocity_trend(self) -> str:
        """``declining``, ``steady`` or ``rising``."""
        change = self.velocity_last_3[2] / self.velocity_last_3[0]
        return "declining" if change < 0.88 else "rising" if change > 1.12 else "steady"

    @property
    def availability(self) -> float:
        """Share of the team's days that are left after holidays and absences, 0 to 1."""
        days = 1 - self.holidays_in_sprint / WORKING_DAYS
        return days * (1 - self.absent_members / self.team.size)

    @property
    def troubles(self) -> tuple[str, ...]:
        """What is special about it, in the agent's words."""
        return troubles_in(self._numbers())

    def perception(self) -> dict[str, Any]:
        """What the agent sees, as the JSON that is stored."""
        return {"situation": self.describe(), **self._numbers()}

    def describe(self) -> str:
        """The situation in words, by which similar ones are recalled.

        Embedding models read sentences far better than numbers, so this says what the numbers
        mean, and only what is out of the ordinary.
        """
        return "; ".join(TROUBLES[name] for name in self.troubles) or ORDINARY

    def _numbers(self) -> dict[str, Any]:
        return {
            "team": self.team.name,
            "team_size": self.team.size,
            "absent_members": self.absent_members,
            "velocity_last_3": list(self.velocity_last_3),
            "velocity_trend": self.velocity_trend,
            "holidays_in_sprint": self.holidays_in_sprint,
            "technical_debt": self.technical_debt,
            "deadline_pressure": self.deadline_pressure,
            "backlog_tasks": len(self.tasks),
            "backlog_points": sum(self.tasks),
            "largest_task_points": max(self.tasks),
        }


def troubles_in(perception: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what is special about a perception, of now or recalled, as names of ``TROUBLES``."""
    holds = {
        "many holidays": perception["holidays_in_sprint"] >= MANY_HOLIDAYS,
        "high debt": perception["technical_debt"] >= HIGH_DEBT,
        "huge task": perception["largest_task_points"] >= HUGE_TASK,
        "absent members": perception["absent_members"] > 0,
        "declining velocity": perception["velocity_trend"] == "declining",
        "deadline": perception["deadline_pressure"] == "high",
    }
    return tuple(name for name in TROUBLES if holds[name])


def teams(seed: int) -> tuple[Team, ...]:
    """Return the teams of the world with this seed."""
    chance = random.Random(f"teams/{seed}")  # noqa: S311 - a game, not a secret
    return tuple(
        Team(
            name=name,
            size=chance.randint(4, 9),
            pace=round(chance.uniform(4.0, 7.0), 2),
            fragility=round(chance.uniform(0.7, 1.3), 2),
            openness=round(chance.uniform(0.6, 1.0), 2),
        )
        for name in ("Apollo", "Borealis", "Cassini", "Dawn")
    )


def situations(seed: int, count: int) -> Iterator[Situation]:
    """Yield ``count`` situations; the same for the same seed, whoever decides in them."""
    everyone = teams(seed)
    for number in range(1, count + 1):
        chance = random.Random(f"situation/{seed}/{number}")  # noqa: S311
        yield _situation(number, chance.choice(everyone), chance)


def _situation(number: int, team: Team, chance: random.Random) -> Situation:
    usual = team.size * team.pace
    kinds = ("holidays", "debt", "huge", "absent", "declining", "deadline")
    troubles = chance.sample(kinds, k=chance.choices((0, 1, 2), weights=(1, 5, 4))[0])
    # A trend goes on: who was slower each time will be slower again.
    drift = 0.86 if "declining" in troubles else chance.choice((1.0, 1.0, 1.06))
    past = [usual * drift**step * chance.gauss(1, 0.02) for step in range(3)]
    return Situation(
        number=number,
        team=team,
        absent_members=chance.choice((1, 2)) if "absent" in troubles else 0,
        velocity_last_3=(round(past[0]), round(past[1]), round(past[2])),
        holidays_in_sprint=chance.randint(2, 4)
        if "holidays" in troubles
        else chance.choice((0, 1)),
        technical_debt=round(
            chance.uniform(0.5, 0.9) if "debt" in troubles else chance.uniform(0.1, 0.3), 2
        ),
        tasks=_backlog(usual, chance, huge="huge" in troubles),
        deadline_pressure="high" if "deadline" in troubles else "low",
        hidden=Hidden(
            true_velocity=usual * drift**2.5 * chance.gauss(1, 0.04),
            incident_loss=chance.choices((0.0, 0.1, 0.2), weights=(7, 2, 1))[0],
        ),
    )


def _backlog(usual: float, chance: random.Random, *, huge: bool) -> tuple[int, ...]:
    """Return tasks for two usual sprints."""
    tasks = [chance.choice((8, 13))] if huge else []
    while sum(tasks) < 2 * usual:
        tasks.append(chance.choice((1, 2, 3, 3, 5)))
    return tuple(tasks)
