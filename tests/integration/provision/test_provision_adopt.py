"""A schema that the specification's own SQL made is taken over, with every row and grant."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from pgrecall.config import Settings
from pgrecall.errors import OperationRefused
from pgrecall.migrations import HEAD, REVISIONS
from pgrecall.ops.provision import dsn_for, init

Maker = Callable[..., tuple[str, str]]

RELATIONS = """
SELECT format('public.%I', relname) AS name FROM pg_class
 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')
   AND relname IN ('agent_episodes', 'agent_knowledge', 'agent_working_memory',
                   'agent_memory_metrics', 'schema_version', 'v_episode_quality_by_project',
                   'v_strategy_effectiveness', 'v_memory_system_health')
"""
PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")


def rights(server: Any, database: str, roles: list[str]) -> set[tuple[str, ...]]:
    """Return everything that ``roles`` may do, however they may."""
    held: set[tuple[str, ...]] = set()
    with server.connect(database) as connection:

        def holds(function: str, *arguments: str) -> None:
            marks = ", ".join(["%s"] * len(arguments))
            row = connection.execute(
                f"SELECT {function}({marks}) AS held", list(arguments)
            ).fetchone()
            if row["held"]:
                held.add((function, *arguments))

        relations = [row["name"] for row in connection.execute(RELATIONS)]
        assert len(relations) == 8
        for role in roles:
            for relation, right in itertools.product(relations, PRIVILEGES):
                holds("has_table_privilege", role, relation, right)
            holds("has_column_privilege", role, "agent_knowledge", "description", "SELECT")
            for right in ("USAGE", "CREATE"):
                holds("has_schema_privilege", role, "public", right)
            for right in ("CONNECT", "TEMP", "CREATE"):
                holds("has_database_privilege", role, database, right)
            holds("has_function_privilege", role, "cleanup_expired_working_memory()", "EXECUTE")
    return held


def fill(server: Any, database: str, dimensions: int) -> None:
    vector = f"array_fill(0.5, ARRAY[{dimensions}])::vector"
    server.run(
        f"""
        INSERT INTO agent_episodes (project_id, perception, reasoning, action, agent_version,
                                    embedding)
        SELECT 'apollo', jsonb_build_object('n', n), '{{}}', '{{}}', '1.0', {vector}
          FROM generate_series(1, 20) AS n;
        INSERT INTO agent_knowledge (knowledge_type, content, description, supporting_episodes)
        SELECT 'strategy', '{{}}', 'halve it', array_agg(episode_id) FROM agent_episodes;
        INSERT INTO agent_working_memory (project_id) VALUES ('apollo');
        SELECT record_memory_operation('recall_similar', 3, 5, 'apollo');
        """,
        database,
    )


def content(server: Any, database: str) -> list[Any]:
    return [
        server.rows(f"SELECT * FROM {table} ORDER BY 1", database)
        for table in (
            "agent_episodes",
            "agent_knowledge",
            "agent_working_memory",
            "agent_memory_metrics",
        )
    ]


@pytest.mark.parametrize(("as_user", "dimensions"), [(False, 1536), (True, 1536), (True, 1024)])
def test_rows_and_grants_survive(
    server: Any, settings: Settings, by_hand: Maker, as_user: bool, dimensions: int
) -> None:
    database, user = by_hand(dimensions=dimensions, as_user=as_user)
    analyst, clerk, stranger = server.role("analyst"), server.role("clerk"), server.role("any")
    server.run(
        f'GRANT SELECT ON agent_episodes TO "{analyst}" WITH GRANT OPTION;'
        f'GRANT SELECT (description) ON agent_knowledge TO "{clerk}";'
        f'GRANT INSERT ON agent_memory_metrics TO "{clerk}";',
        database,
    )
    # A grant that the analyst passed on hangs on the analyst's own.
    server.run(
        f'SET ROLE "{analyst}"; GRANT SELECT ON agent_episodes TO "{clerk}"; RESET ROLE', database
    )
    fill(server, database, dimensions)
    roles = [user, analyst, clerk, stranger]
    before, rows = rights(server, database, roles), content(server, database)

    report = init(server.dsn, database=database, settings=settings)

    assert report.adopted
    assert report.dimensions == dimensions
    assert report.revision == HEAD
    assert before - rights(server, database, roles) == set()
    for old, new in zip(rows, content(server, database), strict=True):
        kept = [{key: row[key] for key in old[0]} for row in new]
        assert kept == old
    owner = f"{database}_owner"
    owners = server.rows(
        "SELECT DISTINCT relowner::regrole::text AS owner FROM pg_class "
        "WHERE relnamespace = 'public'::regnamespace AND relname ~ '^(agent_|v_|schema_)'",
        database,
    )
    assert [row["owner"].strip('"') for row in owners] == [owner]
    versions = server.rows("SELECT version FROM schema_version ORDER BY 1", database)
    assert [row["version"] for row in versions] == [*REVISIONS]
    with psycopg.connect(dsn_for(settings, "app")) as connection:
        assert connection.execute("SELECT count(*) FROM agent_episodes").fetchone() == (20,)

    again = server.snapshot(database)
    second = init(server.dsn, database=database, settings=settings)
    assert not second.changed
    assert not second.adopted
    assert server.snapshot(database) == again


def test_the_previous_owner_goes_on_working(
    server: Any, settings: Settings, by_hand: Maker
) -> None:
    database, user = by_hand(as_user=True)
    init(server.dsn, database=database, settings=settings, grant_to=[user])
    server.run(
        f'SET SESSION AUTHORIZATION "{user}";'
        "CREATE TABLE test_table (id int); DROP TABLE test_table;"
        "ALTER TABLE agent_episodes ADD COLUMN note text;"
        "ALTER TABLE agent_episodes DROP COLUMN note;"
        "TRUNCATE agent_memory_metrics; SELECT cleanup_expired_working_memory();"
        "SELECT * FROM v_memory_system_health;",
        database,
    )


def test_default_privileges_reach_what_the_new_owner_creates(
    server: Any, settings: Settings, by_hand: Maker
) -> None:
    database, user = by_hand(as_user=True)
    analyst = server.role("analyst")
    server.run(
        f'SET SESSION AUTHORIZATION "{user}"; ALTER DEFAULT PRIVILEGES IN SCHEMA public '
        f'GRANT SELECT ON TABLES TO "{analyst}"',
        database,
    )
    init(server.dsn, database=database, settings=settings)
    server.run(f'SET ROLE "{database}_owner"; CREATE TABLE later (id int)', database)
    for role in (user, analyst):
        assert server.value(f"SELECT has_table_privilege('{role}', 'later', 'SELECT')", database)


def test_adopted_equals_fresh(server: Any, settings: Settings, by_hand: Maker) -> None:
    adopted, _ = by_hand()
    fresh = server.name("fresh")
    init(server.dsn, database=adopted, settings=settings)
    init(server.dsn, database=fresh, settings=settings)
    query = """
    SELECT 'column' AS kind, attrelid::regclass::text || '.' || attname AS name,
           format_type(atttypid, atttypmod) || ' ' || attnotnull || ' ' ||
           coalesce(pg_get_expr(adbin, adrelid), '') AS definition
      FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
      LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
     WHERE relnamespace IN ('public'::regnamespace, 'pgrecall'::regnamespace) AND attnum > 0
    UNION ALL SELECT 'constraint', conrelid::regclass || '.' || conname,
           pg_get_constraintdef(oid) FROM pg_constraint
     WHERE connamespace IN ('public'::regnamespace, 'pgrecall'::regnamespace)
    UNION ALL SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL SELECT 'view', viewname, definition FROM pg_views
     WHERE schemaname IN ('public', 'pgrecall')
    UNION ALL SELECT 'trigger', tgname, pg_get_triggerdef(oid) FROM pg_trigger
     WHERE NOT tgisinternal
    UNION ALL SELECT 'function', oid::regprocedure::text, pg_get_function_arguments(oid)
      FROM pg_proc WHERE proname IN ('cleanup_expired_working_memory',
           'update_working_memory_timestamp', 'record_memory_operation')
     ORDER BY 1, 2, 3
    """
    assert server.rows(query, adopted) == server.rows(query, fresh)


def test_rows_without_evidence_keep_the_old_constraint_until_mended(
    server: Any, settings: Settings, by_hand: Maker
) -> None:
    database, _ = by_hand()
    server.run(
        "INSERT INTO agent_knowledge (knowledge_type, content, description) "
        "VALUES ('strategy', '{}', 'no evidence at all')",
        database,
    )
    definition = (
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE conname = 'chk_min_supporting_episodes'"
    )
    report = init(server.dsn, database=database, settings=settings)
    assert report.revision == HEAD
    assert any("chk_min_supporting_episodes" in note for note in report.notes)
    assert "array_length" in server.value(definition, database)

    server.run("UPDATE agent_knowledge SET is_active = false", database)
    dry = init(server.dsn, database=database, settings=settings, dry_run=True)
    assert [step.what for step in dry.steps if step.state == "would change"] == ["constraint"]
    report = init(server.dsn, database=database, settings=settings)
    assert [step.what for step in report.steps if step.state == "changed"] == ["constraint"]
    assert not any("chk_min_supporting_episodes" in note for note in report.notes)
    assert "cardinality" in server.value(definition, database)


def test_a_part_of_the_schema_is_refused_with_what_is_missing(
    server: Any, settings: Settings, by_hand: Maker
) -> None:
    database, _ = by_hand()
    server.run(
        "DROP INDEX idx_episodes_sprint; DROP VIEW v_strategy_effectiveness;"
        "DROP TRIGGER trg_update_working_memory_timestamp ON agent_working_memory",
        database,
    )
    before = server.snapshot(database)
    with pytest.raises(OperationRefused) as refusal:
        init(server.dsn, database=database, settings=settings)
    for name in (
        "index idx_episodes_sprint",
        "view v_strategy_effectiveness",
        "trigger trg_update_working_memory_timestamp",
    ):
        assert name in refusal.value.message
    assert server.snapshot(database) == before
    assert not settings.config_dir.exists()


@pytest.mark.parametrize("fault", ["missing", "invalid"])
def test_vector_indexes_are_reported_not_built(
    server: Any, settings: Settings, by_hand: Maker, fault: str
) -> None:
    database, _ = by_hand()
    if fault == "missing":
        server.run("DROP INDEX idx_episodes_embedding", database)
    else:
        server.run(
            "UPDATE pg_index SET indisvalid = false "
            "WHERE indexrelid = 'idx_episodes_embedding'::regclass",
            database,
        )
    report = init(server.dsn, database=database, settings=settings)
    (note,) = [note for note in report.notes if "idx_episodes_embedding" in note]
    remedy = note.split("run as the owner: ")[1]
    for statement in remedy.split("; "):
        server.run(statement, database)
    again = init(server.dsn, database=database, settings=settings)
    assert not any("idx_episodes_embedding" in note for note in again.notes)


def test_a_dry_run_of_an_adoption_changes_nothing(
    server: Any, settings: Settings, by_hand: Maker
) -> None:
    database, _ = by_hand(as_user=True)
    before = server.snapshot(database)
    report = init(server.dsn, database=database, settings=settings, dry_run=True)
    would = {(step.what, step.target) for step in report.steps if step.state != "unchanged"}
    assert ("ownership", f"{database}_owner") in would
    assert ("revision", "1.0.0") in would
    assert ("revision", HEAD) in would
    assert report.adopted
    assert server.snapshot(database) == before


def test_the_specification_can_be_applied_again(
    server: Any, settings: Settings, by_hand: Maker, appendix: str
) -> None:
    """Its authors did so: "already exists" for most of it, functions replaced."""
    _, user = by_hand()
    database = server.name("fresh")
    init(server.dsn, database=database, settings=settings, grant_to=[user])
    parts = appendix.replace("chronicle_user", f'"{user}"').split(";\n\n")
    statements = [part for part in parts if "uuid-ossp" not in part]
    failures = []
    with server.connect(database) as connection:
        for statement in statements:
            try:
                connection.execute(statement)
            except (
                psycopg.errors.DuplicateTable,
                psycopg.errors.DuplicateObject,
                psycopg.errors.UniqueViolation,
            ) as error:
                failures.append(type(error).__name__)
    assert {"DuplicateTable", "DuplicateObject", "UniqueViolation"} == set(failures)
    fill(server, database, 1536)
    assert not init(server.dsn, database=database, settings=settings).adopted
