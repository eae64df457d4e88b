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
TOPICS_OF_A_PROJECT = 3


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
        """Return unit vectors of shape ``(count, dimensions)``, of any topic.

        As queries they are new, and every third is of no topic at all.
        """
        rng, basis, topics = self._parts()
        if queries:
            rng = np.random.default_rng(self.seed + 1)
        chosen = topics[rng.integers(0, TOPICS, count)]
        near = chosen + 0.6 * rng.normal(size=(count, LATENT)).astype(np.float32)
        if queries:
            near[::3] = 1.2 * rng.normal(size=near[::3].shape).astype(np.float32)
        return _mixed(near, basis, rng)

    def about(self, topics: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return a unit vector near each of the topics, of shape ``(len(topics), dimensions)``."""
        _, basis, places = self._parts()
        near = places[topics] + 0.6 * rng.normal(size=(len(topics), LATENT)).astype(np.float32)
        return _mixed(near, basis, rng)

    def topics_of(self, project: int) -> NDArray[np.int64]:
        """Return the few topics that a project's episodes are of."""
        return np.random.default_rng((self.seed, project)).choice(TOPICS, TOPICS_OF_A_PROJECT)

    def projects(self, count: int) -> NDArray[np.int64]:
        """Return the project of each of ``count`` episodes; sizes fall as one over the rank."""
        sizes = 1.0 / np.arange(1, PROJECTS + 1)
        rng = np.random.default_rng(self.seed + 2)
        return rng.choice(PROJECTS, size=count, p=sizes / sizes.sum())

    def of_projects(self, projects: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return a vector of one of its project's topics for each, ``(len, dimensions)``."""
        rng = np.random.default_rng(self.seed + 3)
        known = np.stack([self.topics_of(project) for project in range(PROJECTS)])
        picked = rng.integers(0, TOPICS_OF_A_PROJECT, len(projects))
        return self.about(known[projects, picked], rng)

    def queries_of(self, project: int, count: int, *, own: bool) -> NDArray[np.float32]:
        """Return new vectors of the project's own topics, or of topics that it has not."""
        rng = np.random.default_rng((self.seed, project, own))
        mine = self.topics_of(project)
        choice = mine if own else np.setdiff1d(np.arange(TOPICS), mine)
        return self.about(rng.choice(choice, count), rng)

    def episodes(self, count: int, *, start: int = 0) -> Iterator[Mapping[str, Any]]:
        """Give episodes of about 1 KB with their vectors."""
        rng = np.random.default_rng(self.seed + 2 + start)
        projects = self.projects(count)
        for i, vector in enumerate(self.of_projects(projects)):
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


def _mixed(
    near: NDArray[np.float32], basis: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    mixed = near @ basis
    mixed += 0.05 * np.abs(mixed).mean() * rng.normal(size=mixed.shape).astype(np.float32)
    unit: NDArray[np.float32] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    return unit.astype(np.float32)
