"""Why something was recalled: terms, repeats, diversity, and the recall's own account."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.rows import dict_row
from tests.integration.recall.conftest import Filled

from pgrecall import AsyncMemory, Memory, errors
from pgrecall.testing import Database


def test_terms_make_the_score(world: Filled) -> None:
    hits = world.memory.episodes.recall(
        embedding=world.query(known=True), outcome_weight=0.3, age_weight=0.2,
        half_life=timedelta(days=90), explain=True,
    )  # fmt: skip
    assert len(hits) == 10
    for hit in hits:
        terms = hit.terms
        assert terms is not None
        weights = (terms.relevance_weight, terms.worth_weight, terms.recency_weight)
        assert weights == pytest.approx((0.5, 0.3, 0.2))
        quality = hit.episode.outcome_quality
        assert (terms.relevance, terms.evidence) == (hit.similarity, None)
        assert terms.worth == (0.5 if quality is None else quality)
        age = datetime.now(UTC) - hit.episode.timestamp
        assert terms.recency == pytest.approx(0.5 ** (age / timedelta(days=90)), rel=1e-3)
        assert hit.score == pytest.approx(
            0.5 * terms.relevance + 0.3 * terms.worth + 0.2 * terms.recency
        )
    assert world.memory.episodes.recall(embedding=world.query(known=True))[0].terms is None


def test_the_account(world: Filled) -> None:
    hits = world.memory.episodes.recall(
        embedding=world.query(known=True), project_id="p1", explain=True
    )
    account = hits.account
    assert account is not None
    assert account.tried[-1] == account.route
    assert (account.mode, account.words, account.wanted) == ("vector", None, 30)
    assert account.rows == pytest.approx(3000, rel=0.05)
    assert account.matching == pytest.approx(900, rel=0.2)
    assert account.matching is not None
    assert account.considered >= account.matching * 0.8
    assert set(account.expected_ms) == {"exact", "codes", "index"}
    assert "rows match" in account.why
    assert 0 <= account.choose_ms + account.search_ms <= account.total_ms
    assert account.embed_ms == 0
    assert account.plan
    assert all(step.milliseconds >= 0 for step in account.plan)


def test_words_have_the_time_of_their_embedding(memory: Memory, make_episode: Any) -> None:
    memory.episodes.record(**make_episode())
    account = memory.episodes.recall("backlog", explain=True).account
    assert account is not None
    assert account.embed_ms > 0


def test_a_recall_that_finds_nothing_has_an_account(world: Filled) -> None:
    hits = world.memory.episodes.recall(
        embedding=world.query(known=True), project_id="nobody", explain=True
    )
    assert hits == []
    assert hits.account is not None
    assert str(hits.account.route) in hits.account.why


def test_plain_sql_says_the_same(world: Filled) -> None:
    query = world.query(known=True)
    ours = world.memory.episodes.recall(
        embedding=query, limit=7, project_id="p0", outcome_weight=0.4, explain=True
    )
    with psycopg.connect(
        world.database.role_dsn("readonly"), autocommit=True, row_factory=dict_row
    ) as reader:
        theirs = reader.execute(
            "SELECT * FROM pgrecall.recall_episodes(%s::text::vector, 7, "
            '\'{"project_id": "p0"}\', p_outcome_weight => 0.4, p_explain => true)',
            [str(query.tolist())],
        ).fetchall()
    assert [hit.episode.episode_id for hit in ours] == [row["episode_id"] for row in theirs]
    for hit, row in zip(ours, theirs, strict=True):
        assert hit.terms is not None
        assert (hit.score, hit.terms.worth) == (row["score"], row["worth"])
        assert hit.similarity == row["similarity"]
    assert ours.account is not None
    assert theirs[0]["account"]["route"] == ours.account.route
    assert theirs[0]["account"]["expected_ms"] == ours.account.expected_ms


def repeated(make_episode: Any, topic: int, **values: Any) -> dict[str, Any]:
    numbers = np.random.default_rng(topic).normal(size=64)
    return dict(make_episode(perception={"topic": topic}, embedding=numbers, **values))


def test_repeats_are_one_hit(memory: Memory, make_episode: Any) -> None:
    same = [
        memory.episodes.record(**repeated(make_episode, 1, outcome_quality=quality))
        for quality in (0.2, None, 0.9, None)
    ]
    other = memory.episodes.record(**repeated(make_episode, 2))
    query = np.random.default_rng(1).normal(size=64)
    first, second = memory.episodes.recall(embedding=query, explain=True)
    # The newest whose outcome is known stands for all; its worth is the mean.
    assert first.episode.episode_id == same[2].episode_id
    assert set(first.repeats) == {same[i].episode_id for i in (0, 1, 3)}
    assert first.repeats[0] == same[0].episode_id
    assert first.terms is not None
    assert first.terms.worth == pytest.approx(0.55)
    assert (second.episode, second.repeats) == (other, ())
    apart = memory.episodes.recall(embedding=query, group_repeats=False)
    assert len(apart) == 5
    assert all(hit.repeats == () for hit in apart)


def test_what_differs_is_no_repeat(memory: Memory, make_episode: Any) -> None:
    memory.episodes.record(**repeated(make_episode, 1))
    memory.episodes.record(**repeated(make_episode, 1, action={"other": True}))
    memory.episodes.record(**repeated(make_episode, 1, project_id="elsewhere"))
    assert len(memory.episodes.recall(embedding=np.random.default_rng(1).normal(size=64))) == 3


def test_as_many_as_differ_however_much_repeats_itself(memory: Memory, make_episode: Any) -> None:
    memory.episodes.record_many([repeated(make_episode, 1) for _ in range(400)])
    memory.episodes.record_many([repeated(make_episode, i) for i in range(2, 14)])
    hits = memory.episodes.recall(embedding=np.random.default_rng(1).normal(size=64), limit=10)
    assert len(hits) == 10
    assert len(hits[0].repeats) == 399


def marginal_relevance(
    scores: list[float], vectors: np.ndarray[Any, Any], diversity: float, limit: int
) -> list[int]:
    """Choose as Carbonell and Goldstein (1998) do."""
    alike = vectors @ vectors.T
    chosen: list[int] = []
    while len(chosen) < min(limit, len(scores)):
        left = [i for i in range(len(scores)) if i not in chosen]
        gain = {
            i: (1 - diversity) * scores[i]
            - diversity * (max(alike[i, j] for j in chosen) if chosen else 0)
            for i in left
        }
        chosen.append(max(left, key=lambda i: (gain[i], -i)))
    return chosen


@pytest.mark.parametrize("diversity", [0.2, 0.5, 0.9])
def test_diversity_is_maximal_marginal_relevance(world: Filled, diversity: float) -> None:
    query = world.query(known=True)
    pool = world.memory.episodes.recall(embedding=query, limit=24, route="exact", outcome_weight=0)
    index = [int(hit.episode.external_id or 0) for hit in pool]
    wanted = marginal_relevance(
        [hit.score for hit in pool], world.vectors[index].astype(float), diversity, 8
    )
    hits = world.memory.episodes.recall(
        embedding=query, limit=8, route="exact", outcome_weight=0, diversity=diversity
    )
    found = [int(hit.episode.external_id or 0) for hit in hits]
    assert found == [index[i] for i in wanted]


def test_knowledge_has_routes_and_reasons(memory: Memory, make_episode: Any) -> None:
    evidence = [memory.episodes.record(**make_episode()).episode_id for _ in range(3)]
    for i in range(30):
        memory.knowledge.add(
            ("strategy", "pattern")[i % 2], f"thing {i}", {"n": i}, supporting_episodes=evidence,
            confidence=(i % 10) / 10, project_id=(None, "apollo", "other")[i % 3],
        )  # fmt: skip
    for route in ("exact", "codes", "index"):
        hits = memory.knowledge.recall(
            "thing 7", project_id="apollo", limit=30, route=route, explain=True,
            confidence_weight=0.5, diversity=0.1,
        )  # fmt: skip
        assert {hit.knowledge.project_id for hit in hits} == {None, "apollo"}
        assert len(hits) == (20 if route != "index" else len(hits))
        assert hits.account is not None
        assert hits.account.route == route
        assert hits[0].terms is not None
        assert hits[0].terms.worth == hits[0].knowledge.confidence
    assert len(memory.knowledge.recall("thing", knowledge_type="pattern", limit=50)) == 15


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"outcome_weight": 0.7, "age_weight": 0.4}, "more than 1 together"),
        ({"age_weight": -0.1}, "age_weight is -0.1"),
        ({"diversity": 2}, "diversity is 2"),
        ({"half_life": 0}, "half_life is"),
        ({"project_ids": "apollo"}, "project_ids is 'apollo'"),
        ({"perception": ["a"]}, "perception is a list"),
        ({"colour": "red"}, "colour is not a filter"),
    ],
)
def test_what_cannot_be_meant(memory: Memory, given: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.InvalidInput, match=message):
        memory.episodes.recall("x", **given)


def test_queries_are_sampled_and_posed_again(
    pgrecall_database: Database, make_episode: Any
) -> None:
    settings = pgrecall_database.settings.model_copy(update={"recall_sample_rate": 1.0})
    with Memory.open(pgrecall_database.dsn, settings=settings) as memory:
        numbers = np.random.default_rng(5).normal(size=(40, 64))
        for i in range(20):
            memory.episodes.record(**make_episode(embedding=numbers[i], project_id="apollo"))
        for i in range(25):
            memory.episodes.recall(embedding=numbers[i], project_id="apollo", limit=3)
        memory.metrics.flush()
    probe = "SELECT posed, kind, filter, recall_accuracy FROM pgrecall.probe_recall(100, 10, 1e6)"
    with psycopg.connect(pgrecall_database.role_dsn("monitor"), autocommit=True) as monitor:
        rows = monitor.execute(probe).fetchall()
        # The newest are kept, not all; what was posed by none is made up.
        assert [row[0] for row in rows] == [True] * 20 + [False] * 80
        assert all(row[1:] == ("episodes", {"project_id": "apollo"}, 1.0) for row in rows[:20])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            monitor.execute("SELECT * FROM pgrecall.recall_samples")


def test_no_sample_unless_asked_for(pgrecall_database: Database, make_episode: Any) -> None:
    settings = pgrecall_database.settings.model_copy(update={"recall_sample_rate": 0.0})
    with Memory.open(pgrecall_database.dsn, settings=settings) as memory:
        memory.episodes.recall(embedding=[1.0] * 64)
    with psycopg.connect(pgrecall_database.owner_dsn) as owner:
        assert owner.execute("SELECT count(*) FROM pgrecall.recall_samples").fetchone() == (0,)


async def test_the_asynchronous_client_explains_as_well(
    async_memory: AsyncMemory, make_episode: Any
) -> None:
    await async_memory.episodes.record(**make_episode())
    hits = await async_memory.episodes.recall("backlog", explain=True)
    assert hits.account is not None
    assert hits[0].terms is not None
