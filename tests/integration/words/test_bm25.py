"""BM25 number by number against a kept library, and what it is counted over."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import bm25s
import numpy as np
import pytest
from tests.integration.words.conftest import Connection, fold, say

WORDS = [f"{a}{b}" for a in ("run", "plan", "ship", "fail", "gold") for b in "kmtvxz"]
PROJECTS = ("apollo", "gemini", "o'neill @x")


@pytest.fixture
def filled(app: Connection) -> Connection:
    rng = np.random.default_rng(3)
    for i in range(150):
        chosen = rng.choice(WORDS, size=int(rng.integers(1, 60)), p=_zipf(len(WORDS)))
        say(app, " ".join(chosen), PROJECTS[i % 3])
    return app


def _zipf(count: int) -> Any:
    weights = 1 / np.arange(1, count + 1)
    return weights / weights.sum()


def texts(connection: Connection, projects: list[str] | None) -> dict[str, list[str]]:
    """Return the words of each text as often as it holds them."""
    rows = connection.execute(
        "SELECT t.id::text, w.lexeme, coalesce(cardinality(w.positions), 1) "
        "FROM pgrecall.texts AS t, unnest(t.words) AS w WHERE t.kind = 'episodes' "
        "AND w.lexeme NOT LIKE '@%%' AND (%s::text[] IS NULL OR t.project_id = ANY (%s))",
        [projects, projects],
    ).fetchall()
    found: dict[str, list[str]] = {}
    for id_, word, count in rows:
        found.setdefault(id_, []).extend([word] * count)
    return found


def ours(connection: Connection, query: str, projects: list[str] | None) -> dict[str, float]:
    row = connection.execute(
        "SELECT f.ids::text[], f.scores, f.complete FROM pgrecall.nearest_by_words('episodes', "
        "pgrecall.wording('episodes', %s::text[], %s), %s::text[], '', 1000, 5000, true, false) "
        "AS f",
        [projects, query, projects],
    ).fetchone()
    assert row is not None
    ids, scores, complete = row
    assert complete
    return dict(zip(ids, scores or [], strict=True))


def theirs(found: dict[str, list[str]], query: list[str]) -> dict[str, float]:
    """Return what bm25s gives, by Lucene's formula."""
    ids = list(found)
    vocabulary = {word: i for i, word in enumerate(sorted({w for t in found.values() for w in t}))}
    retriever = bm25s.BM25(method="lucene", k1=1.2, b=0.75, dtype="float64")
    retriever.index(
        ([[vocabulary[word] for word in found[id_]] for id_ in ids], vocabulary),
        show_progress=False,
    )
    scores = retriever.get_scores([word for word in query if word in vocabulary])
    # Which leaves out the constant k1 + 1.
    return {id_: 2.2 * float(score) for id_, score in zip(ids, scores, strict=True) if score > 0}


@pytest.mark.parametrize("projects", [None, ["apollo"], ["gemini", "o'neill @x"]])
def test_scores_are_those_of_a_kept_library(filled: Connection, projects: list[str] | None) -> None:
    for folded in (False, True):
        if folded:
            fold(filled)
        for query in (["runk"], ["shipt", "goldz"], WORDS[::5], ["failx", "nothing"]):
            expected = theirs(texts(filled, projects), query)
            found = ours(filled, " ".join(query), projects)
            assert found == pytest.approx(expected, rel=1e-6)
            assert found


def test_scores_follow_what_is_changed_and_deleted(filled: Connection) -> None:
    fold(filled)
    filled.execute("DELETE FROM agent_episodes WHERE timestamp < now() AND random() < 0.3")
    filled.execute(
        'UPDATE agent_episodes SET perception = \'{"text": "goldz goldz runk"}\' '
        "WHERE project_id = 'gemini'"
    )
    for projects in (None, ["gemini"], ["apollo"]):
        expected = theirs(texts(filled, projects), ["goldz", "runk"])
        assert ours(filled, "goldz runk", projects) == pytest.approx(expected, rel=1e-6)


def test_the_formula_by_hand(app: Connection) -> None:
    say(app, "gold gold ship")
    say(app, "ship")
    # With the key "text": lengths 4 and 2; gold is in one of two texts.
    (score,) = ours(app, "gold", None).values()
    long = 1.2 * (0.25 + 0.75 * 4 / 3)
    assert score == pytest.approx(math.log(1 + 1.5 / 1.5) * 2.2 * 2 / (2 + long))


def test_how_often_a_word_is_there_is_read_off_exactly(app: Connection) -> None:
    """Up to as many places as PostgreSQL keeps of a word, which is 255."""
    counts = (1, 2, 3, 7, 20, 64, 150, 255)
    ids = {str(say(app, " ".join(["gold"] * count))): count for count in counts}
    found = ours(app, "gold", None)
    total = sum(count + 1 for count in counts)
    idf = math.log(1 + 0.5 / (len(counts) + 0.5))
    for id_, count in ids.items():
        long = 1.2 * (0.25 + 0.75 * (count + 1) * len(counts) / total)
        assert found[id_] == pytest.approx(2.2 * idf * count / (count + long)), count


def test_one_project_does_not_show_in_another(app: Connection) -> None:
    for i in range(20):
        say(app, f"gold ship number{i}", "apollo")
    before = ours(app, "gold number7 nmber9", ["apollo"])
    for i in range(40):
        say(app, f"gold gold gold nmber9 number{i}", "gemini")
    assert ours(app, "gold number7 nmber9", ["apollo"]) == before
    fold(app)
    assert ours(app, "gold number7", ["apollo"]) == ours(app, "gold number7", ["apollo"])
    folded = ours(app, "gold number7 nmber9", ["apollo"])
    app.execute("DELETE FROM agent_episodes WHERE project_id = 'gemini'")
    fold(app)
    assert ours(app, "gold number7 nmber9", ["apollo"]) == folded


def test_the_rarest_words_are_enough(app: Connection) -> None:
    """Those that cannot win are left out, and the best are the same."""
    rng = np.random.default_rng(9)
    common, rare = WORDS[:3], WORDS[3:12]
    for i in range(1200):
        chosen = [*common, *([rare[i % 9]] if i % 40 == 0 else []), f"own{i}"]
        say(app, " ".join(rng.permutation(chosen)))
    fold(app)
    everything = theirs(texts(app, None), [*common, rare[0]])
    row = app.execute(
        "SELECT f.ids::text[], f.scores, f.considered FROM pgrecall.nearest_by_words('episodes', "
        "pgrecall.wording('episodes', NULL, %s), NULL, '', 5, 5000, true, false) AS f",
        [" ".join([*common, rare[0]])],
    ).fetchone()
    assert row is not None
    assert row[1] == pytest.approx(sorted(everything.values(), reverse=True)[:5], rel=1e-6)
    assert Counter(everything[id_] > 0 for id_ in row[0]) == {True: 5}


def test_a_rare_word_is_found_among_common_ones(app: Connection) -> None:
    """However many texts hold the other words of the query."""
    app.execute(
        "INSERT INTO agent_episodes (project_id, perception, reasoning, action, agent_version) "
        "SELECT 'p', jsonb_build_object('text', 'gold ship plan ' || n), '{}', '{}', '1' "
        "FROM generate_series(1, 3000) AS n"
    )
    rare = say(app, "gold ship plan ERR-4711", "p")
    fold(app)
    for vector in ("NULL", "(SELECT array_fill(0.1::real, ARRAY[64])::vector)"):
        row = app.execute(
            "SELECT episode_id FROM pgrecall.recall_episodes("
            f"{vector}, p_text => 'which gold ship plan was ERR-4711', p_limit => 1)".encode()
        ).fetchone()
        assert row == (rare,)
