"""What monitoring reads and writes in the database, and with which rights."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from tests.conftest import MakeEpisode

from pgrecall import Memory
from pgrecall.migrations import HEAD
from pgrecall.ops.provision import init
from pgrecall.testing import Database

VIEWS = (
    "memory_size",
    "memory_state",
    "vector_index_state",
    "operations",
    "learning_state",
    "knowledge_state",
    "task_status",
)
RUN = "SELECT pgrecall.record_run(%s, %s, %s, %s, p_finished_at => %s)"
PROBE = "SELECT * FROM pgrecall.probe_recall(%s)"


def rows(dsn: str, query: str, *values: object) -> list[dict[str, Any]]:
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
        return connection.execute(query, values or None).fetchall()


def row(dsn: str, query: str, *values: object) -> dict[str, Any]:
    (only,) = rows(dsn, query, *values)
    return only


def record(memory: Memory, make_episode: MakeEpisode, count: int) -> None:
    memory.episodes.record_many(
        [make_episode(perception={"backlog": i, "topic": f"t{i % 7}"}) for i in range(count)]
    )


def test_the_monitor_sees_every_view_and_no_row(pgrecall_database: Database) -> None:
    dsn = pgrecall_database.role_dsn("monitor")
    for view in VIEWS:
        rows(dsn, f"SELECT * FROM pgrecall.{view}")
    for table in ("agent_episodes", "agent_knowledge", "agent_working_memory"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            rows(dsn, f"SELECT 1 FROM {table}")
    for table in ("public.agent_memory_metrics", "pgrecall.task_runs"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            rows(dsn, f"SELECT 1 FROM {table}")


@pytest.mark.parametrize("role", ["readonly", "backup"])
def test_who_only_reads_writes_no_sample(pgrecall_database: Database, role: str) -> None:
    dsn = pgrecall_database.role_dsn(role)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        rows(dsn, "SELECT * FROM pgrecall.record_sample(1, 1)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        rows(dsn, PROBE, 1)


def test_what_waits_for_a_vector(
    pgrecall_database: Database, memory: Memory, make_episode: MakeEpisode
) -> None:
    dsn = pgrecall_database.role_dsn("monitor")
    query = "SELECT * FROM pgrecall.embeddings_waiting() ORDER BY table_name"
    assert [item["waiting"] for item in rows(dsn, query)] == [0, 0]
    since = datetime(2026, 5, 1, tzinfo=UTC)
    memory.episodes.record(**make_episode(timestamp=since), embed="later")
    memory.episodes.record(**make_episode())
    episodes, knowledge = rows(dsn, query)
    assert (episodes["table_name"], episodes["waiting"]) == ("agent_episodes", 1)
    assert timedelta(0) <= datetime.now(UTC) - episodes["oldest"] < timedelta(minutes=1)
    assert (knowledge["table_name"], knowledge["waiting"]) == ("agent_knowledge", 0)
    # What its embedder refuses waits for nobody.
    rows(pgrecall_database.owner_dsn,
         "UPDATE pgrecall.embedding_queue SET refused = 'no' RETURNING 1")  # fmt: skip
    assert [item["waiting"] for item in rows(dsn, query)] == [0, 0]


def test_sessions_whose_time_is_up_are_overdue_until_the_cleanup(
    pgrecall_database: Database, memory: Memory
) -> None:
    dsn = pgrecall_database.role_dsn("monitor")
    memory.sessions.open(project_id="apollo")
    expired = memory.sessions.open(project_id="apollo")
    rows(
        pgrecall_database.dsn,
        "UPDATE agent_working_memory SET expires_at = now() - interval '1 minute' "
        "WHERE session_id = %s RETURNING 1",
        expired.session_id,
    )
    query = "SELECT sessions_active, sessions_overdue, revision FROM pgrecall.memory_state"
    assert row(dsn, query) == {"sessions_active": 1, "sessions_overdue": 1, "revision": HEAD}
    rows(pgrecall_database.dsn, "SELECT cleanup_expired_working_memory()")
    assert row(dsn, query)["sessions_overdue"] == 0


def test_a_missing_and_a_broken_index_show(
    pgrecall_database: Database, admin: psycopg.Connection[Any]
) -> None:
    dsn = pgrecall_database.role_dsn("monitor")
    query = "SELECT index_name, usable FROM pgrecall.vector_index_state ORDER BY 1"
    assert [item["usable"] for item in rows(dsn, query)] == [True, True]
    admin.execute("DROP INDEX idx_knowledge_embedding")
    admin.execute(
        "UPDATE pg_index SET indisvalid = false "
        "WHERE indexrelid = 'idx_episodes_embedding'::regclass"
    )
    assert [item["usable"] for item in rows(dsn, query)] == [False, False]
    state = row(dsn, "SELECT invalid_indexes FROM pgrecall.memory_state")
    assert state["invalid_indexes"] == 1


def test_outcomes_and_knowledge_are_counted(
    pgrecall_database: Database, memory: Memory, make_episode: MakeEpisode
) -> None:
    dsn = pgrecall_database.role_dsn("monitor")
    made = [memory.episodes.record(**make_episode()) for _ in range(4)]
    memory.episodes.record_outcome(made[0].episode_id, outcome={"ok": True}, quality=0.5)
    memory.episodes.record_outcome(made[1].episode_id, quality=0.25)
    memory.knowledge.add(
        knowledge_type="pattern",
        description="small sprints end well",
        content={},
        supporting_episodes=[episode.episode_id for episode in made[:3]],
        confidence=0.75,
    )
    assert row(dsn, "SELECT * FROM pgrecall.learning_state") == {
        "episodes": 4,
        "episodes_with_outcome": 1,
        "outcomes": 2,
        "outcome_quality_sum": 0.75,
    }
    kinds = {
        item["knowledge_type"]: item for item in rows(dsn, "SELECT * FROM pgrecall.knowledge_state")
    }
    assert {name: item["active"] for name, item in kinds.items()} == {
        "strategy": 0,
        "pattern": 1,
        "constraint": 0,
        "heuristic": 0,
    }
    assert kinds["pattern"]["confidence_mean"] == 0.75
    assert kinds["strategy"]["confidence_mean"] is None


def test_a_sample_is_a_row_of_the_metrics(
    pgrecall_database: Database, memory: Memory, make_episode: MakeEpisode
) -> None:
    record(memory, make_episode, 3)
    dsn = pgrecall_database.role_dsn("monitor")
    told = row(dsn, "SELECT * FROM pgrecall.record_sample(512.5, 12.5)")
    assert told == {"episode_count": 3, "strategy_count": 0}
    (written,) = memory.metrics.list(operation_type="sample").items
    assert (written.memory_usage_mb, written.cpu_percent) == (512.5, 12.5)
    assert (written.episode_count, written.strategy_count) == (3, 0)


def test_a_probe_measures_the_index_against_the_truth(
    pgrecall_database: Database, memory: Memory, make_episode: MakeEpisode
) -> None:
    record(memory, make_episode, 1500)
    dsn = pgrecall_database.role_dsn("monitor")
    good = rows(dsn, PROBE, 12)
    assert [probe["results"] for probe in good] == [10] * 12
    # Together: such similar vectors make a graph in which a single search can go astray.
    found = [probe["recall_accuracy"] for probe in good]
    assert all(0 <= share <= 1 for share in found)
    assert sum(found) / len(found) > 0.5
    assert all(probe["duration_ms"] > 0 and probe["exact_ms"] > 0 for probe in good)
    # A query that was posed, of rows whose codes somebody lost: it finds none of them.
    with psycopg.connect(pgrecall_database.owner_dsn, autocommit=True) as owner:
        owner.execute("ANALYZE agent_episodes")
        owner.execute("DELETE FROM pgrecall.episode_codes WHERE project_id = 'apollo'")
        owner.execute(
            "INSERT INTO pgrecall.recall_samples (kind, query, wanted, filter, project_id) "
            "SELECT 'episodes', embedding, 10, '{\"project_id\": \"apollo\"}', 'apollo' "
            "FROM agent_episodes LIMIT 1"
        )
    (poor,) = rows(dsn, PROBE, 1)
    assert (poor["posed"], poor["route"]) == (True, "codes")
    assert (poor["results"], poor["recall_accuracy"]) == (0, 0)
    assert not any(probe["posed"] for probe in good)
    written = memory.metrics.list(operation_type="recall_similar").items
    # Those of one call have one time, and so no order.
    assert sorted(metric.recall_accuracy or 0 for metric in written) == sorted(
        probe["recall_accuracy"] for probe in (*good, poor)
    )
    health = row(pgrecall_database.dsn, "SELECT avg_recall_latency_ms FROM v_memory_system_health")
    assert health["avg_recall_latency_ms"] > 0


def test_a_probe_of_nothing_says_nothing(pgrecall_database: Database) -> None:
    assert rows(pgrecall_database.role_dsn("monitor"), PROBE, 3) == []


def test_a_probe_stops_when_its_budget_is_spent(
    pgrecall_database: Database, memory: Memory, make_episode: MakeEpisode
) -> None:
    record(memory, make_episode, 50)
    query = "SELECT * FROM pgrecall.probe_recall(1000, 10, 0.001)"
    assert len(rows(pgrecall_database.role_dsn("monitor"), query)) <= 1


@pytest.mark.parametrize("role", ["app", "backup", "owner"])
def test_runs_of_tasks_are_told_by_their_last_success(
    pgrecall_database: Database, role: str
) -> None:
    dsn = pgrecall_database.role_dsn(role)
    monitor = pgrecall_database.role_dsn("monitor")
    query = "SELECT * FROM pgrecall.task_status WHERE task = 'backup'"
    never = row(monitor, query)
    assert (never["last_success_at"], never["last_failed"]) == (None, False)
    start = datetime(2026, 5, 1, 3, tzinfo=UTC)
    row(dsn, RUN, "backup", start, True, 4096, start + timedelta(seconds=90))
    later = start + timedelta(days=1)
    row(dsn, RUN, "backup", later, False, None, later + timedelta(seconds=5))
    assert row(monitor, query) == {
        "task": "backup",
        "last_finished_at": later + timedelta(seconds=5),
        "last_failed": True,
        "last_success_at": start + timedelta(seconds=90),
        "last_success_seconds": 90.0,
        "last_success_bytes": 4096,
    }
    known = [item["task"] for item in rows(monitor, "SELECT task FROM pgrecall.task_status")]
    assert sorted(known) == ["backup", "restore_drill"]


def test_a_run_that_cannot_be_is_refused(pgrecall_database: Database) -> None:
    now = datetime.now(UTC)
    for task, started in (("Backup!", now), ("", now), ("backup", now + timedelta(hours=1))):
        with pytest.raises(psycopg.errors.CheckViolation):
            row(pgrecall_database.dsn, RUN, task, started, True, None, now)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        row(pgrecall_database.role_dsn("monitor"), RUN, "backup", now, True, None, now)
    assert rows(pgrecall_database.dsn, "SELECT 1 FROM pgrecall.task_runs") == []


def test_very_old_runs_are_forgotten(pgrecall_database: Database) -> None:
    old, now = datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC)
    row(pgrecall_database.dsn, RUN, "backup", old, True, None, old)
    row(pgrecall_database.dsn, RUN, "backup", now, True, None, now)
    count = row(pgrecall_database.dsn, "SELECT count(*) FROM pgrecall.task_runs")
    assert count == {"count": 1}


def test_the_embeddings_can_still_change_their_type(pgrecall_database: Database) -> None:
    for table in ("agent_episodes", "agent_knowledge"):
        with psycopg.connect(pgrecall_database.owner_dsn, autocommit=True) as connection:
            connection.execute(f"ALTER TABLE {table} ALTER COLUMN embedding TYPE vector(1024)")


def test_migrating_alone_gives_the_monitor_its_rights(
    pgrecall_database: Database, admin: psycopg.Connection[Any]
) -> None:
    from pgrecall.migrations import runner

    # As a database stood before monitoring came.
    admin.execute(
        "DROP VIEW pgrecall.memory_state, pgrecall.vector_index_state, pgrecall.operations, "
        "pgrecall.learning_state, pgrecall.knowledge_state, pgrecall.task_status"
    )
    there = "SELECT {} FROM {} WHERE {} = 'pgrecall'::regnamespace"
    for kind, query in (
        ("ROUTINE", there.format("oid::regprocedure", "pg_proc", "pronamespace")),
        ("TABLE", there.format("oid::regclass", "pg_class", "relnamespace") + " AND relkind = 'r'"),
        (
            "TYPE",
            there.format("reltype::regtype", "pg_class", "relnamespace") + " AND relkind = 'c'",
        ),
    ):
        for (name,) in admin.execute(query.encode()).fetchall():
            if name != "pgrecall.alembic_version":
                admin.execute(f"DROP {kind} IF EXISTS {name} CASCADE".encode())
    admin.execute("DROP INDEX idx_memory_metrics_accuracy")
    admin.execute("DELETE FROM schema_version WHERE version > '1.1.0'")
    admin.execute("UPDATE pgrecall.alembic_version SET version_num = '1.1.0'")
    # The copy belongs to the superuser's role of the template, after which roles are named.
    assert runner.upgrade(pgrecall_database.owner_dsn, dimensions=64) == [
        "1.2.0",
        "1.3.0",
        "1.4.0",
        "1.5.0",
        "1.6.0",
        "1.7.0",
        "1.8.0",
    ]
    dsn = pgrecall_database.role_dsn("monitor")
    for view in VIEWS:
        rows(dsn, f"SELECT * FROM pgrecall.{view}")
    rows(dsn, "SELECT * FROM pgrecall.record_sample(NULL, NULL)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        rows(pgrecall_database.dsn, "DELETE FROM pgrecall.task_runs")


def test_provisioning_again_has_nothing_to_add(pgrecall_database: Database, admin_dsn: str) -> None:
    settings = pgrecall_database.settings
    report = init(admin_dsn, database=settings.database, settings=settings, dry_run=True)
    assert [step for step in report.steps if step.state != "unchanged"] == []
