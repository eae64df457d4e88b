"""The benchmark of observing runs, and finds everything observed; the cost is people's to judge."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_benchmark_of_observing_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.observing", "--rows", "60", "--rounds", "40"],
        capture_output=True, text=True, timeout=250, check=False, cwd=ROOT, env={**os.environ},
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr  # 1: a target was missed, which noise can do
    assert "everything on costs at most 5%" in done.stdout
    for way in ("everything off", "metric rows", "Prometheus", "JSON"):
        assert way in done.stdout
