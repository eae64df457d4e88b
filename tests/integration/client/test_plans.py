"""The plans of statements that must stay fast on large tables."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg

from pgrecall import Memory
from pgrecall.sql import statement


def plan(connection: psycopg.Connection[Any], text: str, parameters: dict[str, Any]) -> str:
    rows = connection.execute("EXPLAIN " + text, parameters).fetchall()
    return "\n".join(row[0] for row in rows)


def test_what_stands_in_the_way_is_looked_up_by_index(
    memory: Memory, admin: psycopg.Connection[Any], make_episode: Any
) -> None:
    memory.episodes.record_many(
        [make_episode(external_id=f"e{i}") for i in range(2000)], embed="later"
    )
    admin.execute("ANALYZE agent_episodes")
    found = plan(
        admin,
        statement("episodes", "taken"),
        {"episode_ids": [uuid4()], "project_ids": ["apollo"], "external_ids": ["e7"]},
    )
    assert "Seq Scan on agent_episodes" not in found
    assert "uq_episodes_external_id" in found
    assert "agent_episodes_pkey" in found


def test_a_page_of_a_project_is_read_in_order_of_its_index(
    memory: Memory, admin: psycopg.Connection[Any], make_episode: Any
) -> None:
    memory.episodes.record_many(
        [make_episode(project_id=f"p{i % 50}") for i in range(3000)], embed="later"
    )
    admin.execute("ANALYZE agent_episodes")
    found = plan(
        admin, statement("episodes", "list", ("project_id",)), {"project_id": "p7", "limit": 11}
    )
    assert "idx_episodes_project_time" in found
