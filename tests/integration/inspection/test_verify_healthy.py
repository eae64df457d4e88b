"""``verify`` on databases that are in order: all passes, and nothing is left behind."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgrecall.config import load_settings
from pgrecall.errors import Unavailable
from pgrecall.ops import provision
from pgrecall.ops.checks import Check
from pgrecall.ops.verify import exit_code, verify
from pgrecall.testing import Database

ById = Callable[[list[Check]], dict[str, Check]]
CASES = [f"TC-DB-00{number}" for number in range(1, 6)]
STEPS = [f"step-{number}" for number in range(1, 10)]
LATER = {"step-6", "step-8", "step-9"}
# Every counter of writes, rolled-back ones included, and every setting.
TRACES = """
SELECT 'table' AS kind, relname::text AS name,
       ARRAY[n_tup_ins, n_tup_upd, n_tup_del, n_live_tup, n_dead_tup]::text AS value
  FROM pg_stat_user_tables WHERE schemaname IN ('public', 'pgrecall')
UNION ALL
SELECT 'size', relname::text, pg_relation_size(oid)::text FROM pg_class
 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i')
UNION ALL
SELECT 'object', relname::text || relnamespace::regnamespace, oid::text FROM pg_class
 WHERE relpersistence <> 't'
UNION ALL
SELECT 'function', proname::text || pronamespace::regnamespace, oid::text FROM pg_proc
UNION ALL
SELECT 'temporary', relname::text, oid::text FROM pg_class
 WHERE relpersistence = 't' AND relkind IN ('r', 'i')
UNION ALL
SELECT 'setting', setrole::text || '/' || setdatabase, setconfig::text FROM pg_db_role_setting
 WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
UNION ALL
SELECT 'episode', episode_id::text, xmin::text || xmax FROM agent_episodes
UNION ALL
SELECT 'session', session_id::text, xmin::text || xmax || is_active || last_updated
  FROM agent_working_memory
UNION ALL
SELECT 'metric', metric_id::text, xmin::text || xmax FROM agent_memory_metrics
 ORDER BY 1, 2, 3
"""


def traces(dsn: str) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(TRACES).fetchall()


def test_specified_dimensions_as_the_real_owner(
    admin_dsn: str, tmp_path: Path, by_id: ById
) -> None:
    name = f"pgrecall_verify_{secrets.token_hex(4)}"
    settings = load_settings(config_dir=tmp_path, database=name)
    provision.init(admin_dsn, database=name, dimensions=1536, settings=settings)
    try:
        started = time.perf_counter()
        checks = verify(provision.dsn_for(settings, "owner"))
        assert time.perf_counter() - started < 60  # 2 to 5 s where nothing else runs
        found = by_id(checks)
        assert {check.id for check in checks if check.status == "not configured"} == LATER
        assert {check.id for check in checks if check.status == "failed"} == set()
        assert list(found)[:14] == CASES + STEPS
        assert exit_code(checks) == 0
        assert "1000 vectors of 1536 dimensions" in found["TC-DB-004"].evidence
        assert "Index Scan using idx_episodes_embedding" in found["TC-DB-005"].evidence
        assert "vector 0." in found["TC-DB-001"].evidence
        for role in ("app", "readonly", "monitor", "backup"):
            assert f"{name}_{role}" in found["step-2"].evidence
        assert "1 expired session of 4" in found["step-7"].evidence
    finally:
        provision.destroy(admin_dsn, database=name, settings=settings)


def test_single_user_of_the_specification(admin_dsn: str, tmp_path: Path, by_id: ById) -> None:
    name = f"pgrecall_verify_{secrets.token_hex(4)}"
    user = f"{name}_chronicle"
    settings = load_settings(config_dir=tmp_path, database=name)
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {user} LOGIN".encode())
        try:
            provision.init(
                admin_dsn, database=name, dimensions=8, grant_to=[user], settings=settings
            )
            owner = provision.dsn_for(settings, "owner")
            assert exit_code(verify(owner)) == 0
            with psycopg.connect(owner, autocommit=True) as connection:
                revoke = f"REVOKE INSERT ON TABLES FROM {user}"
                connection.execute(f"ALTER DEFAULT PRIVILEGES IN SCHEMA public {revoke}".encode())
            check = by_id(verify(owner))["catalog-default-privileges"]
            assert check.status == "failed"
            assert f"INSERT on tables in schema public expected for {user}" in check.evidence
        finally:
            provision.destroy(admin_dsn, database=name, settings=settings)
            admin.execute(f"DROP ROLE {user}".encode())


def test_leaves_nothing_behind(pgrecall_database: Database, plant: Callable[[str], None]) -> None:
    plant("""
        INSERT INTO agent_episodes (project_id, perception, reasoning, action, agent_version,
                                    embedding)
        SELECT 'real', '{}', '{}', '{}', '1', array_fill(i::real, ARRAY[64])::vector
          FROM generate_series(1, 20) AS i;;
        INSERT INTO agent_working_memory (project_id, expires_at)
        VALUES ('real', now() - interval '1 day'), ('real', now() + interval '1 day');;
        SELECT record_memory_operation('recall_similar', 1, 1);;
        SELECT pg_stat_force_next_flush();; VACUUM ANALYZE""")
    before = traces(pgrecall_database.admin_dsn)
    checks = verify(pgrecall_database.owner_dsn)
    assert [check for check in checks if check.status == "failed"] == []
    # Counters reach the shared statistics when the backend has ended.
    with psycopg.connect(pgrecall_database.admin_dsn, autocommit=True) as connection:
        for _ in range(100):
            (count,) = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgrecall verify'"
                " AND datname = current_database()"
            ).fetchone() or (0,)
            if count == 0:
                break
            time.sleep(0.05)
    assert traces(pgrecall_database.admin_dsn) == before


def test_runs_while_another_session_writes(pgrecall_database: Database) -> None:
    with psycopg.connect(pgrecall_database.dsn) as writer:
        writer.execute(
            "INSERT INTO agent_working_memory (project_id, expires_at) "
            "VALUES ('real', now() - interval '1 day')"
        )
        writer.execute("UPDATE agent_working_memory SET current_goal = 'held'")
        checks = verify(pgrecall_database.owner_dsn)
        assert exit_code(checks) == 0


def test_checks_are_ready_for_json(pgrecall_database: Database) -> None:
    checks = verify(pgrecall_database.owner_dsn)
    fields = {"id", "title", "status", "evidence", "remedy", "duration_ms"}
    assert all(set(check.as_dict) == fields for check in checks)
    assert all(check.evidence for check in checks)
    assert all(check.remedy for check in checks if check.status in ("failed", "warning"))


def test_no_server(pgrecall_database: Database) -> None:
    nowhere = make_conninfo("", host="127.0.0.1", port=1, user="x", password="secret-word")
    with pytest.raises(Unavailable) as caught:
        verify(nowhere)
    assert caught.value.hint
    assert "secret-word" not in str(caught.value)
