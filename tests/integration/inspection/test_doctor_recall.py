"""``doctor`` on recall: what it proposes is measured, can be run as it stands, and mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from pgrecall.ops.checks import Check
from pgrecall.ops.doctor import doctor, judge
from pgrecall.ops.doctor.facts import Facts, connect, gather
from pgrecall.ops.doctor.recall import EF_SEARCH
from pgrecall.ops.recall_check import measure, recall_check
from pgrecall.testing import Database, Template

Plant = Callable[[str], None]
ById = Callable[[list[Check]], dict[str, Check]]
ROWS = 2500
# Of the episode or query i; it must name i, else all were alike.
VECTOR = """(SELECT array_agg(random() - 0.5 + 0 * i * d)::real[]::vector
  FROM generate_series(1, 64) AS d)"""
EPISODES = f"""INSERT INTO agent_episodes
(project_id, perception, reasoning, action, agent_version, embedding)
SELECT 'p' || i % 3, '{{}}', '{{}}', jsonb_build_object('i', i), '1', {VECTOR}
FROM generate_series(1, {ROWS}) AS i"""
MEASURED = """INSERT INTO agent_memory_metrics
(operation_type, duration_ms, recall_accuracy, precision)
SELECT 'recall_similar', 2, %s, %s FROM generate_series(1, %s)"""
POSED = f"""INSERT INTO pgrecall.recall_samples (kind, query, wanted, filter)
SELECT 'episodes', {VECTOR}, 10, '{{}}' FROM generate_series(1, 60) AS i"""
# As in a memory of many more episodes, the index is the cheapest route then.
BY_INDEX = "UPDATE pgrecall.embedding_models SET coded = false"


@pytest.fixture(scope="module")
def filled(pgrecall_template: Template) -> Iterator[Database]:
    """A database with vectors that are hard to find, since all are as unlike."""
    with pgrecall_template.clone() as database:
        with psycopg.connect(database.admin_dsn, autocommit=True) as connection:
            for statement in (EPISODES, POSED, BY_INDEX, "ANALYZE"):
                connection.execute(statement.encode())
        yield database


@pytest.fixture
def sql(filled: Database) -> Iterator[Callable[..., list[Any]]]:
    """Run statements as the superuser, and take what they change outside of rows back."""

    def run(text: str, *values: object) -> list[Any]:
        with psycopg.connect(filled.admin_dsn, autocommit=True) as connection:
            cursor = connection.execute(text.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    yield run
    run("DELETE FROM agent_memory_metrics")


def measured(sql: Callable[..., Any], recall: float, count: int = 20) -> None:
    sql(MEASURED, recall, recall, count)


def examine(database: Database) -> Facts:
    with connect(database.admin_dsn) as connection:
        return gather(connection, embedder_dimensions=None, pool_size=4)


def found(facts: Facts, id_: str) -> Check:
    (check,) = [check for check in judge(facts) if check.id == id_]
    return check


def recall_now(database: Database, **settings: Any) -> float:
    # The owner's connections are direct: a pooler keeps some with the settings before.
    recall = recall_check(database.owner_dsn, queries=40, **settings).total.recall
    assert recall is not None
    return recall


def test_too_few_were_measured(filled: Database, sql: Callable[..., Any]) -> None:
    measured(sql, 0.1, 19)
    check = found(examine(filled), "recall-accuracy")
    assert check.status == "not configured"
    assert "19 queries" in check.evidence
    assert "pgrecall recall-check" in str(check.remedy)


def test_older_measurements_do_not_count(filled: Database, sql: Callable[..., Any]) -> None:
    measured(sql, 0.1, 30)
    sql("UPDATE agent_memory_metrics SET timestamp = now() - interval '8 days'")
    assert found(examine(filled), "recall-accuracy").status == "not configured"


def test_good_recall_measures_nothing_now(filled: Database, sql: Callable[..., Any]) -> None:
    measured(sql, 0.99, 30)
    facts = examine(filled)
    assert facts.recall is not None
    assert facts.recall.now is None
    check = found(facts, "recall-accuracy")
    assert check.status == "passed"
    assert "30 queries" in check.evidence
    assert "recall 0.990" in check.evidence
    assert "2.0 ms" in check.evidence


@pytest.mark.parametrize(
    ("good", "bad", "value", "status"),
    [(49, 1, 0.0, "passed"), (48, 2, 0.0, "warning"), (10, 20, 0.96, "warning"),
     (0, 20, 0.89, "failed")],
)  # fmt: skip
def test_what_counts_as_poor(
    filled: Database, sql: Callable[..., Any], good: int, bad: int, value: float, status: str
) -> None:
    if good:
        measured(sql, 1.0, good)
    measured(sql, value, bad)
    assert found(examine(filled), "recall-accuracy").status == status


def test_what_was_mended_is_told_from_what_was_not(
    filled: Database, sql: Callable[..., Any]
) -> None:
    measured(sql, 0.97)
    role = f"{filled.settings.database}_app"
    sql(f'ALTER ROLE "{role}" IN DATABASE "{filled.name}" SET hnsw.ef_search = 1000')
    try:
        check = found(examine(filled), "recall-accuracy")
    finally:
        sql(f'ALTER ROLE "{role}" IN DATABASE "{filled.name}" SET hnsw.ef_search = 100')
    assert "ef_search 1000" in check.evidence
    assert "is mended" in check.evidence
    assert "recall-check" in str(check.remedy)


def test_a_larger_ef_search_is_proposed_and_helps(
    filled: Database, sql: Callable[..., Any]
) -> None:
    prefix = filled.settings.database
    roles = [f"{prefix}_{purpose}" for purpose in ("app", "readonly", "owner", "monitor")]
    for role in roles:
        sql(f'ALTER ROLE "{role}" IN DATABASE "{filled.name}" SET hnsw.ef_search = 10')
    measured(sql, 0.5)
    try:
        before = recall_now(filled)
        check = found(examine(filled), "recall-accuracy")
        assert check.status == "failed"
        assert "queries that agents posed with ef_search 10: index recall 0." in check.evidence
        for value in EF_SEARCH:
            assert f"ef_search {value}: recall " in check.evidence
        statements = str(check.remedy).removeprefix("as a superuser: ").split("; ")[:-1]
        assert len(statements) == len(roles)
        for role, statement in zip(roles, statements, strict=True):
            start = f'ALTER ROLE "{role}" IN DATABASE "{filled.name}" SET hnsw.ef_search = '
            assert statement.startswith(start)
            assert int(statement.removeprefix(start)) in EF_SEARCH
            sql(statement)
        assert "it reached recall 0.99" in str(check.remedy) or "recall 1.0" in str(check.remedy)
        after = recall_now(filled)
    finally:
        for role in roles:
            sql(f'ALTER ROLE "{role}" IN DATABASE "{filled.name}" SET hnsw.ef_search = 100')
    assert before < 0.95
    assert after >= 0.98


@pytest.fixture
def poor_index(filled: Database, sql: Callable[..., Any]) -> Iterator[Database]:
    """An index whose graph is so thin that no search through it finds everything."""
    sql("DROP INDEX idx_episodes_embedding")
    sql("CREATE INDEX idx_episodes_embedding ON agent_episodes USING hnsw "
        "(embedding vector_cosine_ops) WITH (m = 2, ef_construction = 4)")  # fmt: skip
    yield filled
    sql("DROP INDEX IF EXISTS idx_episodes_embedding")
    sql("CREATE INDEX idx_episodes_embedding ON agent_episodes USING hnsw "
        "(embedding vector_cosine_ops) WITH (m = 16, ef_construction = 64)")  # fmt: skip


def definitions(sql: Callable[..., Any]) -> dict[str, str]:
    rows = sql("SELECT indexname, indexdef FROM pg_indexes WHERE indexdef LIKE '%hnsw%'")
    return dict(rows)


def test_a_rebuild_is_proposed_where_no_search_finds_enough(
    poor_index: Database, sql: Callable[..., Any]
) -> None:
    measured(sql, 0.3)
    check = found(examine(poor_index), "recall-accuracy")
    assert "ef_search 400: recall 0." in check.evidence
    told, _, statements = str(check.remedy).partition("as the owner: ")
    assert "build idx_episodes_embedding anew (it has " in told
    for statement in statements.split("; "):
        sql(statement)
    assert set(definitions(sql)) == {"idx_episodes_embedding", "idx_knowledge_embedding"}
    built = definitions(sql)["idx_episodes_embedding"]
    assert "(embedding vector_cosine_ops)" in built
    assert "ef_construction='200'" in built


def test_half_precision_is_proposed_where_the_index_does_not_fit(
    poor_index: Database, sql: Callable[..., Any]
) -> None:
    measured(sql, 0.3)
    facts = examine(poor_index)
    small = replace(facts, server=replace(facts.server, shared_buffers=1 << 16))
    check = found(small, "recall-accuracy")
    told, _, statements = str(check.remedy).partition("as the owner: ")
    assert "half precision" in told
    assert "instead of" in told
    assert "shared_buffers holds 64 kB" in told
    for statement in statements.split("; "):
        sql(statement)
    assert set(definitions(sql)) == {"idx_episodes_embedding", "idx_knowledge_embedding"}
    assert "halfvec_cosine_ops" in definitions(sql)["idx_episodes_embedding"]
    report = recall_check(poor_index.dsn, queries=10)
    assert [share.name for share in report.routes] == ["index"]
    assert report.total.recall is not None
    assert report.total.recall >= 0.98


def test_measuring_leaves_no_setting_in_the_transaction(
    filled: Database, sql: Callable[..., Any]
) -> None:
    measured(sql, 0.5)
    names = ("enable_seqscan", "enable_sort", "jit", "statement_timeout", "plan_cache_mode")
    with connect(filled.admin_dsn) as connection:

        def settings() -> list[str]:
            return [
                connection.execute("SELECT current_setting(%s) AS s", [name]).fetchone()["s"]  # type: ignore[index]
                for name in names
            ]

        before = settings()
        report = measure(connection, queries=3, budget_seconds=30, ef_search=[50], current=10)
        assert len(report.measured) == 3
        assert settings() == before
    assert sql("SELECT count(*) FROM agent_memory_metrics") == [(20,)]


CODES: dict[str, tuple[list[str], str, list[str]]] = {
    "episode without code": (
        [("DELETE FROM pgrecall.episode_codes WHERE ctid = (SELECT min(ctid) "
         "FROM pgrecall.episode_codes)")],
        "warning",
        ["1 episodes have a vector and no code"],
    ),
    "knowledge without code": (
        ["DELETE FROM pgrecall.knowledge_codes"],
        "warning",
        ["1 pieces of knowledge have a vector and no code"],
    ),
    "codes without vector": (
        [("INSERT INTO pgrecall.episode_codes SELECT project_id, model, gen_random_uuid(), code "
         "FROM pgrecall.episode_codes LIMIT 3"),
         ("INSERT INTO pgrecall.knowledge_codes SELECT 'other', model, knowledge_id, code "
         "FROM pgrecall.knowledge_codes")],
        "warning",
        ["3 codes of episodes have no vector", "1 codes of knowledge have no vector"],
    ),
    "stale codes": (
        ["UPDATE pgrecall.episode_codes SET code = ~code"],
        "warning",
        ["100 of 101 codes compared are of another vector"],
    ),
    "not coded": (
        ["UPDATE pgrecall.embedding_models SET coded = false"],
        "warning",
        ["never completed"],
    ),
    "no model": (["DELETE FROM pgrecall.embedding_models"], "failed", ["no model serves"]),
    "model of other vectors": (
        ["UPDATE pgrecall.embedding_models SET dimensions = 32"],
        "failed",
        ["vectors of 32 dimensions", "vector(64)"],
    ),
    "trigger disabled": (
        ["ALTER TABLE agent_episodes DISABLE TRIGGER pgrecall_codes_new"],
        "failed",
        ["trigger pgrecall_codes_new on agent_episodes is disabled"],
    ),
    "trigger for replicas only": (
        ["ALTER TABLE agent_knowledge ENABLE REPLICA TRIGGER pgrecall_codes_changed"],
        "failed",
        ["trigger pgrecall_codes_changed on agent_knowledge is disabled"],
    ),
    "triggers missing": (
        ["DROP TRIGGER pgrecall_codes_gone ON agent_knowledge",
         "DROP TRIGGER pgrecall_codes_emptied ON agent_episodes"],
        "failed",
        ["pgrecall_codes_gone on agent_knowledge is missing",
         "pgrecall_codes_emptied on agent_episodes is missing"],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def coded(pgrecall_template: Template) -> Iterator[Database]:
    """A small memory; what a test breaks, its remedy mends."""
    with pgrecall_template.clone() as database:
        with psycopg.connect(database.admin_dsn, autocommit=True) as connection:
            connection.execute(EPISODES.replace(str(ROWS), "120").encode())
            connection.execute(
                "INSERT INTO agent_knowledge (knowledge_type, content, description, is_active, "
                "supporting_episodes, embedding) SELECT 'strategy', '{}', 'x', false, '{}', "
                "embedding FROM agent_episodes LIMIT 1"
            )
            # The template was made without vectors, so this is quick.
            connection.execute("CALL pgrecall.code_all()")
        yield database


@pytest.mark.parametrize("fault", CODES)
def test_codes(coded: Database, fault: str) -> None:
    statements, status, words = CODES[fault]
    assert found(examine(coded), "codes").status == "passed"
    with psycopg.connect(coded.admin_dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())
    check = found(examine(coded), "codes")
    assert check.status == status, check
    for word in words:
        assert word in check.evidence
    with psycopg.connect(coded.owner_dsn, autocommit=True) as connection:
        for statement in str(check.remedy).removeprefix("as the owner: ").split("; "):
            connection.execute(statement.encode())
    assert found(examine(coded), "codes").status == "passed"


def test_codes_that_take_too_long_to_count_are_not_called_good(coded: Database) -> None:
    facts = examine(coded)
    assert facts.codes is not None
    check = found(replace(facts, codes=replace(facts.codes, counts=None)), "codes")
    assert check.status == "not configured"


def test_a_schema_without_codes(pgrecall_database: Database, plant: Plant, by_id: ById) -> None:
    plant("DROP TABLE pgrecall.recall_samples CASCADE")
    checks = by_id(
        doctor(
            pgrecall_database.admin_dsn,
            settings=pgrecall_database.settings,
            embedder_dimensions=None,
        )
    )
    for id_ in ("codes", "recall-accuracy"):
        assert checks[id_].status == "not configured"
        assert "pgrecall migrate" in str(checks[id_].remedy)
