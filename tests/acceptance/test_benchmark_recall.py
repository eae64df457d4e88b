"""The benchmark of recall runs and prints every row; what it measures is people's to judge."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = (
    "recall / raw statement: p50",
    "recall / raw statement: p95",
    "recall weighing outcomes / raw LIMIT 30: p50",
    "recall@10, specification's index",
    "recall@10, specification's index, queries like nothing there is",
    "the same in bursts of 8: p50",
    *(
        f"filter to 1 %, {name}: p50 / exact"
        for name in ("project", "decision_source", "perception", "time")
    ),
    "through PgBouncer / direct: p50",
    "20 → 300 episodes: p50",
    "recall / faiss HNSW in process: p50",
    "recall@10, rebuilt, ef_search 400",
    "queries that found nothing right, rebuilt, ef_search 400",
    *(f"recall / {peer}: p50" for peer in ("LangGraph", "LangChain", "Chroma")),
    "recall / Chroma, filtered to 1 %: p50",
)
OF_EACH_PROJECT = (
    "recall@10",
    "results short",
    "p95 / unfiltered p95",
    "p95 / best single route",
)


def run(*options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.recall", *options],
        capture_output=True, text=True, timeout=250, check=False, cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr  # 1: a target was missed, which noise can do
    return done.stdout.partition("┏")[2]


def test_the_benchmark_of_recall_prints_every_row() -> None:
    # Peers are no dependencies of the tests: without them there is a row that says so.
    printed = run(
        "--rows", "300", "--rounds", "20", "--peers-rows", "100", "--rebuild",
        "--peers", "none",
    )  # fmt: skip
    for row in ROWS:
        assert row in printed
    for row in OF_EACH_PROJECT:
        assert printed.count(f" %: {row}") == 4
    assert "make bench" in printed


def test_the_memory_of_a_client_is_measured() -> None:
    printed = run("--memory", "--recalls", "300")
    assert "client memory, MB per 100,000 recalls" in printed
