"""Recalls by words, by vectors, and by both."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.rows import dict_row
from tests.integration.words.conftest import Connection

from pgrecall import AsyncMemory, Memory, errors
from pgrecall.models import EpisodeFilters
from pgrecall.testing import Database

NOUNS = ("gold", "ship", "harbour", "sprint", "invoice", "coffee", "tunnel", "violin")
BEGAN = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def filled(memory: Memory) -> Memory:
    """Two hundred episodes; every seventh without a vector."""
    rng = np.random.default_rng(4)
    for i in range(200):
        memory.episodes.record(
            project_id=f"p{i % 3}", agent_version=f"1.{i % 2}", external_id=str(i),
            perception={"text": " ".join(rng.choice(NOUNS, 4)), "n": i}, reasoning={"r": i % 5},
            action={}, outcome={"ok": True} if i % 2 else None,
            outcome_quality=i % 10 / 10 if i % 2 else None, sprint_id=f"s{i // 20}",
            decision_source=f"d{i % 4}", timestamp=BEGAN + timedelta(hours=i),
            embed="later" if i % 7 == 0 else "now",
        )  # fmt: skip
    return memory


FILTERS: list[EpisodeFilters] = [
    {},
    {"project_id": "p1"},
    {"project_ids": ["p0", "p2"]},
    {"project_id": "p1", "project_ids": ["p0", "p2"]},
    {"project_id": "p1", "project_ids": ["p1", "p2"]},
    {"since": BEGAN + timedelta(hours=50), "until": BEGAN + timedelta(hours=150)},
    {"sprint_id": "s3"},
    {"decision_source": "d2", "agent_version": "1.0"},
    {"min_quality": 0.5},
    {"with_outcome": False, "project_id": "p0"},
    {"reasoning": {"r": 3}},
    {"project_id": "nobody"},
]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize("mode", ["words", "hybrid"])
def test_every_filter_holds(filled: Memory, mode: Any, filters: EpisodeFilters) -> None:
    admitted = {e.episode_id: e for e in filled.episodes.list(limit=1000, **filters)}
    hits = filled.episodes.recall(
        "gold ship", mode=mode, limit=300, group_repeats=False, outcome_weight=0.0, **filters
    )
    found = {hit.episode.episode_id for hit in hits}
    assert len(found) == len(hits)
    assert found <= set(admitted)
    having = {
        id_ for id_, e in admitted.items() if {"gold", "ship"} & {*e.perception["text"].split()}
    }
    assert having <= found
    if mode == "words":
        assert {hit.similarity for hit in hits} <= {None}
    else:
        assert {id_ for id_, e in admitted.items() if e.embedded} <= found
        assert all((hit.similarity is None) == (not hit.episode.embedded) for hit in hits)
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)


def test_as_many_as_are_wanted(filled: Memory) -> None:
    for limit in (1, 3, 25):
        assert len(filled.episodes.recall("gold", limit=limit)) == limit
    assert len(filled.episodes.recall("violin tunnel", mode="words", limit=25)) == 25


def test_evidence_makes_the_score(filled: Memory) -> None:
    hits = filled.episodes.recall("gold harbour", explain=True, outcome_weight=0.3, limit=20)
    account = hits.account
    assert account is not None
    assert (account.mode, account.route) == ("hybrid", account.tried[-1])
    assert account.words is not None
    assert account.words.complete
    assert {term.word for term in account.words.terms} == {"gold", "harbour"}
    assert account.words.texts == 200
    for hit in hits:
        assert hit.terms is not None
        evidence = hit.terms.evidence
        assert evidence is not None
        parts = evidence.words + evidence.surprise + evidence.lent
        assert parts == pytest.approx(evidence.total)
        assert evidence.surprise == pytest.approx(0) or hit.similarity is not None
        assert hit.score == pytest.approx(0.7 * hit.terms.relevance + 0.3 * hit.terms.worth)
        if hit.similarity is not None and not evidence.words and not evidence.lent:
            assert hit.terms.relevance == pytest.approx(hit.similarity, abs=1e-9)
    words = filled.episodes.recall("gold", mode="words", explain=True).account
    assert words is not None
    assert (words.mode, words.route, words.rows) == ("words", None, None)
    assert any(step.on == "texts" for step in words.plan)


def test_plain_sql_gives_the_same(filled: Memory, pgrecall_database: Database) -> None:
    (vector,) = filled.embed("gold ship")
    ours = filled.episodes.recall(
        "gold ship", embedding=vector, project_id="p1", limit=9, explain=True
    )
    with psycopg.connect(
        pgrecall_database.role_dsn("readonly"), autocommit=True, row_factory=dict_row
    ) as reader:
        theirs = reader.execute(
            "SELECT * FROM pgrecall.recall_episodes(%s::text::vector, 9, "
            "'{\"project_id\": \"p1\"}', p_text => 'gold ship', p_explain => true)",
            [vector.to_text()],
        ).fetchall()
    assert [hit.episode.episode_id for hit in ours] == [row["episode_id"] for row in theirs]
    for hit, row in zip(ours, theirs, strict=True):
        assert hit.score == row["score"]
        assert hit.terms is not None
        assert hit.terms.evidence is not None
        assert hit.terms.evidence.total == row["evidence"]
    assert filled.episodes.recall("gold ship", project_id="p1", limit=9) == [
        *filled.episodes.recall("gold ship", embedding=vector, project_id="p1", limit=9)
    ]


def test_neighbours_lend_where_they_go_together(memory: Memory) -> None:
    """The word is in a row that says little; what is around it says more."""
    for session in range(30):
        topic = NOUNS[session % 8]
        for i in range(6):
            memory.episodes.record(
                project_id="p", agent_version="1", reasoning={}, action={},
                perception={"text": f"{topic if i != 3 else 'yes'} x{session} y{i}"},
                sprint_id=f"s{session}", timestamp=BEGAN + timedelta(hours=10 * session + i),
                external_id=f"{session}-{i}",
            )  # fmt: skip
    hits = memory.episodes.recall("violin", limit=40, explain=True, outcome_weight=0.0)
    assert hits.account is not None
    assert hits.account.words is not None
    assert hits.account.words.lends[0] > 0.1
    lent = {hit.episode.external_id for hit in hits if hit.terms and hit.terms.evidence
            and hit.terms.evidence.lent > 0 and not hit.terms.evidence.words}  # fmt: skip
    assert {"7-3", "15-3", "23-3"} <= lent
    alone = memory.episodes.recall("violin", limit=40, context=False, explain=True)
    assert all(h.terms and h.terms.evidence and not h.terms.evidence.lent for h in alone)


def test_neighbours_come_with_a_hit(filled: Memory) -> None:
    (hit, *_) = filled.episodes.recall("gold", project_id="p1", limit=3, neighbours=True)
    beside = [episode.timestamp for episode in hit.neighbours]
    assert 1 <= len(beside) <= 4
    assert beside == sorted(beside)
    assert all(episode.sprint_id == hit.episode.sprint_id for episode in hit.neighbours)
    assert all(episode.project_id == "p1" for episode in hit.neighbours)
    assert filled.episodes.recall("gold", limit=1)[0].neighbours == ()


def test_a_reranker_has_the_last_word(filled: Memory, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[str, int]] = []

    def by_number(query: str, texts: Sequence[str]) -> list[float]:
        seen.append((query, len(texts)))
        return [float(text.split("n: ")[1].split(".")[0].split(";")[0]) for text in texts]

    hits = filled.episodes.recall("gold ship", rerank=by_number, limit=5)
    numbers = [hit.episode.perception["n"] for hit in hits]
    assert numbers == sorted(numbers, reverse=True)
    assert [hit.reranked for hit in hits] == numbers
    assert seen == [("gold ship", 8)] * 3 + [("gold ship", 6)]

    def slow(query: str, texts: Sequence[str]) -> list[float]:
        time.sleep(0.05)
        return [0.0] * len(texts)

    with caplog.at_level(logging.INFO, logger="pgrecall"):
        hits = filled.episodes.recall("gold ship", rerank=slow, rerank_seconds=0.02, limit=20)
    assert [hit.reranked for hit in hits] == [0.0] * 8 + [None] * 12
    assert "re-ranked 8 of 60 hits" in caplog.text
    for wrong in (lambda query, texts: [], lambda query, texts: [float("nan")] * len(texts)):
        with pytest.raises(errors.InvalidInput):
            filled.episodes.recall("gold ship", rerank=wrong)
    with pytest.raises(errors.InvalidInput, match="text to look for"):
        filled.episodes.recall(embedding=filled.embed("gold")[0], rerank=by_number)


def test_knowledge_by_words(memory: Memory, make_episode: Any) -> None:
    def learn(description: str, **values: Any) -> Any:
        return memory.knowledge.add(
            knowledge_type="pattern",
            content={},
            description=description,
            active=False,
            supporting_episodes=[],
            **values,
        )

    for noun in NOUNS:
        learn(f"about {noun} and nothing else", project_id="apollo")
    shared, other = learn("ERR-4711 means retry"), learn("ERR-4711 is odd", project_id="gemini")
    for mode in ("words", "hybrid", None):
        hits = memory.knowledge.recall("ERR-4711", mode=mode, project_id="apollo", active=None)
        assert hits[0].knowledge.knowledge_id == shared.knowledge_id
        assert other.knowledge_id not in {hit.knowledge.knowledge_id for hit in hits}
    assert memory.knowledge.recall("ERR-4711", mode="words") == []  # none is active
    hits = memory.knowledge.recall(
        "violin", active=None, explain=True, rerank=lambda query, texts: [1.0] * len(texts)
    )
    assert hits[0].terms is not None
    assert hits[0].terms.evidence is not None
    assert hits[0].reranked == 1.0


def test_thoughts_of_sessions(memory: Memory) -> None:
    session = memory.sessions.open(project_id="apollo", user_id="ann", goal="ship it")
    for text in ("look at the gold", "ERR-4711 again", "gold gold gold"):
        session = memory.sessions.append_thought(session.session_id, {"text": text})
    other = memory.sessions.open(project_id="gemini")
    memory.sessions.append_thought(other.session_id, {"text": "gold"})
    hits = memory.sessions.recall("gold", project_id="apollo")
    assert [(hit.position, hit.thought["text"]) for hit in hits] == [
        (2, "gold gold gold"), (0, "look at the gold"),
    ]  # fmt: skip
    (hit,) = memory.sessions.recall("what was err-4711?", user_id="ann", active=True)
    assert (hit.session_id, hit.position, hit.user_id) == (session.session_id, 1, "ann")
    assert len(memory.sessions.recall("gold", limit=2)) == 2
    memory.sessions.close(other.session_id)
    assert {h.project_id for h in memory.sessions.recall("gold", active=True)} == {"apollo"}
    assert {h.project_id for h in memory.sessions.recall("gold", active=False)} == {"gemini"}
    memory.sessions.delete(session.session_id)
    assert memory.sessions.recall("err") == []
    with pytest.raises(errors.InvalidInput):
        memory.sessions.recall(" ")


def test_a_memory_without_an_embedder(pgrecall_database: Database, make_episode: Any) -> None:
    settings = pgrecall_database.settings
    with Memory.open(pgrecall_database.dsn, embedder="none", settings=settings) as memory:
        episode = memory.episodes.record(
            **make_episode(perception={"t": "ERR-4711"}), embed="later"
        )
        (hit,) = memory.episodes.recall("ERR-4711")
        assert (hit.episode, hit.similarity) == (episode, None)
        assert 0 < hit.score <= 1
        with pytest.raises(errors.InvalidInput, match="there is no embedder"):
            memory.episodes.recall("ERR-4711", mode="vector")


def test_words_within_a_callers_transaction(
    memory: Memory, make_episode: Any, pgrecall_database: Database
) -> None:
    with psycopg.connect(pgrecall_database.dsn, prepare_threshold=None) as connection:
        (vector,) = memory.embed("gold")
        episode = memory.episodes.record(
            **make_episode(perception={"t": "gold"}), embedding=vector, connection=connection
        )
        (hit,) = memory.episodes.recall("gold", mode="words", connection=connection)
        assert hit.episode == episode
        (hit,) = memory.episodes.recall("gold", embedding=vector, connection=connection)
        assert hit.similarity == pytest.approx(1)
        with pytest.raises(errors.InvalidInput, match="while your transaction waits"):
            memory.episodes.recall("gold", connection=connection)
        connection.rollback()
    assert memory.episodes.recall("gold", mode="words") == []


async def test_the_same_in_coroutines(async_memory: AsyncMemory, make_episode: Any) -> None:
    episode = await async_memory.episodes.record(**make_episode(perception={"t": "ERR-4711"}))
    hits = await async_memory.episodes.recall(
        "ERR-4711", neighbours=True, rerank=lambda q, texts: [1.0] * len(texts)
    )
    assert [hit.episode for hit in hits] == [episode]
    session = await async_memory.sessions.open(project_id="p")
    await async_memory.sessions.append_thought(session.session_id, {"t": "gold"})
    assert len(await async_memory.sessions.recall("gold")) == 1


def test_who_may_read_words(pgrecall_database: Database, app: Connection) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute("INSERT INTO pgrecall.word_changes (project_id, kind, texts, tokens, words) "
                    "VALUES ('p', 'episodes', 1, 1, 'gold')")  # fmt: skip
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute("DELETE FROM pgrecall.texts")
    with psycopg.connect(pgrecall_database.role_dsn("readonly"), autocommit=True) as reader:
        reader.execute("SELECT * FROM pgrecall.recall_episodes(NULL, p_text => 'gold')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute("SELECT pgrecall.fold_words()")
    with (
        psycopg.connect(pgrecall_database.role_dsn("monitor"), autocommit=True) as monitor,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        monitor.execute("SELECT * FROM pgrecall.texts")
