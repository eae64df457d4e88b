"""Export, and the way back into an empty database."""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from pgrecall import Episode, Memory
from pgrecall.errors import InvalidInput, TransferError
from pgrecall.ops.transfer import ExportProgress, export_episodes, import_episodes
from pgrecall.testing import Database, HashEmbedder, Template

START = datetime(2026, 1, 1, tzinfo=UTC)


def fill(memory: Memory) -> None:
    """Episodes of every shape: with and without outcome, vector, identifiers, odd texts."""
    base: dict[str, Any] = {
        "project_id": "apollo",
        "agent_version": "1.0",
        "perception": {"text": 'Grüße 日本 🦜 \u2028 \\u0041 "quoted"\n\ttab'},
        "reasoning": {"null": None, "empty": {}, "deep": [[[]]], "n": [0.1, -0.0, 1e300, 10**25]},
        "action": {},
    }
    many = [
        {**base, "external_id": f"d{i}", "timestamp": START + timedelta(microseconds=i)}
        for i in range(120)
    ]
    memory.episodes.record_many(many)
    memory.episodes.record_many([{**base, "project_id": "gemini"}], embed="later")
    note = "6f1c1a52-0a32-4a4b-a6c1-6a43bd0d6b5c"
    memory.episodes.record(
        **{**base, "perception": {"large": "ü" * 500_000}},
        outcome={"completed": 5},
        outcome_quality=1 / 3,
        timestamp=datetime(2026, 2, 1, 12, 0, 0, 999_999, timezone(timedelta(hours=5))),
        control_mode="memory_augmented",
        decision_source="rules",
        sprint_id="s1",
        chronicle_note_id=note,  # type: ignore[arg-type]
        external_id="large",
    )
    memory.episodes.record(**base, outcome_quality=0.0, embedding=[1 / 3] * 63 + [-1e-20])


def everything(memory: Memory) -> list[Episode]:
    return list(memory.episodes.list(limit=10_000))


def comparable(episodes: list[Episode]) -> list[dict[str, Any]]:
    return [{**asdict(episode), "outcome_recorded_at": None} for episode in episodes]


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_an_export_imported_elsewhere_gives_the_same_episodes(
    pgrecall_memory: Memory, pgrecall_template: Template, tmp_path: Path, name: str
) -> None:
    fill(pgrecall_memory)
    path = tmp_path / name
    seen: list[ExportProgress] = []
    report = export_episodes(pgrecall_memory, path, with_embeddings=True, on_progress=seen.append)
    assert (report.written, report.total, report.vectors) == (123, 123, 122)
    assert report.path == path
    assert [progress.written for progress in seen] == [0, 100, 123]
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == name.endswith(".gz")
    with (
        pgrecall_template.clone() as other,
        # An embedder that would be noticed: every vector has to come from the file.
        Memory.open(other.dsn, embedder="none", settings=other.settings) as memory,
    ):
        imported = import_episodes(memory, path)
        assert (imported.created, imported.rejected) == (123, 0)
        before, after = everything(pgrecall_memory), everything(memory)
        assert comparable(after) == comparable(before)
        ids = [episode.episode_id for episode in before]
        vectors = pgrecall_memory.episodes.embeddings(ids)
        copied = memory.episodes.embeddings(ids)
        assert {key: value.to_binary() for key, value in vectors.items()} == {
            key: value.to_binary() for key, value in copied.items()
        }
        again = import_episodes(memory, path)
        assert (again.created, again.existing) == (0, 123)
        second = io.BytesIO()
        export_episodes(memory, second, with_embeddings=True)
        unpacked = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
        assert second.getvalue() == unpacked
        assert not second.closed


def test_a_line_is_compact_readable_and_in_a_fixed_order(pgrecall_memory: Memory) -> None:
    pgrecall_memory.episodes.record(
        project_id="apollo",
        agent_version="1.0",
        perception={"wort": "Grüße"},
        reasoning={},
        action={},
        outcome_quality=0.5,
        timestamp=START,
        external_id="x",
        episode_id="0b0e8a9c-98e6-4e0a-8a3c-0a1a2d9d6a11",  # type: ignore[arg-type]
    )
    stream = io.BytesIO()
    export_episodes(pgrecall_memory, stream)
    assert stream.getvalue().decode() == (
        '{"project_id":"apollo","agent_version":"1.0","perception":{"wort":"Grüße"},'
        '"reasoning":{},"action":{},"outcome_quality":0.5,"timestamp":"2026-01-01T00:00:00+00:00",'
        '"control_mode":"rule_based_only","external_id":"x",'
        '"episode_id":"0b0e8a9c-98e6-4e0a-8a3c-0a1a2d9d6a11"}\n'
    )


def test_filters_are_those_of_a_listing(pgrecall_memory: Memory) -> None:
    fill(pgrecall_memory)

    def exported(memory: Any = pgrecall_memory, **filters: Any) -> list[dict[str, Any]]:
        stream = io.BytesIO()
        report = export_episodes(memory, stream, **filters)
        rows = [json.loads(line) for line in stream.getvalue().splitlines()]
        assert report.written == report.total == len(rows)
        assert report.path is None
        return rows

    assert len(exported()) == 123
    assert len(exported(project_id="gemini")) == 1
    assert len(exported(pgrecall_memory.project("gemini"))) == 1
    assert [row["external_id"] for row in exported(sprint_id="s1")] == ["large"]
    assert len(exported(since=START, until=START + timedelta(microseconds=60))) == 60
    assert exported(project_id="nobody") == []
    assert "embedding" not in exported(sprint_id="s1")[0]
    wrong: list[dict[str, Any]] = [
        {"limit": 5},
        {"cursor": "x"},
        {"colour": "red"},
        {"min_quality": 2},
        {"since": datetime(2026, 1, 1)},  # noqa: DTZ001 - the error is meant
    ]
    for filters in wrong:
        with pytest.raises(InvalidInput):
            exported(**filters)


def test_a_file_is_replaced_whole_and_keeps_its_mode(
    pgrecall_memory: Memory, tmp_path: Path
) -> None:
    fill(pgrecall_memory)
    real = tmp_path / "real.jsonl"
    real.write_text("former", encoding="utf-8")
    real.chmod(0o600)
    link = tmp_path / "link.jsonl"
    link.symlink_to(real)

    def look(_: ExportProgress) -> None:
        assert real.read_text(encoding="utf-8") == "former"

    export_episodes(pgrecall_memory, link, on_progress=look)
    assert link.is_symlink()
    assert len(real.read_bytes().splitlines()) == 123
    assert real.stat().st_mode & 0o777 == 0o600
    assert sorted(tmp_path.iterdir()) == [link, real]


def test_an_export_that_is_stopped_leaves_the_former_file(
    pgrecall_memory: Memory, tmp_path: Path
) -> None:
    fill(pgrecall_memory)
    path = tmp_path / "out.jsonl"
    path.write_text("former", encoding="utf-8")

    def stop(progress: ExportProgress) -> None:
        if progress.written:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_episodes(pgrecall_memory, path, on_progress=stop)
    with pytest.raises(InvalidInput):
        export_episodes(pgrecall_memory, path, limit=3)
    assert path.read_text(encoding="utf-8") == "former"
    assert list(tmp_path.iterdir()) == [path]


FULL = """
import resource, sys
from pathlib import Path
from pgrecall import Memory
from pgrecall.errors import TransferError
from pgrecall.ops.transfer import export_episodes
from pgrecall.testing import HashEmbedder

with Memory.open(sys.argv[1], embedder=HashEmbedder(64)) as memory:
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    try:
        export_episodes(memory, Path(sys.argv[2]))
    except TransferError as error:
        print(error)
"""


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_a_file_that_cannot_grow_is_an_error_and_no_half_of_a_file(
    pgrecall_memory: Memory, pgrecall_database: Database, tmp_path: Path, name: str
) -> None:
    noise = [
        {
            "project_id": "apollo",
            "agent_version": "1.0",
            "perception": {"noise": os.urandom(1000).hex()},
            "reasoning": {},
            "action": {},
        }
        for _ in range(120)
    ]
    pgrecall_memory.episodes.record_many(noise)
    done = subprocess.run(
        [sys.executable, "-c", FULL, pgrecall_database.dsn, str(tmp_path / name)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{name} cannot be written: File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 50_000


def test_a_full_device_and_a_missing_directory_are_named(
    pgrecall_memory: Memory, tmp_path: Path
) -> None:
    fill(pgrecall_memory)
    with pytest.raises(TransferError, match="/dev/full cannot be written: No space left"):
        export_episodes(pgrecall_memory, Path("/dev/full"))
    assert Path("/dev/full").is_char_device()
    with pytest.raises(TransferError, match="No such file or directory"):
        export_episodes(pgrecall_memory, tmp_path / "missing" / "out.jsonl")
    assert export_episodes(pgrecall_memory, Path("/dev/null")).written == 123


def test_what_is_written_meanwhile_neither_doubles_nor_loses_lines(
    pgrecall_memory: Memory, pgrecall_database: Database, tmp_path: Path
) -> None:
    fill(pgrecall_memory)
    old = {episode.episode_id for episode in everything(pgrecall_memory)}
    with Memory.open(
        pgrecall_database.dsn, embedder=HashEmbedder(64), settings=pgrecall_database.settings
    ) as writer:

        def write(progress: ExportProgress) -> None:
            writer.episodes.record(
                project_id="apollo", agent_version="1", perception={}, reasoning={}, action={}
            )

        export_episodes(pgrecall_memory, tmp_path / "out.jsonl", on_progress=write)
    lines = (tmp_path / "out.jsonl").read_bytes().splitlines()
    ids = [json.loads(line)["episode_id"] for line in lines]
    assert len(ids) == len(set(ids))
    assert {str(key) for key in old} <= set(ids)
