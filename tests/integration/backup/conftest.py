"""A memory with rows in it, and a directory for its backups."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pgrecall.ops import backup
from pgrecall.testing import Database

EPISODES = 200

# A server of one's own: the vectors come from the database, so that no model is needed.
FILL = """
INSERT INTO agent_episodes (project_id, perception, reasoning, action, agent_version, embedding,
                            outcome_quality)
SELECT 'p' || i %% 3, jsonb_build_object('n', i, 'text', repeat('ä', i %% 50)), '{"why": null}',
       jsonb_build_array(i, 1.5, 'x'), '1.0',
       CASE WHEN i %% 10 > 0 THEN (SELECT array_agg(random() - 0.5)::vector
                                    FROM generate_series(1, 64) WHERE i > 0) END,
       CASE WHEN i %% 2 = 0 THEN i / %(episodes)s::float END
  FROM generate_series(1, %(episodes)s) AS i
"""


@pytest.fixture
def filled(pgrecall_database: Database) -> Database:
    """A database with episodes, a session and a strategy."""
    with psycopg.connect(pgrecall_database.owner_dsn) as connection:
        connection.execute(FILL, {"episodes": EPISODES})
        connection.execute(
            "INSERT INTO agent_working_memory (project_id, session_id, expires_at)"
            " VALUES ('p0', gen_random_uuid(), now() + interval '1 day')"
        )
        connection.execute(
            "INSERT INTO agent_knowledge (knowledge_type, content, description,"
            " supporting_episodes, embedding)"
            " SELECT 'strategy', '{\"do\": \"less\"}', 'do less', array_agg(episode_id),"
            " (SELECT embedding FROM agent_episodes WHERE embedding IS NOT NULL LIMIT 1)"
            " FROM (SELECT episode_id FROM agent_episodes LIMIT 3) AS three"
        )
    return pgrecall_database


@pytest.fixture
def location(tmp_path: Path) -> str:
    return str(tmp_path / "backups")


Create = Callable[..., backup.CreateReport]


@pytest.fixture
def create(location: str) -> Create:
    """Back a database up as its backup role."""

    def run(database: Database, **options: Any) -> backup.CreateReport:
        request = backup.BackupRequest(
            **{"dsn": database.role_dsn("backup"), "location": location, **options}
        )
        return backup.create(request, settings=database.settings)

    return run


Drill = Callable[..., backup.DrillReport]


@pytest.fixture
def drill(location: str) -> Drill:
    """Restore a backup for trial on the test's own server."""

    def run(database: Database, **options: Any) -> backup.DrillReport:
        request = backup.DrillRequest(
            **{
                "location": location,
                "source_dsn": database.role_dsn("backup"),
                "scratch": "database",
                "admin_dsn": database.admin_dsn,
                **options,
            }
        )
        return backup.drill(request, settings=database.settings)

    return run


def failures(report: backup.DrillReport) -> dict[str, str]:
    return {check.id: check.evidence for check in report.checks if check.status == "failed"}


def databases(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        return {row[0] for row in connection.execute("SELECT datname FROM pg_database")}


@pytest.fixture
def new_name(admin_dsn: str) -> Iterator[str]:
    """The name of a database to come, which is dropped afterwards."""
    name = f"again_{secrets.token_hex(4)}"
    yield name
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )


def file_of(location: str, report: backup.CreateReport) -> Path:
    return Path(location) / report.manifest.name / report.manifest.memory.file
