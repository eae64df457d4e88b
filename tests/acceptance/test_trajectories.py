"""The main job on real input: 200 trajectories of a real agent, imported and recalled by text."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pgrecall import Memory, Recalled
from pgrecall.testing import Database, provisioned_template

pytestmark = [pytest.mark.eval_data, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def database(admin_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    directory = tmp_path_factory.mktemp("config")
    with provisioned_template(admin_dsn, directory, 384) as template, template.clone() as database:
        yield database


def run(*command: str | Path, dsn: str = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=500, check=False,
        cwd=ROOT, env={**os.environ, "PGRECALL_DSN": dsn},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def imported(database: Database, eval_data: Path, tmp_path_factory: Any) -> dict[str, Any]:
    """Convert and import as a user would, by the example and the command line."""
    lines = tmp_path_factory.mktemp("taubench") / "airline.jsonl"
    source = eval_data / "taubench" / "gpt-4o-airline.json"
    run("examples/convert_trajectories.py", source, "-o", lines)
    report: dict[str, Any] = {}
    for name in ("first", "again"):
        start = time.perf_counter()
        done = run("-m", "pgrecall.cli", "episodes", "import", lines, "--json", dsn=database.dsn)
        report[name] = {**json.loads(done.stdout), "wall": time.perf_counter() - start}
    report["lines"] = [json.loads(line) for line in lines.read_text().splitlines()]
    return report


def test_trajectories_are_imported_once_and_recalled_by_text(
    imported: dict[str, Any], database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    first, again = imported["first"], imported["again"]
    assert (first["created"], first["rejected"]) == (200, 0)
    assert (again["created"], again["existing"], again["rejected"]) == (0, 200, 0)
    with Memory.open(database.dsn, settings=database.settings) as memory:
        airline = memory.project("airline")
        assert memory.embedder.identity.startswith("builtin")
        assert airline.episodes.count() == airline.episodes.count(with_outcome=True) == 200
        taken, shares, outcomes = [], [], []
        for line in imported["lines"]:
            request = line["perception"]["request"]
            start = time.perf_counter()
            hits = airline.episodes.recall(request, limit=6, outcome_weight=0)
            taken.append((time.perf_counter() - start) * 1000)
            others = [h for h in hits if h.episode.external_id != line["external_id"]][:5]
            assert len(others) == 5
            shares.append(sum(task(hit) == task_of(line["external_id"]) for hit in others) / 5)
            outcomes.append((line["outcome_quality"], [h.episode.outcome_quality for h in others]))
        example = airline.episodes.recall("cancel my flight and get a refund", limit=5)
    report(capsys, imported, taken, shares, outcomes, example)
    # Each task has four trials, so at most three of the five others can be of the same task.
    # By chance it would be 0.015.
    assert statistics.mean(shares) > 0.25


def task_of(external_id: str | None) -> str:
    return (external_id or "").split("/")[1]


def task(hit: Recalled) -> str:
    return task_of(hit.episode.external_id)


def report(
    capsys: pytest.CaptureFixture[str],
    imported: dict[str, Any],
    taken: list[float],
    shares: list[float],
    outcomes: list[tuple[float, list[Any]]],
    example: Any,
) -> None:
    """Say what was done: the run is the proof, so that a person should be able to read it."""
    near = {
        name: statistics.mean(q for own, others in outcomes if own == reward for q in others)
        for name, reward in (("succeeded", 1.0), ("failed", 0.0))
    }
    first, again = imported["first"], imported["again"]
    with capsys.disabled():
        print("\n\n200 trajectories of an airline agent (tau-bench)")
        print(
            f"  imported   {first['created']} in {first['wall']:.1f} s "
            f"({200 / first['wall']:.0f} a second, embedding included); again: "
            f"{again['existing']} known, {again['created']} new, {again['wall']:.1f} s"
        )
        print(
            f"  recalled   200 times by the user's first words, p50 {statistics.median(taken):.1f} "
            f"ms, p95 {statistics.quantiles(taken, n=20)[-1]:.1f} ms"
        )
        print(
            f"  same task  {statistics.mean(shares):.3f} of the first five others (0.6 at most), "
            f"at least one for {sum(share > 0 for share in shares)} of 200"
        )
        print(
            "  outcomes   mean quality of the five nearest: "
            f"{near['succeeded']:.2f} where the agent succeeded, {near['failed']:.2f} where it "
            "failed"
        )
        print("  'cancel my flight and get a refund':")
        for hit in example:
            request = str(hit.episode.perception["request"]).replace("\n", " ")[:66]
            quality = hit.episode.outcome_quality
            print(f"    {hit.similarity:.2f}  quality {quality:.0f}  {request}")
