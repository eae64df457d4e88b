"""What a recall finds, and how fast, with filters of every size, and by each single route."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any, get_args
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from benchmarks.comparing import Call, Measure, Part, figures, middle, p95, tail, take_turns
from benchmarks.stage import (
    BEGIN,
    PROPOSED,
    Accuracy,
    Stage,
    Stored,
    accuracy,
    asking,
    asking_raw,
    recalling,
)
from pgrecall import Memory
from pgrecall.models import Route

PROJECTS = (0, 1, 12, 130)
"""Projects with about 13, 6.6, 1 and 0.1 % of the episodes."""

QUERIES = 256
OF_A_PROJECT = 80
CHOSEN, UNFILTERED = "chosen", "unfiltered"
ROUTES: tuple[Route, ...] = get_args(Route)
STRATEGIES: Mapping[str, Route | None] = {CHOSEN: None, **{route: route for route in ROUTES}}
WIDTHS = (100, 200, 400, 1000)
"""Values of ``hnsw.ef_search`` that are proposed, one after another."""
SECONDS = 30.0
"""How long a pair is timed at most, once there are 100 rounds."""


def without_filter(stored: Stored) -> Part:
    """Measure what unfiltered recalls find with the index as it stands."""
    queries, about, strange = _questions(stored)
    with stored.client() as memory, stored.raw() as raw:
        truth = stored.nearest(queries)
        seen = accuracy(asking(memory, queries), truth)
        alike = accuracy(asking(memory, about), stored.nearest(about))
        unlike = accuracy(asking(memory, strange), stored.nearest(strange))
        beside = accuracy(asking_raw(raw, queries), truth)
        route = _route(memory, queries[0], {})
    return Part(
        name="accuracy",
        measures=[
            Measure(name="recall@10, specification's index", value=seen.recall, target=0.985,
                    least=True, note=f"{seen.queries} queries, a third like nothing there is; "
                    f"{seen.nothing} found nothing right; raw statement {beside.recall:.4f}"),
            *_apart("specification's index", alike, unlike),
        ],
        facts={"specified": asdict(alike), "specified, no topic": asdict(unlike),
               "specified, all": asdict(seen), "raw": asdict(beside), "route": route},
    )  # fmt: skip


def rebuilt(stage: Stage, stored: Stored) -> Part:
    """Build the index that is proposed for many episodes, and measure again.

    The proposals of ``doctor`` are followed to their end: the new index, then a longer search.
    """
    seconds = stage.build(stored, PROPOSED)
    queries, about, strange = _questions(stored)
    truth = stored.nearest(queries)
    measures, facts = [], {}
    for width in WIDTHS:
        stored.search_width(width)
        with stored.client() as memory:
            seen = accuracy(asking(memory, queries), truth)
            alike = accuracy(asking(memory, about), stored.nearest(about))
            unlike = accuracy(asking(memory, strange), stored.nearest(strange))
        last = width == WIDTHS[-1]
        name = f"rebuilt, ef_search {width}"
        measures += [
            Measure(name=f"recall@10, {name}", value=seen.recall, least=True,
                    target=0.99 if last else None,
                    note=f"ef_construction {PROPOSED}, built in {seconds:.0f} s"),
            Measure(name=f"queries that found nothing right, {name}", value=seen.nothing,
                    target=0 if last else None),
            *_apart(name, alike, unlike),
        ]  # fmt: skip
        facts[str(width)] = asdict(seen)
        if width == WIDTHS[0]:
            facts |= {"proposed": asdict(alike), "proposed, no topic": asdict(unlike)}
    stored.search_width(WIDTHS[0])
    return Part(name="accuracy_rebuilt", measures=measures, facts=facts)


def _apart(name: str, alike: Accuracy, unlike: Accuracy) -> list[Measure]:
    return [
        Measure(name=f"recall@10, {name}, queries {kind}", value=seen.recall,
                note=f"{seen.queries} queries, {seen.nothing} found nothing right")
        for kind, seen in (("of topics there are", alike), ("like nothing there is", unlike))
    ]  # fmt: skip


Vectors = NDArray[np.float32]


def _questions(stored: Stored) -> tuple[Vectors, Vectors, Vectors]:
    """Return new queries: all, those of topics that there are, and the third that is of none."""
    queries = stored.world.vectors(3 * QUERIES // 2, queries=True)
    return queries, np.delete(queries, np.s_[::3], axis=0), queries[::3]


def _route(memory: Memory, query: NDArray[np.float32], filters: dict[str, Any]) -> str:
    account = memory.episodes.recall(
        embedding=query, outcome_weight=0.0, explain=True, **filters
    ).account
    return "none" if account is None or account.route is None else account.route


def shares(stored: Stored, rounds: int, projects: Sequence[int] = PROJECTS) -> Part:
    """Measure projects of several sizes, with queries like and unlike their own topics."""
    measures: list[Measure] = []
    facts: list[dict[str, Any]] = []
    with ExitStack() as stack:
        pair = stack.enter_context(stored.client()), stack.enter_context(stored.client())
        for project in projects:
            share = Share(stored, project, pair)
            more, fact = share.measure(rounds)
            measures += more
            facts.append(fact)
    return Part(name="shares", measures=measures, facts=facts)


class Share:
    """One project: recalls by the chosen route on one connection, everything else on another."""

    def __init__(self, stored: Stored, project: int, pair: tuple[Memory, Memory]) -> None:
        self.filters = {"project_id": f"project-{project}"}
        self.chosen, self.other = pair
        self.rows = stored.projects == project
        self.percent = 100 * float(self.rows.mean())
        topics = {
            own: stored.world.queries_of(project, OF_A_PROJECT, own=own) for own in (True, False)
        }
        self.truth = {own: stored.nearest(asked, self.rows) for own, asked in topics.items()}
        self.topics = topics
        # Own topics and others alternate.
        self.queries = np.stack([topics[True], topics[False]], axis=1).reshape(2 * OF_A_PROJECT, -1)
        self.unlike = stored.world.vectors(QUERIES, queries=True)

    def measure(self, rounds: int) -> tuple[list[Measure], dict[str, Any]]:
        found = {name: self._found(route) for name, route in STRATEGIES.items()}
        singles = {route: self._beside(route, rounds) for route in ROUTES}
        good = [one for one in ROUTES if min(found[one][own].recall for own in found[one]) >= 0.99]
        best = min(good, key=lambda one: p95(singles[one][one]) / p95(singles[one][CHOSEN]))
        # Once more: the one that just did best had luck as well.
        against = self._beside(best, rounds)
        calls = {
            CHOSEN: recalling(self.chosen, self.queries, **self.filters),
            UNFILTERED: recalling(self.other, self.unlike),
        }
        plain = take_turns(calls, rounds, warm_up=QUERIES, seconds=SECONDS)
        route = _route(self.chosen, self.queries[0], self.filters)
        # Of the chosen and the best the times beside each other, which can be compared.
        taken: dict[str, list[float]] = {one: singles[one][one] for one in ROUTES}
        taken.update(against)
        fact = {
            "percent": round(self.percent, 2),
            "rows": int(self.rows.sum()),
            "route": route,
            "best": best,
            UNFILTERED: figures(plain[UNFILTERED]),
            "strategies": {name: self._fact(found[name], taken[name]) for name in STRATEGIES},
        }
        name = f"project of {self.percent:.2g} %"
        return [
            *self._judge(name, found[CHOSEN]),
            tail(f"{name}: p95 / unfiltered p95", plain[CHOSEN], plain[UNFILTERED], 3.0),
            tail(f"{name}: p95 / best single route", against[CHOSEN], against[best], 1.25,
                 f"chosen {route}, best {best}"),
        ], fact  # fmt: skip

    def _beside(self, route: Route, rounds: int) -> dict[str, list[float]]:
        """Time the chosen route and a single one in turns."""
        calls: dict[str, Call] = {
            CHOSEN: recalling(self.chosen, self.queries, **self.filters),
            route: recalling(self.other, self.queries, route=route, **self.filters),
        }
        return take_turns(calls, rounds, warm_up=len(self.queries) // 4, seconds=SECONDS)

    def _found(self, route: Route | None) -> dict[bool, Accuracy]:
        memory = self.chosen if route is None else self.other
        return {
            own: accuracy(asking(memory, asked, route=route, **self.filters), self.truth[own])
            for own, asked in self.topics.items()
        }

    @staticmethod
    def _fact(found: dict[bool, Accuracy], taken: Sequence[float]) -> dict[str, Any]:
        return {
            **figures(taken),
            "recall_own": found[True].recall,
            "recall_other": found[False].recall,
            "short": found[True].short + found[False].short,
        }

    @staticmethod
    def _judge(name: str, mine: dict[bool, Accuracy]) -> list[Measure]:
        return [
            Measure(name=f"{name}: recall@10", value=min(mine[True].recall, mine[False].recall),
                    target=0.99, least=True,
                    note=f"own topics {mine[True].recall:.4f}, others {mine[False].recall:.4f}"),
            Measure(name=f"{name}: results short", value=mine[True].short + mine[False].short,
                    target=0, note=f"of {2 * OF_A_PROJECT} queries"),
        ]  # fmt: skip


def filters(stored: Stored, rounds: int) -> Part:
    """Measure filters that let one in a hundred rows through, against exact search."""
    window = len(stored.ids) // 100
    minutes = np.arange(len(stored.ids))
    begin = len(stored.ids) // 2
    several: dict[str, tuple[dict[str, Any], NDArray[np.bool_]]] = {
        "project": ({"project_id": "project-12"}, stored.projects == 12),
        "decision_source": ({"decision_source": "source-7"}, stored.sources == 7),
        "perception": ({"perception": {"kind": "kind-7"}}, stored.kinds == 7),
        "time": (
            {"since": BEGIN + np.timedelta64(begin, "m").item(),
             "until": BEGIN + np.timedelta64(begin + window, "m").item()},
            (minutes >= begin) & (minutes < begin + window),
        ),
    }  # fmt: skip
    queries = stored.world.vectors(QUERIES, queries=True)
    measures: list[Measure] = []
    facts: dict[str, Any] = {}
    with stored.client() as memory, stored.client() as other:
        for name, (given, rows) in several.items():
            ask: Callable[[int], set[UUID]] = asking(memory, queries, **given)
            seen = accuracy(ask, stored.nearest(queries, rows))
            taken = take_turns(
                {
                    CHOSEN: recalling(memory, queries, **given),
                    "exact": recalling(other, queries, route="exact", **given),
                },
                rounds, warm_up=QUERIES // 2, seconds=SECONDS,
            )  # fmt: skip
            route = _route(memory, queries[0], given)
            measures.append(
                middle(f"filter to 1 %, {name}: p50 / exact", taken[CHOSEN], taken["exact"], 0.25,
                       f"{int(rows.sum())} rows, route {route}, recall {seen.recall:.4f}")
            )  # fmt: skip
            facts[name] = {
                "rows": int(rows.sum()), "route": route, **asdict(seen),
                CHOSEN: figures(taken[CHOSEN]), "exact": figures(taken["exact"]),
            }  # fmt: skip
    return Part(name="filters", measures=measures, facts=facts)
