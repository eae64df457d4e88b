"""What follows from a decision: points completed, overtime, defects, and how good that was.

Nothing here is drawn: the chance that there is lies in the situation's hidden side, so that the
same decision in the same situation always ends the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from pgrecall.demo.world import HUGE_TASK, Situation

COMMITMENT: Mapping[str, float] = MappingProxyType(
    {
        "full_commitment": 1.0,
        "stretch_goal": 1.15,
        "reserve_buffer": 0.75,
        "split_large_tasks": 0.95,
        "debt_sprint": 0.7,
        "request_help": 0.95,
    }
)
"""The practices among which an agent chooses, each with the share of velocity it commits."""

PRACTICES: tuple[str, ...] = tuple(COMMITMENT)

HOURS_PER_POINT = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A decision in points and tasks.

    Attributes:
        buffer: Points of the usual velocity that are left free.
    """

    practice: str
    committed_points: int
    tasks_assigned: int
    buffer: int

    def action(self) -> dict[str, Any]:
        """The plan as the JSON that is stored."""
        return {"sprint_created": True, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a sprint ended.

    Attributes:
        quality: 0 to 1, see ``quality_of``.
    """

    completed_points: int
    carried_over: int
    defects: int
    overtime_hours: int
    quality: float

    def document(self) -> dict[str, Any]:
        """The outcome as the JSON that is stored; the quality has a column of its own."""
        return {name: value for name, value in asdict(self).items() if name != "quality"}


def make_plan(situation: Situation, practice: str) -> Plan:
    """Return the plan that a practice means in a situation.

    Raises:
        KeyError: There is no such practice.
    """
    committed = max(1, round(situation.velocity * COMMITMENT[practice]))
    assigned, points = 0, 0
    for task in situation.tasks:
        if points >= committed:
            break
        points += task
        # A huge task that was split is worked on as several.
        assigned += -(-task // 5) if practice == "split_large_tasks" else 1
    return Plan(
        practice=practice,
        committed_points=committed,
        tasks_assigned=assigned,
        buffer=max(0, round(situation.velocity) - committed),
    )


def carry_out(situation: Situation, plan: Plan) -> Outcome:
    """Return what comes of a plan.

    The team's capacity is its true velocity, less holidays, absences, incidents and the drag of
    debt. What a plan asks beyond that is met by overtime up to a limit, and what is still too
    much keeps the team from finishing the rest.
    Debt, overtime and overload make defects; a huge task that was not split stays half done.
    """
    capacity = capacity_of(situation, plan.practice)
    # Under pressure people stay longer.
    limit = capacity * (0.2 if situation.deadline_pressure == "high" else 0.08)
    missing = max(0.0, plan.committed_points - capacity)
    overtime = min(missing, limit)
    overload = (missing - overtime) / plan.committed_points
    # A team that cannot win starts everything and finishes less.
    thrash = 0.4 * (missing - overtime)
    stuck = 0.0
    if max(situation.tasks) >= HUGE_TASK and plan.practice != "split_large_tasks":
        # With slack there is time to see it through.
        slack = max(0.0, capacity - plan.committed_points)
        stuck = max(0.0, min(0.6 * max(situation.tasks), 0.3 * capacity) - slack)
    completed = max(0, int(min(plan.committed_points, capacity + overtime - thrash) - stuck))
    debt = situation.technical_debt * situation.team.fragility
    if plan.practice == "debt_sprint":
        debt *= 0.25
    defects = round(completed * (0.02 + 0.2 * debt + 0.3 * overload) + 0.25 * overtime)
    hours = round(overtime * HOURS_PER_POINT)
    return Outcome(
        completed_points=completed,
        carried_over=plan.committed_points - completed,
        defects=defects,
        overtime_hours=hours,
        quality=quality_of(situation, plan, completed, defects, hours),
    )


def capacity_of(situation: Situation, practice: str) -> float:
    """Return the points that the team can complete without overtime."""
    hidden, team = situation.hidden, situation.team
    loss = hidden.incident_loss * (0.5 if practice == "reserve_buffer" else 1.0)
    debt = max(0.0, situation.technical_debt - 0.3) * team.fragility
    drag = debt * (0.1 if practice == "debt_sprint" else 0.5)
    capacity = hidden.true_velocity * situation.availability * (1 - loss) * (1 - min(drag, 0.6))
    if practice == "request_help":
        # Helpers stand in for those who are away; to bring them in costs the others time.
        replaced = min(situation.absent_members, 2) / team.size
        capacity += hidden.true_velocity * replaced * team.openness
        capacity *= 0.95
    elif practice == "debt_sprint":
        capacity *= 0.8  # the rest of the time goes into clearing debt
    elif practice == "split_large_tasks":
        capacity *= 0.97
    return capacity


def quality_of(
    situation: Situation, plan: Plan, completed: int, defects: int, overtime_hours: int
) -> float:
    """Rate a sprint from 0 to 1.

    ``0.3 kept + 0.4 pace + 0.2 soundness + 0.1 calm``, each from 0 to 1: *kept* is completed
    by committed points; *pace* is completed points by the velocity that was to be expected of
    the people who were there; *soundness* falls to 0 when one point in five has a defect;
    *calm* falls to 0 at ten hours of overtime for everyone. Before a deadline it matters more
    how much is done than what was promised: then *kept* weighs 0.1 and *pace* 0.6.
    """
    kept = completed / plan.committed_points
    expected = max(1.0, situation.velocity * situation.availability)
    pace = min(1.0, completed / expected)
    soundness = 1 - min(1.0, defects / max(1.0, 0.2 * completed))
    present = max(1, situation.team.size - situation.absent_members)
    calm = 1 - min(1.0, overtime_hours / (10 * present))
    promise, progress = (0.1, 0.6) if situation.deadline_pressure == "high" else (0.3, 0.4)
    return round(promise * kept + progress * pace + 0.2 * soundness + 0.1 * calm, 4)
