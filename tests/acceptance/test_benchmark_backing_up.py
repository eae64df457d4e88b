"""The benchmark of backups runs, and restores what it measures; the ratio is people's to judge."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_benchmark_of_backups_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.backing_up", "--rows", "300", "--rounds", "1"],
        capture_output=True, text=True, timeout=250, check=False, cwd=ROOT, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for step in ("backup", "restore, indexes included"):
        assert step in done.stdout
