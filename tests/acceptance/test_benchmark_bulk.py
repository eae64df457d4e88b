"""The benchmark of bulk imports runs in its short form; the ratios are people's to judge."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_benchmark_of_bulk_imports_runs() -> None:
    sizes = ("--rows", "300", "--beside", "600", "--more", "100", "--rounds", "1")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bulk", *sizes],
        capture_output=True, text=True, timeout=250, check=False, cwd=ROOT, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for load in ("into an empty", "beside 600"):
        assert load in done.stdout
