"""The benchmark of retrieval runs in a short form, and finds what it should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = (
    "planted tokens found first",
    "planted tokens found first, misspelt by one edit",
    "hybrid / vector recall: p50",
    "hybrid / vector recall, the vector given: p50",
    "LoCoMo: R@5, hybrid / the better of words and vectors",
    "LoCoMo, facts: NDCG@10",
    "LoCoMo, summaries: R@10",
)


@pytest.mark.eval_data
def test_the_benchmark_of_retrieval_runs(eval_data: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.retrieval", "--rows", "1000", "--tokens", "60",
         "--rounds", "30", "--conversations", "1"],
        capture_output=True, text=True, timeout=280, check=False, cwd=ROOT,
        env={**os.environ, "COLUMNS": "300", "PGRECALL_EVAL_DATA": str(eval_data)},
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr  # 1: a target was missed, which noise can do
    for row in ROWS:
        assert row in done.stdout
    assert "record with words / without, the vector given," in done.stdout
    found = dict(re.findall(r"^(LoCoMo: \S+|planted tokens found first\S*): ([0-9.]+)", done.stdout,
                            re.MULTILINE))  # fmt: skip
    # What one conversation gives is no target, but a fall below this is no noise.
    assert float(found["LoCoMo: R@5"]) > 0.57
    assert float(found["LoCoMo: NDCG@10"]) > 0.5
    assert float(found["planted tokens found first"]) > 0.9
