"""Vectors and documents with the structure of real ones.

Embeddings lie near topics in few dimensions, projects differ in size by orders of magnitude, and
queries are new: a third of them like nothing that their project has seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LATENT = 64
TOPICS = 200
PROJECTS = 1000


@dataclass(frozen=True, slots=True)
class World:
    """A seeded source of episodes and queries."""

    dimensions: int
    seed: int = 11

    def _parts(self) -> tuple[np.random.Generator, NDArray[np.float32], NDArray[np.float32]]:
        rng = np.random.default_rng(self.seed)
        basis = rng.normal(size=(LATENT, self.dimensions)).astype(np.float32)
        topics = rng.normal(size=(TOPICS, LATENT)).astype(np.float32)
        return rng, basis, topics

    def vectors(self, count: int, *, queries: bool = False) -> NDArray[np.float32]:
        """Return unit vectors of shape ``(count, dimensions)``."""
        rng, basis, topics = self._parts()
        if queries:
            rng = np.random.default_rng(self.seed + 1)
        chosen = topics[rng.integers(0, TOPICS, count)]
        near = chosen + 0.6 * rng.normal(size=(count, LATENT)).astype(np.float32)
        if queries:
            near[::3] = 1.2 * rng.normal(size=near[::3].shape).astype(np.float32)
        mixed = near @ basis
        mixed += 0.05 * np.abs(mixed).mean() * rng.normal(size=mixed.shape).astype(np.float32)
        unit: NDArray[np.float32] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
        return unit.astype(np.float32)

    def episodes(self, count: int, *, start: int = 0) -> Iterator[Mapping[str, Any]]:
        """Give episodes of about 1 KB with their vectors."""
        rng = np.random.default_rng(self.seed + 2 + start)
        sizes = 1.0 / np.arange(1, PROJECTS + 1)
        projects = rng.choice(PROJECTS, size=count, p=sizes / sizes.sum())
        for i, vector in enumerate(self.vectors(count)):
            yield {
                "project_id": f"project-{projects[i]}",
                "agent_version": "1.0.0",
                "perception": {
                    "backlog_tasks": int(rng.integers(1, 60)),
                    "team_size": int(rng.integers(2, 12)),
                    "velocity_last_3": [int(v) for v in rng.integers(10, 60, 3)],
                    "notes": " ".join(f"word{int(w)}" for w in rng.integers(0, 999, 60)),
                },
                "reasoning": {"decision": "create_sprint", "why": "x" * 200},
                "action": {"committed_points": int(rng.integers(5, 60)), "plan": "y" * 150},
                "embedding": vector,
            }
