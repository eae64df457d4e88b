"""``pgrecall recall-check`` against a real database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgrecall.testing import Database, Template


class Done(Protocol):
    code: int
    out: str
    err: str
    data: Any


class Run(Protocol):
    def __call__(self, *words: str, code: int = 0, **variables: str) -> Done: ...


# Of the row i; it must name i, else all were alike.
VECTOR = """(SELECT array_agg(random() - 0.5 + 0 * i * d)::real[]::vector
  FROM generate_series(1, 64) AS d)"""
ROWS = 1500
FILL = f"""INSERT INTO agent_episodes
(project_id, perception, reasoning, action, agent_version, embedding)
SELECT 'p' || i % 3, '{{}}', '{{}}', '{{}}', '1', {VECTOR} FROM generate_series(1, {ROWS}) AS i"""
POSE = f"""INSERT INTO pgrecall.recall_samples (kind, query, wanted, filter, project_id, checked_at)
SELECT 'episodes', {VECTOR}, 7, jsonb_build_object('project_id', %s::text), %s, now()
  FROM generate_series(1, %s) AS i"""
# As in a memory of many more episodes, the index is the cheapest route then.
BY_INDEX = "UPDATE pgrecall.embedding_models SET coded = false"


@pytest.fixture(scope="module")
def filled(pgrecall_template: Template) -> Iterator[Database]:
    with pgrecall_template.clone() as database:
        with psycopg.connect(database.admin_dsn, autocommit=True) as connection:
            connection.execute(FILL.encode())
            connection.execute(BY_INDEX)
            connection.execute("ANALYZE")
        yield database


@pytest.fixture
def memory(filled: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setenv("PGRECALL_DSN", filled.dsn)
    yield filled
    with psycopg.connect(filled.admin_dsn, autocommit=True) as connection:
        connection.execute("DELETE FROM pgrecall.recall_samples")
        connection.execute("DELETE FROM agent_memory_metrics")


def pose(database: Database, project: str, count: int) -> None:
    with psycopg.connect(database.admin_dsn) as connection:
        connection.execute(POSE.encode(), [project, project, count])


def recorded(database: Database) -> list[tuple[Any, ...]]:
    with psycopg.connect(database.admin_dsn) as connection:
        return connection.execute(
            "SELECT operation_type, results_count, recall_accuracy, precision, project_id, "
            "latency_ms >= duration_ms FROM agent_memory_metrics"
        ).fetchall()


def test_queries_that_agents_posed_come_first(memory: Database, run: Run) -> None:
    """Checked before or not; and what was measured is kept where probes keep it."""
    pose(memory, "p1", 3)
    told = run("recall-check", "--queries", "5", "--least", "0").data
    assert [one["posed"] for one in told["queries"]] == [True] * 3 + [False] * 2
    for one in told["queries"][:3]:
        assert one["filter"] == {"project_id": "p1"}
        assert one["project_id"] == "p1"
        assert one["there"] == one["found"] == 7
        assert one["recall"] == one["right"] / 7
    for one in told["queries"][3:]:
        assert one["filter"] == {}
        assert one["there"] == 10
        assert one["milliseconds"] > 0
        assert one["exact_ms"] > 0
    assert told["recorded"] is True
    assert told["cut_short"] is False
    expected = [
        ("recall_similar", one["found"], one["recall"], one["precision"], one["project_id"], True)
        for one in told["queries"]
    ]
    assert sorted(recorded(memory), key=str) == sorted(expected, key=str)


def test_it_measures_what_is_really_missed(
    memory: Database, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A pooler in front of the application role would keep connections with the setting before.
    monkeypatch.setenv("PGRECALL_DSN", memory.owner_dsn)
    role = f"{memory.settings.database}_owner"
    set_to = f'ALTER ROLE "{role}" IN DATABASE "{memory.name}" SET hnsw.ef_search = %s'
    with psycopg.connect(memory.admin_dsn, autocommit=True) as connection:
        connection.execute((set_to % 10).encode())
        # Unlike stored vectors, these are near to nothing: the hardest to find neighbours of.
        connection.execute(
            "INSERT INTO pgrecall.recall_samples (kind, query, wanted, filter) SELECT 'episodes', "
            f"{VECTOR}, 10, '{{}}' FROM generate_series(1, 30) AS i".encode()
        )
        try:
            told = run("recall-check", "--ef-search", "400,10,10", "--queries", "30", code=1).data
        finally:
            connection.execute((set_to % 100).encode())
    assert told["ef_search"] == 10
    assert told["total"]["recall"] < 0.95
    assert [share["name"] for share in told["ef_searches"]] == ["10", "400"]
    low, high = told["ef_searches"]
    assert low["recall"] == pytest.approx(told["total"]["recall"], abs=0.1)
    assert high["recall"] > low["recall"]
    assert told["enough"] == (400 if high["recall"] >= 0.99 else None)
    assert [share["name"] for share in told["routes"]] == ["index"]


def test_table(memory: Database, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pose(memory, "p1", 1)
    for width in ("60", "110"):
        monkeypatch.setenv("COLUMNS", width)
        text = run("recall-check", "--table", "--queries", "3", "--ef-search", "1000", "--least",
                   "0").out  # fmt: skip
        assert "project_id=p1" in "".join(text.split())
        words = " ".join(text.split())
        assert "mean recall" in words
        assert "of 3 queries each found something right" in words
        assert "2 of 3 are stored vectors" in words
        assert "ef_search 1000 is the smallest of these that reaches 0.99" in words
        assert "; 100 is set" in words
        assert "index: recall" in words
        assert max(map(len, text.splitlines())) <= int(width)


@pytest.mark.usefixtures("memory")
def test_what_is_set_is_told_from_what_would_do(run: Run) -> None:
    words = ("recall-check", "--table", "--queries", "3", "--least", "0", "--ef-search")
    text = " ".join(run(*words, "100,1000").out.split())
    assert "ef_search 100 is the smallest of these that reaches 0.99" in text
    assert "; 100 is set" in text


def test_the_least_that_is_good_enough(memory: Database, run: Run) -> None:
    pose(memory, "nowhere", 1)
    told = run("recall-check", "--queries", "2", "--least", "0.5").data
    assert told["total"]["queries"] == 1  # nothing matches the other
    wrong = run("recall-check", "--least", "1.5", code=2)
    assert "--least" in wrong.err


def test_a_query_that_nothing_matches_is_neither_right_nor_wrong(
    memory: Database, run: Run
) -> None:
    pose(memory, "nowhere", 2)
    told = run("recall-check", "--queries", "2").data
    assert told["total"]["recall"] is None
    assert told["recorded"] is False
    assert recorded(memory) == []
    assert "none of 2 queries" in run("recall-check", "--queries", "2", "--table").out


def test_the_budget_ends_it(memory: Database, run: Run) -> None:
    stopped = run("recall-check", "--budget", "0.000001", code=1)
    assert "did not suffice" in stopped.err
    assert "hint:" in stopped.err
    assert recorded(memory) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [(("--ef-search", "40"), "takes for not set"), (("--ef-search", "0"), "from 1 to"),
     (("--ef-search", "2000"), "from 1 to"), (("--ef-search", "many"), "100,200,400"),
     (("--queries", "0"), "queries"), (("--budget", "0"), "budget")],
)  # fmt: skip
@pytest.mark.usefixtures("memory")
def test_what_cannot_be_meant(run: Run, words: tuple[str, ...], told: str) -> None:
    assert told in run("recall-check", *words, code=2).err.replace("take for", "takes for")


def test_an_empty_memory(
    pgrecall_database: Database, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGRECALL_DSN", pgrecall_database.dsn)
    assert run("recall-check").data["queries"] == []
    assert "Nothing to check" in run("recall-check", "--table").out


def test_a_database_without_a_memory(
    admin_dsn: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGRECALL_DSN", make_conninfo(admin_dsn, dbname="template1"))
    failed = run("recall-check", code=1)
    assert "pgrecall init" in failed.err
