"""Every route under every filter, against the truth."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import numpy as np
import psycopg
import pytest
from tests.integration.recall.conftest import BEGAN, Filled

from pgrecall.core.routes import Situation, choose, costs
from pgrecall.models import EpisodeFilters, Route

Matches = Callable[[dict[str, Any]], bool]
ROUTED: tuple[Route | None, ...] = (None, "exact", "codes")


def filters_at_random(rng: np.random.Generator) -> tuple[EpisodeFilters, Matches]:
    """Return one to three filters, and the same in Python."""
    project, source = f"p{rng.integers(5)}", f"s{rng.integers(20)}"
    quality, kind = float(rng.integers(100)) / 100, f"k{rng.integers(7)}"
    since = BEGAN + timedelta(minutes=int(rng.integers(3000)))
    known = bool(rng.integers(2))
    choices: list[tuple[dict[str, Any], Matches]] = [
        ({"project_id": project}, lambda r: r["project_id"] == project),
        ({"project_ids": ["p1", "p3"]}, lambda r: r["project_id"] in ("p1", "p3")),
        ({"since": since}, lambda r: r["timestamp"] >= since),
        ({"until": since}, lambda r: r["timestamp"] < since),
        ({"sprint_id": "sprint-4"}, lambda r: r["sprint_id"] == "sprint-4"),
        ({"decision_source": source}, lambda r: r["decision_source"] == source),
        ({"agent_version": "1.1"}, lambda r: r["agent_version"] == "1.1"),
        ({"min_quality": quality}, lambda r: (r["outcome_quality"] or -1) >= quality),
        (
            {"max_quality": quality},
            lambda r: r["outcome_quality"] is not None and r["outcome_quality"] <= quality,
        ),
        ({"with_outcome": known}, lambda r: (r["outcome"] is not None) == known),
        ({"perception": {"kind": kind}}, lambda r: r["perception"]["kind"] == kind),
        ({"perception": {"deep": {"x": 1}}}, lambda r: r["perception"]["deep"]["x"] == 1),
        ({"reasoning": {"because": 3}}, lambda r: r["reasoning"]["because"] == 3),
        ({"action": {"do": 2}}, lambda r: r["action"]["do"] == 2),
        ({"outcome": {"ok": True}}, lambda r: bool(r["outcome"]) and r["outcome"]["ok"]),
    ]
    picked = [choices[i] for i in rng.choice(len(choices), rng.integers(1, 4), replace=False)]
    merged: dict[str, Any] = {}
    tests: dict[str, Matches] = {}
    for given, matches in picked:
        ((name, _),) = given.items()
        merged |= given
        tests[name] = matches
    return cast("EpisodeFilters", merged), lambda r: all(test(r) for test in tests.values())


@pytest.mark.parametrize("route", [None, "codes", "exact"])
def test_random_filters_against_the_truth(world: Filled, route: Route | None) -> None:
    right = total = 0
    # What the index finds for a query unlike anything there is, is measured by benchmarks.
    for i in range(60):
        filters, matches = filters_at_random(world.rng)
        if i % 15 == 0:
            filters, matches = {}, lambda _row: True
        query = world.query(known=route is None or bool(i % 2))
        limit = int(world.rng.integers(1, 40))
        truth = world.nearest(query, matches, limit)
        hits = world.memory.episodes.recall(
            embedding=query, limit=limit, outcome_weight=0, route=route, **filters
        )
        assert len(hits) == len(truth), (filters, limit)
        found = {hit.episode.external_id for hit in hits}
        assert all(matches(world.rows[int(external or 0)]) for external in found), filters
        right, total = right + len(found & set(truth)), total + len(truth)
        if route == "exact":
            # Equally far ones, which rounding may exchange, lie at the end.
            assert len(found & set(truth)) >= len(truth) - 1, filters
    assert right / total >= 0.99, (right, total)


def test_all_that_there_are_if_fewer_match_than_wanted(world: Filled) -> None:
    for project in ("p3", "p4", "p-none"):
        matching = sum(row["project_id"] == project for row in world.rows)
        for route in ROUTED:
            hits = world.memory.episodes.recall(
                embedding=world.query(known=False), limit=1000, project_id=project, route=route
            )  # fmt: skip
            assert len(hits) == matching


def test_several_projects_by_codes_alone(world: Filled) -> None:
    for ids in (["p1", "p2"], ["p4", "p4"], [], ["nobody"]):
        matching = sum(row["project_id"] in ids for row in world.rows)
        for route in ROUTED:
            hits = world.memory.episodes.recall(
                embedding=world.query(known=True), limit=2000, route=route, project_ids=ids,
                explain=True, group_repeats=False,
            )  # fmt: skip
            assert len(hits) == matching
            assert hits.account is not None
            if route == "codes":
                read = [step for step in hits.account.plan if step.on == "episode_codes"]
                assert [step.step for step in read] == ["Index Only Scan"]


def test_more_than_any_setting_of_the_index_allows(world: Filled) -> None:
    hits = world.memory.episodes.recall(embedding=world.query(known=True), limit=2500)
    assert len(hits) == 2500


PLANS: list[tuple[Route, EpisodeFilters, str]] = [
    ("index", {}, "idx_episodes_embedding"),
    ("index", {"with_outcome": True}, "idx_episodes_embedding"),
    ("index", {"project_id": "p0"}, "idx_episodes_embedding"),
    ("codes", {"project_id": "p1"}, "episode_codes_pkey"),
    ("exact", {"project_id": "p4"}, "idx_episodes_project_time"),
]


@pytest.mark.parametrize(("route", "filters", "index"), PLANS)
def test_plans(world: Filled, route: Route, filters: EpisodeFilters, index: str) -> None:
    hits = world.memory.episodes.recall(
        embedding=world.query(known=True), route=route, explain=True, limit=3, **filters
    )
    assert hits.account is not None
    used = {step.index for step in hits.account.plan}
    assert index in used, hits.account.plan
    assert (route == "index") == ("idx_episodes_embedding" in used)
    if route == "codes":
        (read,) = [step for step in hits.account.plan if step.index == index]
        assert read.step == "Index Only Scan"


def test_the_choice_of_the_database_is_that_of_the_formulas(world: Filled) -> None:
    with psycopg.connect(world.database.dsn, autocommit=True) as connection:
        for _ in range(300):
            rows = float(world.rng.integers(1, 10**7))
            matching = max(1.0, float(np.floor(rows * world.rng.random() ** 4)))
            given = Situation(
                rows=rows, matching=matching, wanted=int(world.rng.integers(1, 300)),
                dimensions=int(world.rng.integers(1, 3000)), filtered=int(world.rng.integers(2)),
                joined=int(world.rng.integers(2)),
            )  # fmt: skip
            told = connection.execute(
                "SELECT route, milliseconds FROM pgrecall.route_costs(%s, %s, %s, %s, %s, %s) "
                "WHERE milliseconds IS NOT NULL",
                [rows, matching, given.wanted, given.dimensions, given.filtered, given.joined],
            ).fetchall()
            assert dict(told) == pytest.approx(costs(given))
            assert min(told, key=lambda row: row[1])[0] == choose(given)


def test_no_setting_stays_in_the_transaction_of_a_caller_of_sql(world: Filled) -> None:
    names = (
        "hnsw.ef_search", "hnsw.iterative_scan", "hnsw.max_scan_tuples", "enable_seqscan",
        "enable_sort", "plan_cache_mode", "jit", "search_path",
    )  # fmt: skip
    look = "SELECT name, setting FROM pg_settings WHERE name = ANY (%s) ORDER BY name"
    query = str(world.query(known=True).tolist())
    with psycopg.connect(world.database.dsn) as connection:
        connection.execute("SELECT '[1]'::vector")
        for value in ("77", "40"):
            connection.execute(f"SET LOCAL hnsw.ef_search = {value}".encode())
            before = connection.execute(look, [[*names]]).fetchall()
            for route in ("index", "codes", "exact"):
                connection.execute(
                    "SELECT count(*) FROM pgrecall.recall_episodes(%s::text::vector, "
                    "p_filter => '{\"with_outcome\": true}', p_route => %s)",
                    [query, route],
                )
                assert connection.execute(look, [[*names]]).fetchall() == before, route


def test_a_filter_that_is_none_is_refused(world: Filled) -> None:
    query = str(world.query(known=True).tolist())
    zero = str([0.0] * world.vectors.shape[1])
    with psycopg.connect(world.database.dsn, autocommit=True) as connection:
        for call, message in (
            (("SELECT * FROM pgrecall.recall_episodes(%s::text::vector, p_filter => %s)",
              [query, '{"colour": "red"}']), "colour is no filter of episodes"),
            (("SELECT * FROM pgrecall.recall_episodes(%s::text::vector, p_filter => %s)",
              [query, '["a"]']), "instead of an object"),
            (("SELECT * FROM pgrecall.recall_episodes(%s::text::vector, p_route => %s)",
              [query, "luck"]), "there is no route luck"),
            (("SELECT * FROM pgrecall.recall_episodes(%s::text::vector)", [zero]),
             "has no direction"),
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
                connection.execute(call[0], call[1])


def test_what_a_filter_says_is_never_taken_for_sql(world: Filled) -> None:
    for text in ("x' OR true --", "t.x", "a\\' OR 1=1", '"', "%s", "$1", "p0'; DROP TABLE x; --"):
        hits = world.memory.episodes.recall(
            embedding=world.query(known=True), project_id=text, perception={text: text}
        )
        assert hits == []
