"""The way of the tests' clients is the one that was asked for, in either run."""

from __future__ import annotations

import psycopg
from tests.conftest import POOLED

from pgrecall import Memory
from pgrecall.driver import is_pooled
from pgrecall.testing import Database


def test_clients_go_the_way_that_was_asked_for(memory: Memory, pgrecall_database: Database) -> None:
    assert memory.episodes._database.facts.pooled is POOLED
    ways = {role: pgrecall_database.role_dsn(role) for role in ("app", "readonly", "monitor")}
    for dsn in (*ways.values(), pgrecall_database.dsn):
        assert leads_through_a_pooler(dsn) is POOLED
    for dsn in (pgrecall_database.owner_dsn, pgrecall_database.admin_dsn):
        assert not leads_through_a_pooler(dsn)


def leads_through_a_pooler(dsn: str) -> bool:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        return is_pooled(connection, row[0])
