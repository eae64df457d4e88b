"""``doctor`` finds and names a fault that was really planted, and says how to mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest

from pgrecall.errors import Unavailable
from pgrecall.ops.checks import Check, exit_code
from pgrecall.ops.doctor import CHECKS, doctor
from pgrecall.testing import Database

Plant = Callable[[str], None]
ById = Callable[[list[Check]], dict[str, Check]]
DIMENSIONS = 64
VECTOR = "array_fill(0.5::real, ARRAY[64])::vector"
EPISODES = """INSERT INTO agent_episodes (project_id, perception, reasoning, action,
agent_version) SELECT 'real', '{}', '{}', '{}', '1' FROM generate_series(1, %d)"""

# What makes the fault, the check that sees it, its status, and words of evidence and remedy.
FAULTS: dict[str, tuple[str, str, str, list[str]]] = {
    "index invalid": (
        (
            "UPDATE pg_index SET indisvalid = false "
            "WHERE indexrelid = 'idx_working_memory_user'::regclass"
        ),
        "invalid-indexes",
        "failed",
        ["public.idx_working_memory_user", "REINDEX INDEX CONCURRENTLY"],
    ),
    "vector index missing": (
        "DROP INDEX idx_knowledge_embedding",
        "vector-indexes",
        "failed",
        ["missing: public.idx_knowledge_embedding", "CREATE INDEX CONCURRENTLY"],
    ),
    "third vector index": (
        "CREATE INDEX idx_third ON agent_episodes USING hnsw (embedding vector_ip_ops)",
        "vector-indexes",
        "failed",
        ["2 HNSW indexes", "idx_third", "DROP INDEX CONCURRENTLY public.idx_third"],
    ),
    "synchronous_commit off": (
        "ALTER DATABASE {database} SET synchronous_commit = off",
        "durability",
        "warning",
        ["synchronous_commit = off", "SET synchronous_commit = on"],
    ),
    "maintenance_work_mem beyond shared memory": (
        "ALTER DATABASE {database} SET maintenance_work_mem = '2047GB'",
        "shared-memory",
        "warning",
        ["maintenance_work_mem = 2.0 TB", "free in /dev/shm", "max_parallel_maintenance_workers"],
    ),
    "random reads dear": (
        "ALTER DATABASE {database} SET random_page_cost = 4",
        "random-page-cost",
        "passed",
        ["note: random_page_cost = 4", "SET random_page_cost = 1.1"],
    ),
    "app too powerful": (
        (
            "ALTER ROLE {role}_app SUPERUSER CREATEROLE BYPASSRLS;; "
            "ALTER ROLE {role}_monitor CREATEDB"
        ),
        "role-power",
        "failed",
        [
            "_app is superuser",
            "_app is allowed to create roles",
            "_app is above row-level security",
            "_monitor is allowed to create databases",
            "NOSUPERUSER",
            "NOCREATEDB",
        ],
    ),
    "readonly creates": (
        "GRANT CREATE ON SCHEMA public TO {role}_readonly",
        "role-power",
        "failed",
        ["_readonly may create objects in schema public", "REVOKE CREATE ON SCHEMA public"],
    ),
    "readonly owns": (
        "ALTER TABLE schema_version OWNER TO {role}_readonly",
        "role-power",
        "failed",
        ["_readonly owns public.schema_version", "ALTER TABLE public.schema_version OWNER TO"],
    ),
    "everybody reads": (
        "GRANT SELECT ON agent_knowledge TO PUBLIC",
        "public-rights",
        "failed",
        ["SELECT on public.agent_knowledge", "REVOKE SELECT ON public.agent_knowledge FROM PUBLIC"],
    ),
    "everybody creates": (
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "public-rights",
        "failed",
        ["CREATE on schema public", "REVOKE CREATE ON SCHEMA public FROM PUBLIC"],
    ),
    "role setting missing": (
        "ALTER ROLE {role}_app IN DATABASE {database} RESET hnsw.iterative_scan",
        "role-settings",
        "warning",
        ["_app lacks hnsw.iterative_scan", "pgrecall init"],
    ),
    "statistics missing": (
        EPISODES % 200 + ";; SELECT pg_stat_force_next_flush()",
        "statistics",
        "warning",
        ["public.agent_episodes was never analyzed (200 rows)", "ANALYZE public.agent_episodes"],
    ),
    "statistics stale": (
        (
            "INSERT INTO agent_memory_metrics (latency_ms) SELECT 1 FROM generate_series(1, 100)"
            ";; SELECT pg_stat_force_next_flush();; ANALYZE agent_memory_metrics;; "
            "INSERT INTO agent_memory_metrics (latency_ms) "
            "SELECT 1 FROM generate_series(1, 2000);; SELECT pg_stat_force_next_flush()"
        ),
        "statistics",
        "warning",
        ["public.agent_memory_metrics changed by 2000 rows", "ANALYZE public.agent_memory_metrics"],
    ),
    "dead rows": (
        (
            "INSERT INTO agent_working_memory (project_id) SELECT 'x' FROM "
            "generate_series(1, 1500);; DELETE FROM agent_working_memory;; "
            "SELECT pg_stat_force_next_flush()"
        ),
        "dead-rows",
        "warning",
        ["public.agent_working_memory: 1500 dead rows", "VACUUM (ANALYZE)"],
    ),
    "dimensions differ": (
        "ALTER TABLE agent_knowledge ALTER COLUMN embedding TYPE vector(32)",
        "dimensions",
        "failed",
        ["agent_knowledge.embedding vector(32)", "agent_episodes.embedding vector(64)"],
    ),
    "old evidence check": (
        (
            "ALTER TABLE agent_knowledge DROP CONSTRAINT chk_min_supporting_episodes;; "
            "ALTER TABLE agent_knowledge ADD CONSTRAINT chk_min_supporting_episodes "
            "CHECK (array_length(supporting_episodes, 1) >= 3);; INSERT INTO agent_knowledge "
            "(knowledge_id, knowledge_type, content, description) SELECT "
            "('00000000-0000-4000-8000-00000000000' || i)::uuid, 'strategy', '{}', 'x' "
            "FROM generate_series(1, 7) AS i"
        ),
        "evidence",
        "warning",
        [
            "7 (00000000-0000-4000-8000-000000000001,",
            "000000000005 and 2 more)",
            "array_length(supporting_episodes, 1) >= 3",
            "is_active = false",
        ],
    ),
    "evidence deleted": (
        (
            "INSERT INTO agent_knowledge (knowledge_id, knowledge_type, content, description, "
            "supporting_episodes) VALUES ('00000000-0000-4000-8000-0000000000aa', 'strategy', "
            "'{}', 'x', ARRAY[gen_random_uuid(), gen_random_uuid(), gen_random_uuid()])"
        ),
        "dangling-evidence",
        "warning",
        ["00000000-0000-4000-8000-0000000000aa", "pgrecall knowledge retire"],
    ),
    "revision unknown": (
        "UPDATE pgrecall.alembic_version SET version_num = '99.0.0'",
        "revision",
        "failed",
        ["99.0.0", "upgrade pgrecall"],
    ),
    "schema_version differs": (
        "DELETE FROM schema_version WHERE version = '1.1.0'",
        "schema-version",
        "failed",
        ["schema_version says 1.0.0", "INSERT what is missing"],
    ),
    "weak encryption of new passwords": (
        "ALTER DATABASE {database} SET password_encryption = 'md5'",
        "passwords",
        "warning",
        ["password_encryption = md5", "scram-sha-256"],
    ),
    "extension behind": (
        "UPDATE pg_extension SET extversion = '0.8.3' WHERE extname = 'vector'",
        "extension-updates",
        "warning",
        ["vector is at 0.8.3", 'ALTER EXTENSION "vector" UPDATE'],
    ),
    "pgvector with faults in vacuum": (
        "UPDATE pg_extension SET extversion = '0.8.3' WHERE extname = 'vector'",
        "pgvector-version",
        "warning",
        ["pgvector 0.8.3 has faults in vacuum", "ALTER EXTENSION vector UPDATE"],
    ),
    "optional extension dropped": (
        "DROP EXTENSION pg_trgm CASCADE",
        "optional-extensions",
        "passed",
        ["note: pg_trgm", 'CREATE EXTENSION "pg_trgm"'],
    ),
    "collation changed": (
        "UPDATE pg_database SET datcollversion = '0.1' WHERE datname = current_database()",
        "collation",
        "failed",
        ["version 0.1", "REINDEX DATABASE", "REFRESH COLLATION VERSION"],
    ),
    "revision behind": (
        "UPDATE pgrecall.alembic_version SET version_num = '1.0.0'",
        "revision",
        "failed",
        ["at revision 1.0.0", "needs", "pgrecall migrate"],
    ),
    "never provisioned": (
        "DROP TABLE pgrecall.alembic_version CASCADE",
        "revision",
        "failed",
        ["tables made by hand", "pgrecall init"],
    ),
    "knowledge missing": (
        "DROP TABLE agent_knowledge CASCADE",
        "evidence",
        "failed",
        ["agent_knowledge is missing", "pgrecall verify"],
    ),
}

# Faults that don't hide each other share a database.
TOGETHER = (
    (
        "index invalid",
        "vector index missing",
        "third vector index",
        "synchronous_commit off",
        "maintenance_work_mem beyond shared memory",
        "random reads dear",
        "app too powerful",
        "everybody reads",
        "role setting missing",
        "statistics missing",
        "old evidence check",
        "revision unknown",
        "extension behind",
        "pgvector with faults in vacuum",
        "optional extension dropped",
        "weak encryption of new passwords",
    ),
    (
        "readonly creates",
        "readonly owns",
        "everybody creates",
        "statistics stale",
        "dead rows",
        "dimensions differ",
        "evidence deleted",
        "schema_version differs",
    ),
    ("revision behind",),
    ("never provisioned", "knowledge missing"),
)
MEND = """ALTER ROLE {role}_app NOSUPERUSER NOCREATEROLE NOBYPASSRLS;;
ALTER ROLE {role}_monitor NOCREATEDB"""


@pytest.fixture
def quiet(plant: Plant) -> Iterator[None]:
    """Keep autovacuum from mending what is planted, and take power back that roles were given."""
    for table in ("episodes", "knowledge", "working_memory", "memory_metrics"):
        plant(f"ALTER TABLE agent_{table} SET (autovacuum_enabled = false)")
    yield
    plant(MEND)


def examine(database: Database, *, dimensions: int | None = DIMENSIONS) -> list[Check]:
    return doctor(database.admin_dsn, settings=database.settings, embedder_dimensions=dimensions)


def test_healthy_database(pgrecall_database: Database, plant: Plant, by_id: ById) -> None:
    plant("VACUUM ANALYZE")
    for dsn in (pgrecall_database.owner_dsn, pgrecall_database.admin_dsn):
        checks = doctor(dsn, settings=pgrecall_database.settings, embedder_dimensions=DIMENSIONS)
        found = by_id(checks)
        assert list(found) == [id_ for id_, _, _ in CHECKS]
        # Of the server itself, which may be anyone's, only what a database decides is asserted.
        for id_ in (
            "connection", "server-version", "pgvector-version", "role-power", "public-rights",
            "role-settings", "revision", "schema-version", "invalid-indexes", "vector-indexes",
            "dimensions", "statistics", "dead-rows", "evidence", "dangling-evidence",
        ):  # fmt: skip
            assert found[id_].status == "passed", found[id_]
    assert "cannot be seen" in by_id(
        doctor(pgrecall_database.owner_dsn, settings=pgrecall_database.settings,
               embedder_dimensions=None)
    )["passwords"].evidence  # fmt: skip


def test_every_fault_is_planted() -> None:
    grouped = [name for group in TOGETHER for name in group]
    assert sorted([*grouped, "collation changed"]) == sorted(FAULTS)


@pytest.mark.parametrize("faults", TOGETHER, ids=lambda group: group[0].replace(" ", "-"))
@pytest.mark.usefixtures("quiet")
def test_faults_are_named(
    faults: tuple[str, ...], pgrecall_database: Database, plant: Plant, by_id: ById
) -> None:
    for fault in faults:
        plant(FAULTS[fault][0].replace("{database}", pgrecall_database.name))
    found = by_id(examine(pgrecall_database))
    for fault in faults:
        _assert_named(found, fault)


def test_collation(pgrecall_database: Database, plant: Plant, by_id: ById) -> None:
    statements = FAULTS["collation changed"][0]
    with psycopg.connect(pgrecall_database.admin_dsn) as connection:
        (recorded,) = connection.execute(
            "SELECT datcollversion FROM pg_database WHERE datname = current_database()"
        ).fetchone() or (None,)
    if recorded is None:
        assert "no version" in by_id(examine(pgrecall_database))["collation"].evidence
        return
    plant(statements)
    _assert_named(by_id(examine(pgrecall_database)), "collation changed")


def _assert_named(found: dict[str, Check], fault: str) -> None:
    _, id_, status, words = FAULTS[fault]
    check = found[id_]
    assert check.status == status, (fault, check)
    assert check.remedy, (fault, check)
    for word in words:
        assert word in f"{check.evidence} | {check.remedy}", (fault, check)


def test_embedder_of_another_dimension(pgrecall_database: Database, by_id: ById) -> None:
    checks = examine(pgrecall_database, dimensions=384)
    check = by_id(checks)["dimensions"]
    assert check.status == "failed"
    assert "384 dimensions" in check.evidence
    assert "PGRECALL_EMBEDDER" in str(check.remedy)
    assert exit_code(checks) == 1


def test_weak_password(pgrecall_database: Database, plant: Plant, by_id: ById) -> None:
    role = f"{pgrecall_database.name}_weak"
    plant(f"SET password_encryption = 'md5';; CREATE ROLE {role} LOGIN PASSWORD 'x'")
    try:
        check = by_id(examine(pgrecall_database))["passwords"]
    finally:
        plant(f"DROP ROLE {role}")
    assert check.status == "failed"
    assert role in check.evidence


def test_empty_database(empty_database: str, pgrecall_database: Database, by_id: ById) -> None:
    checks = by_id(
        doctor(empty_database, settings=pgrecall_database.settings, embedder_dimensions=None)
    )
    assert "no agent memory" in checks["revision"].evidence
    assert checks["pgvector-version"].status == "failed"
    assert checks["dimensions"].status == "failed"
    assert checks["role-power"].status == "not configured"


def test_changes_nothing(pgrecall_database: Database) -> None:
    """Its transaction is read-only, so a statement that would write could not run."""
    with psycopg.connect(pgrecall_database.admin_dsn) as connection:
        query = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables"
        before = connection.execute(query).fetchone()
        connection.commit()
        examine(pgrecall_database)
        assert connection.execute(query).fetchone() == before


def test_no_server(pgrecall_database: Database) -> None:
    with pytest.raises(Unavailable) as caught:
        doctor(
            "host=127.0.0.1 port=1 user=x password=secret-word",
            settings=pgrecall_database.settings,
            embedder_dimensions=None,
        )
    assert "secret-word" not in str(caught.value)
