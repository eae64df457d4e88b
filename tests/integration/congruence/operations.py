"""The operations that every interface must do alike: a list, made with a fixed seed.

An operation names what it makes (``as_``), and later ones point to that name. Identifiers are an
interface's own, so names stand for them wherever results are compared.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

SEED = 20_261_128
DIMENSIONS = 64
PROJECTS = ("apollo", "gemini", "mercury")
SUBJECTS = ("payment", "search", "login", "export", "billing", "mobile", "report", "webhook")
EVENTS = ("timeout", "regression", "backlog", "outage", "migration", "review", "deadline", "leak")
START = datetime(2026, 1, 5, 9, tzinfo=UTC)


@dataclass(frozen=True)
class Operation:
    """One call: its kind, its values, and the name of what it makes."""

    kind: str
    values: dict[str, Any]
    as_: str = ""


@dataclass
class Plan:
    """What has been made so far, by name."""

    chance: random.Random
    made: list[Operation] = field(default_factory=list)
    episodes: dict[str, Operation] = field(default_factory=dict)
    strategies: list[str] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)

    def vector(self) -> list[float]:
        return [round(self.chance.gauss(0, 1), 4) for _ in range(DIMENSIONS)]

    def episode(self) -> str:
        return self.chance.choice([*self.episodes])

    def add(self, kind: str, as_: str = "", **values: Any) -> None:
        self.made.append(Operation(kind, values, as_))


def make(count: int = 300) -> list[Operation]:
    """Return operations, the same ones each time."""
    plan = Plan(random.Random(SEED))
    for _ in range(12):
        _record(plan)
    steps = {
        _record: 30, _outcome: 18, _recall: 18, _list: 6, _strategy: 6, _apply: 8, _strategies: 6,
        _session: 4, _update: 10, _close: 2, _delete: 3, _again: 3, _wrong: 6, _stats: 2,
    }  # fmt: skip
    while len(plan.made) < count:
        (step,) = plan.chance.choices([*steps], [*steps.values()])
        step(plan)
    return plan.made


def _record(plan: Plan) -> None:
    number = len(plan.made)
    chance = plan.chance
    known = chance.random() < 0.4
    values = {
        "project_id": chance.choice(PROJECTS),
        "agent_version": "1.4.0",
        "perception": {
            "subject": chance.choice(SUBJECTS), "event": chance.choice(EVENTS), "ticket": number,
        },
        "reasoning": {"because": f"{chance.choice(EVENTS)} of {chance.choice(SUBJECTS)}"},
        "action": {"plan": chance.choice(SUBJECTS), "hours": chance.randint(1, 80)},
        "outcome": {"done": chance.random() < 0.7} if known else None,
        "outcome_quality": round(chance.random(), 3) if known else None,
        "timestamp": START + timedelta(minutes=37 * number),
        "decision_source": chance.choice([None, "planner", "reviewer"]),
        "sprint_id": chance.choice([None, "s1", "s2"]),
        "external_id": f"ticket-{number}",
        "embedding": plan.vector() if chance.random() < 0.9 else None,
        "episode_id": UUID(int=chance.getrandbits(128), version=4),
    }  # fmt: skip
    plan.add("record", f"e{number}", **values)
    plan.episodes[f"e{number}"] = plan.made[-1]


def _again(plan: Plan) -> None:
    """Repeat a recording: it gives the episode that stands."""
    name = plan.episode()
    plan.add("record", name, **plan.episodes[name].values)


def _outcome(plan: Plan) -> None:
    outcome = {"late_by": plan.chance.randint(0, 9)} if plan.chance.random() < 0.7 else None
    quality = round(plan.chance.random(), 3)
    plan.add("record_outcome", episode=plan.episode(), outcome=outcome, quality=quality)


def _recall(plan: Plan) -> None:
    chance = plan.chance
    words = f"{chance.choice(EVENTS)} {chance.choice(SUBJECTS)}"
    by = chance.choice(["vector", "words", "both"])
    plan.add(
        "recall",
        query=None if by == "vector" else words,
        embedding=None if by == "words" else plan.vector(),
        project_id=chance.choice([None, *PROJECTS]),
        limit=chance.choice([1, 5, 20]),
        with_outcome=chance.choice([None, None, True]),
    )


def _list(plan: Plan) -> None:
    limit = plan.chance.choice([3, 20])
    plan.add("list", project_id=plan.chance.choice([None, *PROJECTS]), limit=limit)


def _strategy(plan: Plan) -> None:
    name = f"k{len(plan.made)}"
    evidence = plan.chance.sample([*plan.episodes], 4)
    event, subject = plan.chance.choice(EVENTS), plan.chance.choice(SUBJECTS)
    plan.add(
        "add_strategy",
        name,
        description=f"when {event} hits {subject}, {name}",
        content={"step": len(plan.made)},
        supporting=evidence[:3],
        contradicting=evidence[3:],
        confidence=round(plan.chance.random(), 3),
        project_id=plan.chance.choice([None, *PROJECTS]),
        embedding=plan.vector(),
    )
    plan.strategies.append(name)


def _apply(plan: Plan) -> None:
    if plan.strategies:
        plan.add(
            "apply_strategy",
            strategy=plan.chance.choice(plan.strategies),
            success=plan.chance.random() < 0.6,
            episode=plan.chance.choice([None, plan.episode()]),
        )


def _strategies(plan: Plan) -> None:
    plan.add(
        "recall_strategies",
        query=None,
        embedding=plan.vector(),
        project_id=plan.chance.choice([None, *PROJECTS]),
        limit=10,
    )


def _session(plan: Plan) -> None:
    name = f"s{len(plan.made)}"
    plan.add(
        "open_session",
        name,
        project_id=plan.chance.choice(PROJECTS),
        goal=f"reach {name}",
        context={"step": 0, "subject": plan.chance.choice(SUBJECTS)},
    )
    plan.sessions.append(name)


def _update(plan: Plan) -> None:
    if plan.sessions:
        changes: list[dict[str, Any]] = [
            {"context": {"step": len(plan.made)}},
            {"thought": {"at": len(plan.made)}},
            {"goal": f"reach {len(plan.made)}"},
            {"episode": plan.episode()},
        ]
        change = plan.chance.choice(changes)
        plan.add("update_session", session=plan.chance.choice(plan.sessions), **change)


def _close(plan: Plan) -> None:
    if plan.sessions:
        plan.add("close_session", session=plan.chance.choice(plan.sessions))


def _delete(plan: Plan) -> None:
    """Delete an episode; one that is evidence is kept, and all interfaces must say so."""
    name = plan.episode()
    plan.add("delete_episode", episode=name)
    if not any(
        name in (*one.values.get("supporting", ()), *one.values.get("contradicting", ()))
        or (one.kind == "apply_strategy" and one.values["episode"] == name)
        for one in plan.made
    ):
        del plan.episodes[name]


def _wrong(plan: Plan) -> None:
    """Ask for what must be refused: nothing may change."""
    chance = plan.chance
    name = plan.episode()
    other = {**plan.episodes[name].values, "action": {"plan": "something else"}}
    wrong = chance.choice(
        [
            Operation("record", other, name),
            Operation("record", {**other, "external_id": None, "project_id": " "}, "none"),
            Operation("record", {**other, "external_id": None, "outcome_quality": 1.5}, "none"),
            Operation("record_outcome", {"episode": "nobody", "outcome": None, "quality": 0.5}),
            Operation("record_outcome", {"episode": name, "outcome": None, "quality": None}),
            Operation("recall", {
                "query": None, "embedding": [1.0, 2.0], "project_id": None, "limit": 5,
                "with_outcome": None,
            }),
            Operation("update_session", {"session": "nobody", "goal": "none"}),
            Operation("apply_strategy", {"strategy": "nobody", "success": True, "episode": None}),
            Operation("add_strategy", {
                "description": "too little", "content": {}, "supporting": [name],
                "contradicting": [], "confidence": 0.5, "project_id": None, "embedding": None,
            }, "none"),
        ]
    )  # fmt: skip
    plan.made.append(wrong)


def _stats(plan: Plan) -> None:
    plan.add("stats", project_id=plan.chance.choice([None, *PROJECTS]))
