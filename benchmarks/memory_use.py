"""What a client process gains in memory while it recalls and recalls."""

from __future__ import annotations

import statistics

import psutil

from benchmarks.comparing import LIMIT, Measure, Part
from benchmarks.stage import stage

ROWS = 1000
DIMENSIONS = 64
QUERIES = 1000
SETTLING = 0.1
"""Part of the recalls that comes first, while pools and caches fill."""

SAMPLES = 200


def memory_use(recalls: int) -> Part:
    """Measure the slope of the resident memory; every third recall is for one project."""
    settling = max(1, round(SETTLING * recalls))
    every = max(1, recalls // SAMPLES)
    process = psutil.Process()
    made: list[int] = []
    resident: list[float] = []
    with (
        stage(ROWS, DIMENSIONS) as ground,
        ground.filled(ROWS) as stored,
        stored.client() as memory,
    ):
        queries = stored.world.vectors(QUERIES, queries=True)
        recall = memory.episodes.recall
        for i in range(settling + recalls):
            query = queries[i % QUERIES]
            if i % 3:
                recall(embedding=query, limit=LIMIT)
            else:
                recall(embedding=query, limit=LIMIT, project_id=f"project-{i % 30}")
            if i >= settling and i % every == 0:
                made.append(i)
                resident.append(process.memory_info().rss / 1e6)
    slope = statistics.linear_regression(made, resident).slope * 100_000
    gained = resident[-1] - resident[0]
    return Part(
        name="memory",
        measures=[
            Measure(name="client memory, MB per 100,000 recalls", value=slope, target=1.0,
                    note=f"{recalls:,} recalls after {settling:,}: {gained:+.1f} MB in all")
        ],
        facts={"recalls": recalls, "made": made, "resident_mb": [round(r, 2) for r in resident]},
    )  # fmt: skip
