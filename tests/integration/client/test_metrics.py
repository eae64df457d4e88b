"""Metrics: written in the background, exact, and never in the way of a caller."""

from __future__ import annotations

import logging
import time
from typing import Any

import psycopg
import pytest

from pgrecall import Memory, errors
from pgrecall._sync import metrics as metrics_module
from pgrecall.config import load_settings
from pgrecall.testing import Database, HashEmbedder


def test_every_operation_is_measured(memory: Memory, make_episode: Any) -> None:
    episode = memory.episodes.record(**make_episode())
    for _ in range(3):
        memory.episodes.recall("backlog", project_id="apollo")
    memory.episodes.record_outcome(episode.episode_id, quality=1)
    assert memory.metrics.flush() == 5
    rows = memory.metrics.list(operation_type="recall_similar")
    assert len(rows) == 3
    for row in rows:
        assert row.duration_ms is not None
        assert row.latency_ms is not None
        assert 0 < row.duration_ms <= row.latency_ms < row.duration_ms + 1
        assert row.results_count == 1
        assert row.project_id == "apollo"
    assert set(memory.metrics.summary()) == {"record_episode", "recall_similar", "record_outcome"}
    assert memory.metrics.summary(operation_type="recall_similar")["recall_similar"].count == 3
    assert memory.metrics.summary(project_id="gemini") == {}


def test_the_health_view_sees_our_recalls(
    memory: Memory, make_episode: Any, admin: psycopg.Connection[Any]
) -> None:
    memory.episodes.record(**make_episode())
    memory.episodes.recall("backlog")
    memory.metrics.flush()
    row = admin.execute(
        "SELECT total_episodes, avg_recall_latency_ms FROM v_memory_system_health"
    ).fetchone()
    assert row is not None
    assert row[0] == 1
    assert row[1] >= 1


def test_metrics_are_written_without_asking(
    pgrecall_database: Database, monkeypatch: pytest.MonkeyPatch, pgrecall_embedder: Any
) -> None:
    monkeypatch.setattr(metrics_module, "FLUSH_SECONDS", 0.1)
    with (
        Memory.open(
            pgrecall_database.dsn, embedder=pgrecall_embedder, settings=pgrecall_database.settings
        ) as memory,
        psycopg.connect(pgrecall_database.admin_dsn, autocommit=True) as admin,
    ):
        memory.episodes.recall("x")
        deadline = time.monotonic() + 10
        while admin.execute("SELECT count(*) FROM agent_memory_metrics").fetchone() == (0,):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_closing_writes_what_waits(pgrecall_database: Database, pgrecall_embedder: Any) -> None:
    with Memory.open(
        pgrecall_database.dsn, embedder=pgrecall_embedder, settings=pgrecall_database.settings
    ) as memory:
        memory.episodes.recall("x")
    with psycopg.connect(pgrecall_database.admin_dsn) as admin:
        assert admin.execute("SELECT count(*) FROM agent_memory_metrics").fetchone() == (1,)


def test_metrics_can_be_switched_off(pgrecall_database: Database, pgrecall_embedder: Any) -> None:
    settings = load_settings(config_dir=pgrecall_database.settings.config_dir, metrics=False)
    with Memory.open(
        pgrecall_database.dsn, embedder=pgrecall_embedder, settings=settings
    ) as memory:
        memory.episodes.recall("x")
        assert memory.metrics.summary() == {}


def test_a_failure_to_write_them_reaches_nobody_but_is_told(
    memory: Memory, admin: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    admin.execute("ALTER TABLE agent_memory_metrics RENAME TO elsewhere")
    memory.episodes.recall("x")
    with caplog.at_level(logging.WARNING, "pgrecall"):
        assert memory.metrics.flush() == 0
    assert memory.metrics.lost == 1
    assert "1 metrics could not be written" in caplog.text
    assert memory.episodes.recall("x") == []


def test_what_cannot_be_kept_is_counted(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "KEPT_ROWS", 2)
    for _ in range(5):
        memory.episodes.recall("x")
    assert memory.metrics.lost == 3


def test_retention(memory: Memory, admin: psycopg.Connection[Any]) -> None:
    admin.execute(
        "INSERT INTO agent_memory_metrics (operation_type, timestamp) "
        "VALUES ('old', now() - interval '40 days'), ('new', now())"
    )
    assert memory.metrics.prune(keep=30 * 86_400) == 1
    assert [row.operation_type for row in memory.metrics.list()] == ["new"]
    with pytest.raises(errors.InvalidInput, match="keep is"):
        memory.metrics.prune(keep=0)


def test_old_metrics_go_by_themselves(
    pgrecall_database: Database, monkeypatch: pytest.MonkeyPatch, admin: psycopg.Connection[Any]
) -> None:
    monkeypatch.setattr(metrics_module, "FLUSH_SECONDS", 0.1)
    monkeypatch.setattr(metrics_module, "PRUNE_ROWS", 2)
    admin.execute(
        "INSERT INTO agent_memory_metrics (operation_type, timestamp) "
        "SELECT 'old', now() - interval '8 days' FROM generate_series(1, 5) "
        "UNION ALL SELECT 'new', now()"
    )
    settings = load_settings(config_dir=pgrecall_database.settings.config_dir, metrics_keep_days=7)
    with Memory.open(pgrecall_database.dsn, embedder=HashEmbedder(), settings=settings):
        deadline = time.monotonic() + 10
        while admin.execute("SELECT count(*) FROM agent_memory_metrics").fetchone() != (1,):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_rows_of_other_clients_count_in_the_summary(
    memory: Memory, admin: psycopg.Connection[Any]
) -> None:
    admin.execute("SELECT record_memory_operation('recall_similar', 7, 3, 'apollo')")
    summary = memory.metrics.summary()["recall_similar"]
    assert (summary.count, summary.mean_ms) == (1, 7.0)
