"""What the tests of bursts share: a small memory whose index is always worth a walk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from pgrecall import Memory
from pgrecall.testing import Database

DIMENSIONS = 64
Vector = NDArray[np.float32]


def unit(rng: np.random.Generator) -> Vector:
    """Return a vector of length 1."""
    raw = rng.normal(size=DIMENSIONS)
    return (raw / np.linalg.norm(raw)).astype(np.float32)


def episode(number: int, vector: Vector | None, project: str = "p0", **more: Any) -> dict[str, Any]:
    """Return an episode under the external id of its number."""
    return {
        "project_id": project,
        "agent_version": "1",
        "perception": {"number": number, "word": f"uncommon{number}"},
        "reasoning": {},
        "action": {},
        "external_id": str(number),
        "embedding": vector,
        **more,
    }


@pytest.fixture
def memory(pgrecall_database: Database) -> Iterator[Memory]:
    with Memory.open(pgrecall_database.dsn, settings=pgrecall_database.settings) as opened:
        yield opened


@pytest.fixture
def owner(pgrecall_database: Database) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(pgrecall_database.owner_dsn, autocommit=True) as connection:
        yield connection


def counts(connection: psycopg.Connection[Any]) -> tuple[int, int]:
    """Return how many rows stand in the index's table, and how many beside it."""
    row = connection.execute(
        "SELECT (SELECT count(*) FROM ONLY agent_episodes), "
        "(SELECT count(*) FROM ONLY pgrecall.recent_episodes)"
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def merge_all(connection: psycopg.Connection[Any], batch: int = 100) -> int:
    """Merge until nothing is left; return how many rows it were."""
    merged = 0
    while True:
        row = connection.execute("SELECT pgrecall.merge_recent(%s)", [batch]).fetchone()
        assert row is not None
        assert row[0] is not None
        if row[0] == 0:
            return merged
        merged += int(row[0])
