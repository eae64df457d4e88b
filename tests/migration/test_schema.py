"""Revision 1.0.0 is the specification's schema; what differs is named here, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable

import psycopg
import pytest

from pgrecall.migrations import runner

CATALOG = """
SELECT 'column' AS kind, attrelid::regclass::text || '.' || attnum || ' ' || attname AS name,
       concat_ws(' ', format_type(atttypid, atttypmod), attnotnull, attgenerated,
                 pg_get_expr(adbin, adrelid)) AS definition
  FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
  LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
 WHERE relnamespace = 'public'::regnamespace AND attnum > 0 AND relkind IN ('r', 'v')
UNION ALL
SELECT 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
  FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL
SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL
SELECT 'view', viewname, definition FROM pg_views WHERE schemaname = 'public'
UNION ALL
SELECT 'trigger', tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL
SELECT 'function', oid::regprocedure::text,
       concat_ws(' ', pg_get_function_arguments(oid), pg_get_function_result(oid), provolatile,
                 prosecdef, proisstrict, proconfig)
  FROM pg_proc WHERE pronamespace = 'public'::regnamespace
   AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')
UNION ALL
SELECT 'extension', extname, NULL FROM pg_extension
UNION ALL
SELECT 'version', version, description FROM schema_version
"""

Catalog = dict[tuple[str, str], str | None]


def catalog(dsn: str) -> Catalog:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(CATALOG).fetchall()
    return {(kind, name): definition for kind, name, definition in rows}


def test_only_the_decided_corrections_differ(
    new_database: Callable[[], str], appendix: str
) -> None:
    ours, theirs = new_database(), new_database()
    runner.upgrade(ours, dimensions=1536, target="1.0.0")
    with psycopg.connect(theirs) as connection:
        connection.execute(appendix)
    expected, found = catalog(theirs), catalog(ours)
    assert expected.keys() == found.keys()
    assert len(expected) > 100
    differing = {key for key in expected if expected[key] != found[key]}
    assert differing == {
        ("constraint", "agent_knowledge.chk_min_supporting_episodes"),
        ("view", "v_memory_system_health"),
    }
    assert found["constraint", "agent_knowledge.chk_min_supporting_episodes"] == (
        "CHECK (((is_active IS NOT TRUE) OR (cardinality(supporting_episodes) >= 3)))"
    )
    health = found["view", "v_memory_system_health"]
    assert health is not None
    theirs_health = expected["view", "v_memory_system_health"]
    assert health.replace("current_database()", "'agent_memory'::name") == theirs_health


def test_later_revisions_only_add(dsn: str) -> None:
    runner.upgrade(dsn, dimensions=8, target="1.0.0")
    before = catalog(dsn)
    runner.upgrade(dsn, dimensions=8)
    after = catalog(dsn)
    assert {key: after[key] for key in before} == before
    added = {
        f"{kind} {re.sub(r'[0-9]+ ', '', name)}" for kind, name in after.keys() - before.keys()
    }
    not_null = {name for name in added if name.startswith("constraint") and "not_null" in name}
    assert added - not_null == {
        "column agent_episodes.external_id",
        "column agent_knowledge.project_id",
        "column agent_memory_metrics.duration_ms",
        "index idx_memory_metrics_accuracy",
        "index uq_episodes_external_id",
        "trigger pgrecall_codes_changed",
        "trigger pgrecall_codes_emptied",
        "trigger pgrecall_codes_gone",
        "trigger pgrecall_codes_new",
        "trigger pgrecall_recent",
        "trigger pgrecall_words",
        "trigger pgrecall_words_emptied",
        "version 1.1.0",
        "version 1.2.0",
        "version 1.3.0",
        "version 1.4.0",
        "version 1.5.0",
        "version 1.6.0",
        "version 1.7.0",
        "version 1.8.0",
    }


@pytest.mark.parametrize("dimensions", [1, 384, 1024, 2000])
def test_dimensions(dsn: str, dimensions: int) -> None:
    runner.upgrade(dsn, dimensions=dimensions)
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT DISTINCT format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attname = 'embedding'"
        ).fetchall()
        assert rows == [(f"vector({dimensions})",)]
        for table in ("agent_episodes", "agent_knowledge"):
            with pytest.raises(psycopg.errors.DataException), connection.transaction():
                connection.execute(
                    f"UPDATE {table} SET embedding = "
                    f"array_fill(1, ARRAY[{dimensions + 1}])::vector({dimensions})"
                )


KNOWLEDGE = (
    "INSERT INTO agent_knowledge (knowledge_type, content, description, is_active, "
    "supporting_episodes) VALUES ('strategy', '{}', 'd', %s, "
    "array_fill('00000000-0000-0000-0000-000000000001'::uuid, ARRAY[%s::int]))"
)


@pytest.mark.parametrize(
    ("active", "evidence", "accepted"),
    [
        (True, 0, False),
        (True, 2, False),
        (True, 3, True),
        (False, 0, True),
        (None, 0, True),
    ],
)
def test_evidence(dsn: str, active: bool | None, evidence: int, accepted: bool) -> None:
    runner.upgrade(dsn, dimensions=3)
    with psycopg.connect(dsn) as connection:
        if accepted:
            connection.execute(KNOWLEDGE, [active, evidence])
        else:
            with pytest.raises(psycopg.errors.CheckViolation):
                connection.execute(KNOWLEDGE, [active, evidence])


def test_functions_and_trigger_do_their_work(dsn: str) -> None:
    runner.upgrade(dsn, dimensions=3)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET search_path = pg_catalog")
        connection.execute(
            "INSERT INTO public.agent_working_memory (project_id, expires_at, last_updated) "
            "VALUES ('old', now() - interval '1 minute', 'epoch'), ('new', DEFAULT, 'epoch')"
        )
        connection.execute("SELECT public.cleanup_expired_working_memory()")
        rows = connection.execute(
            "SELECT project_id, is_active, last_updated > 'epoch' "
            "FROM public.agent_working_memory ORDER BY 1"
        ).fetchall()
        assert rows == [("new", True, False), ("old", False, True)]
        connection.execute("SELECT public.record_memory_operation('recall_similar', 7, 2)")
        connection.execute("SELECT public.record_memory_operation('x', 1, 1, 'apollo')")
        rows = connection.execute(
            "SELECT operation_type, latency_ms, results_count, project_id "
            "FROM public.agent_memory_metrics ORDER BY 1"
        ).fetchall()
        assert rows == [("recall_similar", 7, 2, None), ("x", 1, 1, "apollo")]
        health = connection.execute(
            "SELECT active_sessions, avg_recall_latency_ms, database_size "
            "FROM public.v_memory_system_health"
        ).fetchone()
        assert health is not None
        assert health[:2] == (1, 7)
        assert health[2].endswith("B")


def test_external_ids_are_unique_within_a_project(dsn: str) -> None:
    runner.upgrade(dsn, dimensions=3)
    episode = (
        "INSERT INTO agent_episodes (project_id, external_id, perception, reasoning, action, "
        "agent_version) VALUES (%s, %s, '{}', '{}', '{}', '1')"
    )
    with psycopg.connect(dsn, autocommit=True) as connection:
        for project, name in [("a", "1"), ("b", "1"), ("a", None), ("a", None)]:
            connection.execute(episode, [project, name])
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(episode, ["a", "1"])


def test_memory_size_counts(dsn: str) -> None:
    runner.upgrade(dsn, dimensions=3)
    with psycopg.connect(dsn) as connection:
        connection.execute("INSERT INTO agent_working_memory (project_id) VALUES ('a'), ('b')")
        rows = connection.execute(
            "SELECT table_name, row_count FROM pgrecall.memory_size ORDER BY 1"
        ).fetchall()
        assert rows == [
            ("agent_episodes", 0),
            ("agent_knowledge", 0),
            ("agent_memory_metrics", 0),
            ("agent_working_memory", 2),
        ]
        plan = connection.execute(
            "EXPLAIN SELECT table_name, total_bytes FROM pgrecall.memory_size"
        ).fetchall()
        assert not any("agent_" in line and "Scan" in line for (line,) in plan)
