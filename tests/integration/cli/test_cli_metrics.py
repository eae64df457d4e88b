"""``pgrecall metrics prune``."""

from __future__ import annotations

import psycopg
import pytest
from tests.integration.cli.conftest import EMBEDDER, Run

from pgrecall.testing import Database


@pytest.mark.parametrize(("days", "left"), [("7", 1), ("0", 2), ("100", 2)])
def test_old_metrics_go(run: Run, pgrecall_database: Database, days: str, left: int) -> None:
    with psycopg.connect(pgrecall_database.owner_dsn) as connection:
        connection.execute(
            "INSERT INTO agent_memory_metrics (operation_type, latency_ms, timestamp)"
            " VALUES ('recall_similar', 1, now() - interval '9 days'), ('recall_similar', 1, now())"
        )
    said = run(
        "metrics", "prune", "--keep-days", days, "--json",
        PGRECALL_DSN=pgrecall_database.dsn, PGRECALL_EMBEDDER=EMBEDDER, PGRECALL_METRICS="false",
    ).data  # fmt: skip
    assert said == {"deleted": 2 - left, "keep_days": float(days)}
    with psycopg.connect(pgrecall_database.owner_dsn) as connection:
        row = connection.execute("SELECT count(*) FROM agent_memory_metrics").fetchone()
    assert row == (left,)
