"""The catalog that ``verify`` expects is the specification's, but for what was decided."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from pgrecall.config import load_settings
from pgrecall.migrations import runner
from pgrecall.ops import provision
from pgrecall.ops.checks import Check
from pgrecall.ops.verify import catalog, exit_code, verify
from pgrecall.ops.verify.session import open_session
from pgrecall.testing import Database

ADDED = {
    "agent_episodes.external_id",
    "agent_episodes.pgrecall_recent",
    "agent_knowledge.project_id",
    "agent_memory_metrics.duration_ms",
    "idx_memory_metrics_accuracy",
    "uq_episodes_external_id",
    *(
        f"{table}.pgrecall_codes_{what}"
        for table in ("agent_episodes", "agent_knowledge")
        for what in ("new", "changed", "gone", "emptied")
    ),
    *(
        f"{table}.pgrecall_words{what}"
        for table in ("agent_episodes", "agent_knowledge", "agent_working_memory")
        for what in ("", "_emptied")
    ),
}
CORRECTED = {"agent_knowledge.chk_min_supporting_episodes", "v_memory_system_health"}


@pytest.mark.eval_data
def test_expected_catalog_is_the_specification(empty_database: str, specified_schema: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(specified_schema.encode())
    with open_session(empty_database) as session:
        found = catalog.read(session)
    wrong, unknown = catalog.compare(found, catalog.expected(1536))
    assert {item.name for item in wrong if item.found is None} == ADDED
    assert {item.name for item in wrong if item.found is not None} == CORRECTED
    assert unknown == []


def test_expected_catalog_is_that_of_all_migrations(empty_database: str) -> None:
    runner.upgrade(empty_database, dimensions=24)
    with open_session(empty_database) as session:
        assert catalog.read(session) == catalog.expected(24)


@pytest.mark.eval_data
def test_adopted_database_keeps_the_old_check_as_a_warning(
    admin_dsn: str,
    empty_database: str,
    specified_schema: str,
    tmp_path: Path,
    by_id: Callable[[list[Check]], dict[str, Check]],
) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(specified_schema.encode())
        connection.execute(
            "INSERT INTO agent_knowledge (knowledge_type, content, description) "
            "VALUES ('strategy', '{}', 'without evidence')"
        )
        name = connection.info.dbname
    settings = load_settings(config_dir=tmp_path, database=name)
    provision.init(admin_dsn, database=name, settings=settings)
    try:
        checks = verify(provision.dsn_for(settings, "owner"))
    finally:
        provision.destroy(admin_dsn, database=name, settings=settings)
        with psycopg.connect(admin_dsn, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}".encode())  # for the fixture to drop
    found = by_id(checks)
    assert exit_code(checks) == 0, [check for check in checks if check.status == "failed"]
    for id_ in ("step-3", "catalog-constraints"):
        assert found[id_].status == "warning"
        assert "chk_min_supporting_episodes" in found[id_].evidence


def test_another_query_behind_a_view_is_a_warning(
    pgrecall_database: Database,
    plant: Callable[[str], None],
    by_id: Callable[[list[Check]], dict[str, Check]],
) -> None:
    plant("""CREATE OR REPLACE VIEW v_memory_system_health AS
             SELECT 0::bigint AS total_episodes, 0::bigint AS episodes_with_outcome,
                    0::bigint AS active_strategies, 0::bigint AS active_sessions,
                    0::numeric AS avg_recall_latency_ms, ''::text AS database_size""")
    check = by_id(verify(pgrecall_database.owner_dsn))["catalog-views"]
    assert check.status == "warning"
    assert "v_memory_system_health expected: SELECT" in check.evidence


def test_an_index_built_with_more_care_is_as_specified(pgrecall_database: Database) -> None:
    for care, status in ((200, "passed"), (32, "failed")):
        with psycopg.connect(pgrecall_database.owner_dsn, autocommit=True) as owner:
            owner.execute("DROP INDEX idx_episodes_embedding")
            owner.execute(
                "CREATE INDEX idx_episodes_embedding ON agent_episodes USING hnsw "
                f"(embedding vector_cosine_ops) WITH (m = 16, ef_construction = {care})".encode()
            )
        found = {check.id: check for check in verify(pgrecall_database.owner_dsn)}
        assert found["step-4"].status == found["catalog-indexes"].status == status
        assert f"ef_construction='{care}'" in found["step-4"].evidence
        assert found["TC-DB-005"].status == "passed"
