"""``verify`` finds and names a fault that was really planted."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from pgrecall.ops.checks import Check
from pgrecall.ops.verify import exit_code, verify
from pgrecall.testing import Database

Plant = Callable[[str], None]
ById = Callable[[list[Check]], dict[str, Check]]

CLEANUP = """CREATE OR REPLACE FUNCTION cleanup_expired_working_memory() RETURNS void
LANGUAGE plpgsql AS $$ BEGIN {} END $$"""

FAULTS = {
    "vector index dropped": (
        "DROP INDEX idx_episodes_embedding",
        {
            "TC-DB-005": ["expected: Index Scan using idx_episodes_embedding", "Seq Scan"],
            "step-4": ["idx_episodes_embedding expected: CREATE INDEX", "1 HNSW indexes"],
            "catalog-indexes": ["idx_episodes_embedding is missing, expected: CREATE INDEX"],
        },
    ),
    "plain index dropped": (
        "DROP INDEX idx_working_memory_expiry",
        {"catalog-indexes": ["idx_working_memory_expiry is missing", "(expires_at)"]},
    ),
    "vector index with other parameters": (
        (
            "DROP INDEX idx_knowledge_embedding;; CREATE INDEX idx_knowledge_embedding ON "
            "agent_knowledge USING hnsw (embedding vector_l2_ops) WITH (m = 4, ef_construction = 8)"
        ),
        {"step-4": ["vector_l2_ops", "expected: CREATE INDEX idx_knowledge_embedding"]},
    ),
    "third vector index": (
        "CREATE INDEX idx_third ON agent_episodes USING hnsw (embedding vector_l2_ops)",
        {"step-4": ["3 HNSW indexes instead of 2", "public.idx_third"]},
    ),
    "index invalid": (
        (
            "UPDATE pg_index SET indisvalid = false "
            "WHERE indexrelid = 'idx_episodes_embedding'::regclass"
        ),
        {
            "TC-DB-005": ["Seq Scan"],
            "step-4": ["[invalid: never used by a query]"],
            "catalog-indexes": ["idx_episodes_embedding expected", "[invalid"],
        },
    ),
    "grant to app revoked": (
        "REVOKE INSERT ON agent_episodes FROM {role}_app",
        {"step-2": ["_app lacks INSERT on table public.agent_episodes"]},
    ),
    "execute revoked": (
        "REVOKE EXECUTE ON FUNCTION cleanup_expired_working_memory() FROM PUBLIC, {role}_app",
        {"step-2": ["_app lacks EXECUTE on function public.cleanup_expired_working_memory()"]},
    ),
    "grant to readonly revoked": (
        "REVOKE SELECT ON v_strategy_effectiveness FROM {role}_readonly",
        {"step-2": ["_readonly lacks SELECT on table public.v_strategy_effectiveness"]},
    ),
    "owner reads but cannot write": (
        "REVOKE INSERT, UPDATE ON agent_knowledge FROM {role}_owner",
        {
            "step-2": [
                "insert on agent_knowledge was refused",
                "_owner lacks UPDATE on table public.agent_knowledge",
            ]
        },
    ),
    "owner set read-only": (
        "ALTER ROLE {role}_owner SET default_transaction_read_only = on",
        {"TC-DB-002": ["read-only transaction"], "step-2": ["insert on agent_episodes"]},
    ),
    "owner may not create": (
        (
            "ALTER SCHEMA public OWNER TO CURRENT_USER;; REVOKE CREATE ON SCHEMA public FROM "
            "pg_database_owner, {role}_owner"
        ),
        {"TC-DB-002": ["permission denied for schema public"]},
    ),
    "cleanup does nothing": (
        CLEANUP.format("NULL;"),
        {"step-7": ["expired session is_active = False, found: True"]},
    ),
    "cleanup deactivates all": (
        CLEANUP.format("UPDATE public.agent_working_memory SET is_active = false;"),
        {"step-7": ["live session is_active = True, found: False"]},
    ),
    "cleanup deactivates all, tables unqualified": (
        CLEANUP.format("UPDATE agent_working_memory SET is_active = false;"),
        {"step-7": ["live session is_active = True, found: False"]},
    ),
    "cleanup deletes": (
        CLEANUP.format("DELETE FROM public.agent_working_memory WHERE expires_at < now();"),
        {"step-7": ["no row added or deleted", "'live', 'unending'"]},
    ),
    "cleanup raises": (
        CLEANUP.format("RAISE EXCEPTION 'broken on purpose';"),
        {"step-7": ["broken on purpose"]},
    ),
    "metrics recorded wrongly": (
        """CREATE OR REPLACE FUNCTION record_memory_operation(p_operation_type varchar,
           p_latency_ms integer, p_results_count integer, p_project_id varchar DEFAULT NULL)
           RETURNS void LANGUAGE plpgsql AS $$ BEGIN
           INSERT INTO public.agent_memory_metrics (operation_type, latency_ms, results_count)
           VALUES (p_operation_type, p_results_count, p_latency_ms); END $$""",
        {"step-7": ["record_memory_operation() expected: the rows"]},
    ),
    "function signature wrong": (
        """DROP FUNCTION record_memory_operation;;
           CREATE FUNCTION record_memory_operation(text, integer, integer, text) RETURNS void
           LANGUAGE sql AS ''""",
        {
            "catalog-functions": [
                "record_memory_operation expected: (p_operation_type character varying",
                "found: (text, integer, integer, text)",
            ],
            "step-7": ["record_memory_operation"],
        },
    ),
    "function returns something else": (
        """DROP FUNCTION cleanup_expired_working_memory;;
           CREATE FUNCTION cleanup_expired_working_memory() RETURNS integer
           LANGUAGE sql AS 'UPDATE public.agent_working_memory SET is_active = false
           WHERE is_active AND expires_at < now() RETURNING 1'""",
        {"catalog-functions": ["RETURNS void LANGUAGE plpgsql", "RETURNS integer LANGUAGE sql"]},
    ),
    "constraint dropped": (
        "ALTER TABLE agent_episodes DROP CONSTRAINT chk_control_mode",
        {
            "step-3": ["accepted the control_mode 'unheard_of'"],
            "catalog-constraints": ["agent_episodes.chk_control_mode is missing"],
        },
    ),
    "constraint loosened": (
        (
            "ALTER TABLE agent_episodes DROP CONSTRAINT agent_episodes_outcome_quality_check;; "
            "ALTER TABLE agent_episodes ADD CONSTRAINT agent_episodes_outcome_quality_check "
            "CHECK (outcome_quality BETWEEN 0 AND 2)"
        ),
        {
            "step-3": ["accepted an outcome_quality of 1.5"],
            "catalog-constraints": ["agent_episodes_outcome_quality_check expected", "(2)"],
        },
    ),
    "constraint not validated": (
        (
            "ALTER TABLE agent_knowledge DROP CONSTRAINT chk_knowledge_type;; "
            "ALTER TABLE agent_knowledge ADD CONSTRAINT chk_knowledge_type CHECK "
            "(knowledge_type IN ('strategy', 'pattern', 'constraint', 'heuristic')) NOT VALID"
        ),
        {"catalog-constraints": ["chk_knowledge_type expected", "NOT VALID"]},
    ),
    "primary key dropped": (
        "ALTER TABLE agent_memory_metrics DROP CONSTRAINT agent_memory_metrics_pkey",
        {"catalog-constraints": ["agent_memory_metrics_pkey is missing"]},
    ),
    "column type changed": (
        "ALTER TABLE agent_working_memory ALTER COLUMN user_id TYPE text",
        {
            "step-3": ["agent_working_memory.user_id"],
            "catalog-columns": [
                "agent_working_memory.user_id expected: character varying(100) found: text"
            ],
        },
    ),
    "default changed": (
        (
            "ALTER TABLE agent_working_memory ALTER COLUMN expires_at "
            "SET DEFAULT now() + interval '1 minute'"
        ),
        {"catalog-columns": ["agent_working_memory.expires_at", "'00:01:00'::interval"]},
    ),
    "default dropped": (
        "ALTER TABLE agent_episodes ALTER COLUMN control_mode DROP DEFAULT",
        {
            "step-3": ["defaults of agent_episodes gave unexpected values"],
            "catalog-columns": ["agent_episodes.control_mode"],
        },
    ),
    "nullability changed": (
        "ALTER TABLE agent_episodes ALTER COLUMN perception DROP NOT NULL",
        {"catalog-columns": ["agent_episodes.perception expected: jsonb NOT NULL found: jsonb"]},
    ),
    "column dropped": (
        "ALTER TABLE agent_episodes DROP COLUMN chronicle_note_id",
        {"catalog-columns": ["agent_episodes.chronicle_note_id is missing, expected: uuid"]},
    ),
    "dimensions differ": (
        (
            "DROP INDEX idx_knowledge_embedding;; ALTER TABLE agent_knowledge "
            "ALTER COLUMN embedding TYPE vector(32);; "
            "CREATE INDEX idx_knowledge_embedding ON agent_knowledge USING hnsw "
            "(embedding vector_cosine_ops) WITH (m = 16, ef_construction = 64)"
        ),
        {"catalog-columns": ["agent_knowledge.embedding expected: vector(64) found: vector(32)"]},
    ),
    "no fixed dimension": (
        (
            "DROP INDEX idx_episodes_embedding;; ALTER TABLE agent_episodes ALTER COLUMN embedding "
            "TYPE vector"
        ),
        {
            "TC-DB-004": ["no fixed number of dimensions"],
            "TC-DB-005": ["no fixed number of dimensions"],
            "catalog-columns": ["agent_episodes.embedding expected: vector(n) found: vector"],
        },
    ),
    "view column dropped": (
        (
            "DROP VIEW v_strategy_effectiveness;; CREATE VIEW v_strategy_effectiveness AS SELECT "
            "knowledge_id, description, confidence, times_applied, success_rate, is_active "
            "FROM agent_knowledge"
        ),
        {"catalog-views": ["v_strategy_effectiveness.supporting_count is missing"]},
    ),
    "view dropped": (
        "DROP VIEW v_episode_quality_by_project",
        {"catalog-views": ["v_episode_quality_by_project.avg_quality is missing"]},
    ),
    "view cannot be read": (
        (
            "CREATE OR REPLACE VIEW v_memory_system_health AS SELECT 1::bigint AS total_episodes, "
            "1::bigint AS episodes_with_outcome, 1::bigint AS active_strategies, "
            "1::bigint AS active_sessions, 1.0::numeric AS avg_recall_latency_ms, "
            "pg_size_pretty(pg_database_size('nowhere_at_all')) AS database_size"
        ),
        {"catalog-views": ['"nowhere_at_all" does not exist']},
    ),
    "trigger disabled": (
        "ALTER TABLE agent_working_memory DISABLE TRIGGER trg_update_working_memory_timestamp",
        {
            "catalog-triggers": ["trg_update_working_memory_timestamp", "[disabled]"],
            "step-7": ["last_updated renewed by an update, found: unchanged"],
        },
    ),
    "trigger dropped": (
        "DROP TRIGGER trg_update_working_memory_timestamp ON agent_working_memory",
        {"catalog-triggers": ["trg_update_working_memory_timestamp is missing"]},
    ),
    "trigger function broken": (
        """CREATE OR REPLACE FUNCTION update_working_memory_timestamp() RETURNS trigger
           LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$""",
        {"step-7": ["trg_update_working_memory_timestamp expected: last_updated renewed"]},
    ),
    "table missing": (
        "DROP TABLE agent_memory_metrics CASCADE",
        {
            "TC-DB-003": ["missing: agent_memory_metrics"],
            "step-3": ["agent_memory_metrics is missing"],
            "step-7": ["agent_memory_metrics"],
            "catalog-views": ["v_memory_system_health"],
        },
    ),
    "episodes table missing": (
        "DROP TABLE agent_episodes CASCADE",
        {"TC-DB-003": ["missing: agent_episodes"], "TC-DB-004": ["agent_episodes.embedding"]},
    ),
    "extension missing": (
        "DROP EXTENSION vector CASCADE",
        {
            "TC-DB-001": ["extension vector is not installed"],
            "step-1": ["vector"],
            "catalog-extensions": ["expected: extension vector"],
        },
    ),
    "optional extension dropped": (
        "DROP EXTENSION pg_trgm CASCADE",
        {"catalog-extensions": ["expected: extension pg_trgm", "found: vector 0."]},
    ),
    "default privilege revoked": (
        (
            "ALTER DEFAULT PRIVILEGES FOR ROLE {role}_owner IN SCHEMA public "
            "REVOKE SELECT ON TABLES FROM {role}_readonly"
        ),
        {
            "catalog-default-privileges": [
                "default privilege SELECT on tables in schema public expected for",
                "_readonly",
            ]
        },
    ),
    "table unlogged": (
        "ALTER TABLE agent_memory_metrics SET UNLOGGED",
        {"step-3": ["agent_memory_metrics expected: table found: table, unlogged"]},
    ),
}


# Faults that don't hide each other share a database, so each must be named beside the others.
TOGETHER = (
    (
        "vector index dropped",
        "grant to app revoked",
        "cleanup does nothing",
        "constraint dropped",
        "default dropped",
        "trigger disabled",
        "optional extension dropped",
        "table unlogged",
    ),
    (
        "vector index with other parameters",
        "third vector index",
        "execute revoked",
        "cleanup deactivates all",
        "constraint loosened",
        "column type changed",
        "default privilege revoked",
        "view column dropped",
    ),
    (
        "index invalid",
        "grant to readonly revoked",
        "cleanup deactivates all, tables unqualified",
        "metrics recorded wrongly",
        "constraint not validated",
        "default changed",
        "nullability changed",
        "view dropped",
    ),
    (
        "owner reads but cannot write",
        "cleanup deletes",
        "function signature wrong",
        "primary key dropped",
        "column dropped",
        "dimensions differ",
        "trigger dropped",
    ),
    (
        "cleanup raises",
        "plain index dropped",
        "no fixed dimension",
        "trigger function broken",
        "view cannot be read",
    ),
    ("function returns something else", "owner may not create"),
    ("owner set read-only",),
    ("table missing",),
    ("episodes table missing",),
    ("extension missing",),
)


def test_every_fault_is_planted() -> None:
    assert sorted(name for group in TOGETHER for name in group) == sorted(FAULTS)


@pytest.mark.parametrize("faults", TOGETHER, ids=lambda group: group[0].replace(" ", "-"))
def test_faults_are_named(
    faults: tuple[str, ...], pgrecall_database: Database, plant: Plant, by_id: ById
) -> None:
    for fault in faults:
        plant(FAULTS[fault][0])
    try:
        checks = verify(pgrecall_database.owner_dsn)
    finally:
        plant("ALTER ROLE {role}_owner RESET default_transaction_read_only")
    found = by_id(checks)
    assert exit_code(checks) == 1
    for fault in faults:
        for id_, words in FAULTS[fault][1].items():
            assert found[id_].status == "failed", (fault, found[id_])
            assert found[id_].remedy, (fault, found[id_])
            for word in words:
                assert word in found[id_].evidence, (fault, found[id_])


def test_empty_database_fails_without_vacuous_passes(
    empty_database: str, pgrecall_database: Database, by_id: ById
) -> None:
    checks = by_id(verify(empty_database))
    passed = {id_ for id_, check in checks.items() if check.status == "passed"}
    assert passed == {"TC-DB-002", "catalog-unknown"}


def test_a_role_that_may_only_read(pgrecall_database: Database, by_id: ById) -> None:
    checks = by_id(verify(pgrecall_database.role_dsn("readonly")))
    assert "permission denied" in checks["TC-DB-002"].evidence
    assert "insert on agent_episodes was refused" in checks["step-2"].evidence


def test_unknown_objects_are_a_note(pgrecall_database: Database, plant: Plant, by_id: ById) -> None:
    plant("""CREATE TABLE customers (id integer PRIMARY KEY);;
             CREATE FUNCTION twice(integer) RETURNS integer LANGUAGE sql AS 'SELECT $1 * 2';;
             ALTER TABLE agent_episodes ADD COLUMN mood text""")
    checks = verify(pgrecall_database.owner_dsn)
    assert exit_code(checks) == 0
    note = by_id(checks)["catalog-unknown"]
    assert note.status == "passed"
    for name in ("table customers", "function twice", "column agent_episodes.mood"):
        assert name in note.evidence
    assert "customers" in by_id(checks)["TC-DB-003"].evidence


def test_a_function_cannot_reach_real_rows(
    pgrecall_database: Database, plant: Plant, by_id: ById
) -> None:
    """However the function is written, and whatever its search_path, real sessions stay."""
    plant("INSERT INTO agent_working_memory (project_id) VALUES ('real'), ('real')")
    bodies = (
        "EXECUTE 'UPDATE pub' || 'lic.agent_working_memory SET is_active = false';",
        (
            "PERFORM set_config('transaction_read_only', 'off', true); "
            "DELETE FROM public.agent_working_memory;"
        ),
        "DELETE FROM other.journal;",
    )
    plant(
        "CREATE SCHEMA other;; CREATE TABLE other.journal (id integer);; "
        "GRANT ALL ON SCHEMA other TO {role}_owner;; GRANT ALL ON other.journal TO {role}_owner"
    )
    for body in bodies:
        plant(CLEANUP.format(body))
        check = by_id(verify(pgrecall_database.owner_dsn))["step-7"]
        assert check.status != "passed", body
    with psycopg.connect(pgrecall_database.admin_dsn) as connection:
        assert connection.execute(
            "SELECT count(*) FROM agent_working_memory WHERE is_active"
        ).fetchone() == (2,)


def test_a_function_with_a_search_path_of_its_own_is_run(
    pgrecall_database: Database, plant: Plant, by_id: ById
) -> None:
    plant("ALTER FUNCTION cleanup_expired_working_memory() SET search_path = public, pg_temp")
    plant("""CREATE OR REPLACE FUNCTION record_memory_operation(p_operation_type varchar,
             p_latency_ms integer, p_results_count integer, p_project_id varchar DEFAULT NULL)
             RETURNS void LANGUAGE sql SET search_path = public, pg_temp AS
             'INSERT INTO agent_memory_metrics (operation_type, latency_ms, results_count,
              project_id) VALUES ($1, $2, $3, $4)'""")
    check = by_id(verify(pgrecall_database.owner_dsn))
    assert check["step-7"].status == "passed", check["step-7"]
