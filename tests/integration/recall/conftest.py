"""Memories of several dimensions, filled with rows whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from pgrecall import Memory
from pgrecall.testing import Database, provisioned_template

SOURCES = 20
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Filled:
    """A memory and what is in it, row by row."""

    database: Database
    memory: Memory
    vectors: NDArray[np.float32]
    rows: list[dict[str, Any]]
    rng: np.random.Generator

    def nearest(
        self, query: NDArray[np.float32], matches: Callable[[dict[str, Any]], bool], limit: int
    ) -> list[str]:
        """Return the external ids of the nearest rows that match, by measuring all."""
        similar = self.vectors @ (query / np.linalg.norm(query))
        order = [int(i) for i in np.argsort(-similar) if matches(self.rows[int(i)])]
        return [str(self.rows[i]["external_id"]) for i in order[:limit]]

    def query(self, *, known: bool) -> NDArray[np.float32]:
        """Return a vector near one that is there, of whatever project, or like none."""
        noise: NDArray[np.float64] = self.rng.normal(size=(self.vectors.shape[1],))
        if not known:
            return noise.astype(np.float32)
        near = self.vectors[int(self.rng.integers(len(self.vectors)))]
        mixed: NDArray[np.float64] = near + noise / (2 * np.linalg.norm(noise))
        return mixed.astype(np.float32)


def make_rows(
    count: int, dimensions: int, rng: np.random.Generator, topics: int
) -> tuple[NDArray[np.float32], list[dict[str, Any]]]:
    """Return unit vectors around topics, and episodes in projects that differ a hundredfold."""
    centres = rng.normal(size=(topics, dimensions))
    projects = rng.choice(5, size=count, p=[0.6, 0.3, 0.08, 0.015, 0.005])
    # A project has topics of its own, so that its rows lie together.
    chosen = (projects * topics // 5 + rng.integers(0, max(1, topics // 5), count)) % topics
    raw = centres[chosen] + 0.7 * rng.normal(size=(count, dimensions))
    vectors = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
    rows = [
        {
            "project_id": f"p{projects[i]}",
            "agent_version": f"1.{i % 3}",
            "perception": {"n": i, "kind": f"k{i % 7}", "deep": {"x": i % 4}},
            "reasoning": {"because": i % 11},
            "action": {"do": i % 5},
            "outcome": {"ok": bool(i % 2)} if i % 3 else None,
            "outcome_quality": round((i % 100) / 100, 2) if i % 3 else None,
            "timestamp": BEGAN + timedelta(minutes=i),
            "decision_source": f"s{i % SOURCES}",
            "sprint_id": f"sprint-{i // 100}",
            "external_id": str(i),
            "embedding": vectors[i],
        }
        for i in range(count)
    ]
    return vectors, rows


def filled(database: Database, count: int, dimensions: int, *, topics: int = 25) -> Filled:
    rng = np.random.default_rng(dimensions)
    vectors, rows = make_rows(count, dimensions, rng, topics)
    memory = Memory.open(database.dsn, settings=database.settings)
    for start in range(0, count, 500):
        memory.episodes.record_many(rows[start : start + 500])
    with psycopg.connect(database.owner_dsn, autocommit=True) as owner:
        owner.execute("VACUUM (ANALYZE) agent_episodes, pgrecall.episode_codes")
    return Filled(database, memory, vectors, rows, rng)


@pytest.fixture(scope="package", params=[8, 64, 400], ids=lambda d: f"{d}-dimensions")
def world(
    request: pytest.FixtureRequest,
    pgrecall_admin_dsn: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Filled]:
    """3,000 episodes; tests that use it change nothing."""
    config = Path(tmp_path_factory.mktemp("recall"))
    dimensions = request.param
    with (
        provisioned_template(pgrecall_admin_dsn, config, dimensions) as template,
        template.clone() as database,
    ):
        there = filled(database, 3000, dimensions)
        with there.memory:
            yield there


@pytest.fixture
def small(pgrecall_database: Database) -> Iterator[Filled]:
    """600 episodes of a test's own."""
    there = filled(pgrecall_database, 600, 64)
    with there.memory:
        yield there
