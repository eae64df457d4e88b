"""The benchmark of bursts runs, and finds what it wrote; the ratios are people's to judge."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_benchmark_of_bursts_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bursting", "--rows", "600", "--burst", "500",
         "--rounds", "10"],
        capture_output=True, text=True, timeout=250, check=False, cwd=ROOT, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "0 of 100 recent rows were not found" in done.stdout
    for measure in ("burst / plain", "burst under way", "500 recent", "merging"):
        assert measure in done.stdout
