"""Import into a real database: every good line once, every bad line kept, nothing overwritten."""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from pgrecall import Memory
from pgrecall.config import Settings
from pgrecall.errors import InvalidInput, TransferError
from pgrecall.ops.transfer import ImportReport, Progress, Reject, import_episodes
from pgrecall.sql import statement
from pgrecall.testing import Database, HashEmbedder


def decision(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "project_id": "apollo",
        "agent_version": "1.0",
        "perception": {"backlog": number},
        "reasoning": {"why": f"because of {number}"},
        "action": {"created": True},
        "external_id": f"d{number}",
        **changes,
    }


def write(path: Path, values: Iterable[Any]) -> Path:
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    return path


def counts(report: Progress) -> tuple[int, int, int, int]:
    assert report.read == report.created + report.existing + report.updated + report.rejected
    return report.created, report.existing, report.updated, report.rejected


def rejected(path: Path | None) -> list[dict[str, Any]]:
    assert path is not None
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_file_is_imported_once_however_often_it_is_run(
    pgrecall_memory: Memory, tmp_path: Path
) -> None:
    source = write(tmp_path / "a.jsonl", map(decision, range(700)))
    seen: list[Progress] = []
    report = import_episodes(pgrecall_memory, source, on_progress=seen.append)
    assert counts(report) == (700, 0, 0, 0)
    assert report.rejects is None
    assert not (tmp_path / "a.jsonl.rejects.jsonl").exists()
    assert [progress.read for progress in seen] == [0, 256, 512, 700]
    assert seen[-1].bytes_read == seen[-1].total_bytes == source.stat().st_size
    assert report.rate == pytest.approx(700 / report.seconds)
    assert counts(import_episodes(pgrecall_memory, source)) == (0, 700, 0, 0)
    assert pgrecall_memory.episodes.count() == 700
    hits = pgrecall_memory.episodes.recall("because of 77", project_id="apollo", limit=1)
    assert [(hit.similarity or 0) > 0.3 for hit in hits] == [True]


def test_bad_lines_are_kept_and_harm_no_other(pgrecall_memory: Memory, tmp_path: Path) -> None:
    bad: dict[int, bytes] = {
        2: b'{"project_id": "apollo", ',
        4: b'{"project_id": "\xff"}',
        7: b'{"colour": "r\xc3\xb6t"}',
        9: json.dumps(decision(9, embedding=[1.0] * 63)).encode(),
        10: json.dumps(decision(10, embedding=[float("nan")] * 64)).encode(),
        12: b"x" * 5000,
    }
    text = b"".join(
        bad.get(number, json.dumps(decision(number)).encode()) + b"\n" for number in range(1, 21)
    )
    source = tmp_path / "a.jsonl"
    source.write_bytes(text)
    report = import_episodes(pgrecall_memory, source, batch_size=5, max_line_bytes=4000)
    assert counts(report) == (14, 0, 0, 6)
    assert report.rejects == tmp_path / "a.jsonl.rejects.jsonl"
    kept = rejected(report.rejects)
    assert [entry["line"] for entry in kept] == list(bad)
    assert [reject.line for reject in report.first_rejects] == list(bad)
    for entry, reject in zip(kept, report.first_rejects, strict=True):
        assert reject == Reject(line=entry["line"], reason=entry["reason"])
        if entry["line"] == 4:
            assert base64.b64decode(entry["base64"]) == bad[4]
        elif entry["line"] == 12:
            assert entry["beginning"] == "x" * 1000
        else:
            assert entry["text"].encode() == bad[entry["line"]]
    assert "unknown key 'colour'" in kept[2]["reason"]
    stored = {episode.external_id for episode in pgrecall_memory.episodes.list(limit=100)}
    assert stored == {f"d{number}" for number in range(1, 21) if number not in bad}


def test_mended_rejects_are_imported_and_the_next_run_leaves_no_old_ones(
    pgrecall_memory: Memory, tmp_path: Path
) -> None:
    source = write(tmp_path / "a.jsonl", [decision(1), decision(2, outcome_quality=5)])
    kept = rejected(import_episodes(pgrecall_memory, source).rejects)
    mended = write(tmp_path / "b.jsonl", [kept[0]["text"].replace("5", "0.5")])
    assert counts(import_episodes(pgrecall_memory, mended)) == (1, 0, 0, 0)
    write(source, [decision(1), decision(2, outcome_quality=0.5)])
    assert counts(import_episodes(pgrecall_memory, source)) == (0, 2, 0, 0)
    assert not (tmp_path / "a.jsonl.rejects.jsonl").exists()


def test_rejects_go_where_they_are_told(pgrecall_memory: Memory, tmp_path: Path) -> None:
    report = import_episodes(pgrecall_memory, io.BytesIO(b"{}\n"), rejects=tmp_path / "r")
    assert report.rejects == tmp_path / "r"
    assert report.total_bytes is None
    assert rejected(tmp_path / "r")[0]["text"] == "{}"


def test_rejects_of_a_stream_lie_in_the_working_directory(
    pgrecall_memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert counts(import_episodes(pgrecall_memory, io.StringIO("{}\n"))) == (0, 0, 0, 1)
    assert rejected(tmp_path / "import.rejects.jsonl")[0]["line"] == 1


def test_rejects_that_cannot_be_kept_stop_the_import(
    pgrecall_memory: Memory, tmp_path: Path
) -> None:
    source = write(tmp_path / "a.jsonl", [decision(1), decision(2), "bad", decision(4)])
    with pytest.raises(TransferError, match=r"stopped after line 2 .*/dev/full.*No space left"):
        import_episodes(pgrecall_memory, source, rejects=Path("/dev/full"), batch_size=2)
    assert counts(import_episodes(pgrecall_memory, source)) == (0, 3, 0, 1)


def test_the_same_identifier_with_other_content_is_a_bad_line(
    pgrecall_memory: Memory, tmp_path: Path
) -> None:
    first = write(tmp_path / "a.jsonl", map(decision, range(10)))
    import_episodes(pgrecall_memory, first)
    values = [decision(i, action={"created": i not in (3, 12)}) for i in range(15)]
    values += [decision(13, reasoning={"other": 1}), decision(14)]
    report = import_episodes(pgrecall_memory, write(tmp_path / "b.jsonl", values))
    # d3 differs from the database, the second d13 from its own batch.
    assert counts(report) == (5, 10, 0, 2)
    kept = rejected(report.rejects)
    assert [entry["line"] for entry in kept] == [4, 16]
    assert "'d3' of project 'apollo' already stands for another episode" in kept[0]["reason"]
    stored = {e.external_id: e for e in pgrecall_memory.episodes.list(limit=100)}
    assert stored["d3"].action == {"created": True}
    assert stored["d13"].reasoning == {"why": "because of 13"}


def test_an_outcome_that_was_missing_is_added_and_none_is_replaced(
    pgrecall_memory: Memory, tmp_path: Path
) -> None:
    import_episodes(pgrecall_memory, write(tmp_path / "a.jsonl", map(decision, range(6))))
    ids = {e.external_id: e.episode_id for e in pgrecall_memory.episodes.list()}
    pgrecall_memory.episodes.record_outcome(ids["d1"], {"done": 1}, 0.1)
    pgrecall_memory.episodes.record_outcome(ids["d2"], {"done": 2}, 0.2)
    pgrecall_memory.episodes.record_outcome(ids["d3"], None, 0.3)
    values = [
        decision(0, outcome={"done": 0}, outcome_quality=0),
        decision(1, outcome={"done": 1.0}, outcome_quality=0.1),
        decision(2, outcome={"done": 9}, outcome_quality=0.2),
        decision(3, outcome={"done": 3}, outcome_quality=0.3),
        decision(4),
        decision(5, outcome={"done": 5}),
        decision(5, outcome_quality=0.5),
        decision(5, outcome_quality=0.9),
        decision(7),
        decision(7, outcome={"done": 7}),
    ]
    source = write(tmp_path / "b.jsonl", values)
    report = import_episodes(pgrecall_memory, source)
    # created d7; existing d1, d4; updated d0, d3, d5 (twice), d7; bad d2, the last d5
    assert counts(report) == (1, 2, 5, 2)
    kept = rejected(report.rejects)
    assert [entry["line"] for entry in kept] == [3, 8]
    assert "another outcome" in kept[0]["reason"]
    assert "another outcome_quality" in kept[1]["reason"]
    stored = {
        e.external_id: (e.outcome, e.outcome_quality)
        for e in pgrecall_memory.episodes.list(limit=100)
    }
    assert stored == {
        "d0": ({"done": 0}, 0),
        "d1": ({"done": 1}, 0.1),
        "d2": ({"done": 2}, 0.2),
        "d3": ({"done": 3}, 0.3),
        "d4": (None, None),
        "d5": ({"done": 5}, 0.5),
        "d7": ({"done": 7}, None),
    }
    for e in pgrecall_memory.episodes.list():
        assert (e.outcome_recorded_at is not None) == (e.external_id != "d4")
    assert counts(import_episodes(pgrecall_memory, source)) == (0, 8, 0, 2)


def test_outcomes_with_any_numbers_are_recognised(pgrecall_memory: Memory, tmp_path: Path) -> None:
    outcome = {"large": 1e23, "small": 5e-324, "long": 10**30, "third": 1 / 3, "minus": -0.0}
    source = write(tmp_path / "a.jsonl", [decision(1, outcome=outcome)])
    assert counts(import_episodes(pgrecall_memory, source)) == (1, 0, 0, 0)
    assert counts(import_episodes(pgrecall_memory, source)) == (0, 1, 0, 0)


def test_lines_without_identifier_are_not_doubled(pgrecall_memory: Memory, tmp_path: Path) -> None:
    def plain(number: int, **changes: Any) -> dict[str, Any]:
        values = decision(number, **changes)
        del values["external_id"]
        return values

    identified = str(uuid4())
    values = [plain(1), plain(2), plain(1), plain(3, episode_id=identified)]
    source = write(tmp_path / "a.jsonl", values)
    assert counts(import_episodes(pgrecall_memory, source)) == (3, 1, 0, 0)
    assert counts(import_episodes(pgrecall_memory, source)) == (0, 4, 0, 0)
    stored = pgrecall_memory.episodes.get(identified)
    assert stored.external_id is None
    moved = write(tmp_path / "b.jsonl", [plain(3, episode_id=identified, project_id="gemini")])
    report = import_episodes(pgrecall_memory, moved)
    assert counts(report) == (0, 0, 0, 1)
    assert "project_id" in report.first_rejects[0].reason


def test_what_stands_already_is_not_embedded_again(
    pgrecall_database: Database, tmp_path: Path
) -> None:
    class Counting(HashEmbedder):
        embedded = 0

        def embed(self, texts: Any, mode: Any = "document") -> list[list[float]]:
            self.embedded += len(texts)
            return super().embed(texts, mode)

    embedder = Counting(64)
    with Memory.open(
        pgrecall_database.dsn, embedder=embedder, settings=pgrecall_database.settings
    ) as memory:
        import_episodes(memory, write(tmp_path / "a.jsonl", map(decision, range(40))))
        assert embedder.embedded == 40
        report = import_episodes(memory, write(tmp_path / "b.jsonl", map(decision, range(45))))
        assert counts(report) == (5, 40, 0, 0)
        assert embedder.embedded == 45


def test_later_means_without_vectors(pgrecall_memory: Memory, tmp_path: Path) -> None:
    values = [decision(1), decision(2, embedding=[1.0] + [0.0] * 63)]
    import_episodes(pgrecall_memory, write(tmp_path / "a.jsonl", values), embed="later")
    stored = {e.external_id: e.embedded for e in pgrecall_memory.episodes.list()}
    assert stored == {"d1": False, "d2": True}


def test_a_memory_bound_to_a_project_takes_its_lines_only(
    pgrecall_memory: Memory, tmp_path: Path
) -> None:
    values = [decision(1), decision(2, project_id="gemini"), decision(3, project_id=None)]
    source = write(tmp_path / "a.jsonl", values)
    report = import_episodes(pgrecall_memory.project("apollo"), source)
    assert counts(report) == (2, 0, 0, 1)
    assert counts(import_episodes(pgrecall_memory, source, project_id="gemini")) == (2, 0, 0, 1)
    with pytest.raises(InvalidInput, match="bound to project 'apollo'"):
        import_episodes(pgrecall_memory.project("apollo"), source, project_id="gemini")


def test_a_line_that_only_the_database_refuses_is_found_among_the_others(
    pgrecall_memory: Memory, admin: psycopg.Connection[Any], tmp_path: Path
) -> None:
    admin.execute(
        "ALTER TABLE agent_episodes ADD CONSTRAINT unlucky CHECK (sprint_id <> 'thirteen')"
    )
    unlucky = {13, 14, 99}
    values = [decision(i, sprint_id="thirteen" if i in unlucky else "s") for i in range(100)]
    report = import_episodes(pgrecall_memory, write(tmp_path / "a.jsonl", values))
    assert counts(report) == (97, 0, 0, 3)
    assert [entry["line"] for entry in rejected(report.rejects)] == [14, 15, 100]
    assert "unlucky" in report.first_rejects[0].reason
    assert pgrecall_memory.episodes.count() == 97


def test_arguments_that_cannot_be_meant(pgrecall_memory: Memory, tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [decision(1)])
    wrong: list[dict[str, Any]] = [
        {"batch_size": 0},
        {"embed": "never"},
        {"project_id": ""},
        {"project_id": "x" * 51},
        {"rejects": source},
    ]
    for arguments in wrong:
        with pytest.raises(InvalidInput):
            import_episodes(pgrecall_memory, source, **arguments)
    with pytest.raises(TransferError, match="No such file"):
        import_episodes(pgrecall_memory, tmp_path / "missing")
    assert pgrecall_memory.episodes.count() == 0


def test_what_was_read_before_an_archive_broke_is_imported(
    pgrecall_memory: Memory, tmp_path: Path
) -> None:
    noise = random.Random(1)
    text = "".join(
        json.dumps(decision(i, action={"noise": noise.random()})) + "\n" for i in range(1000)
    )
    packed = gzip.compress(text.encode())
    source = tmp_path / "a.jsonl.gz"
    source.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(TransferError, match=r"stopped after line [1-9]\d+ .*cannot be read"):
        import_episodes(pgrecall_memory, source)
    before = pgrecall_memory.episodes.count()
    assert 100 < before < 900
    source.write_bytes(packed)
    assert counts(import_episodes(pgrecall_memory, source)) == (1000 - before, before, 0, 0)


def test_documents_larger_than_the_setting_are_bad_lines(
    pgrecall_database: Database, tmp_path: Path
) -> None:
    settings: Settings = pgrecall_database.settings.model_copy(update={"max_document_bytes": 100})
    with Memory.open(pgrecall_database.dsn, embedder=HashEmbedder(64), settings=settings) as memory:
        values = [decision(1), decision(2, action={"text": "x" * 100})]
        report: ImportReport = import_episodes(memory, write(tmp_path / "a.jsonl", values))
    assert counts(report) == (1, 0, 0, 1)
    assert "action takes" in report.first_rejects[0].reason


def test_long_lines_end_a_batch_early(
    pgrecall_memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgrecall.ops.transfer.importing.MAX_BATCH_BYTES", 10_000)
    values = [decision(i, action={"text": "x" * 6000}) for i in range(6)]
    seen: list[Progress] = []
    source = write(tmp_path / "a.jsonl", values)
    import_episodes(pgrecall_memory, source, on_progress=seen.append)
    assert [progress.read for progress in seen] == [0, 2, 4, 6]


def test_a_report_is_frozen(pgrecall_memory: Memory) -> None:
    report = import_episodes(pgrecall_memory, io.BytesIO(b""))
    assert counts(report) == (0, 0, 0, 0)
    with pytest.raises(AttributeError):
        report.read = 1  # type: ignore[misc]
    assert replace(report, read=2, seconds=0.0).rate == 0


def test_known_lines_can_be_found_by_index(admin: psycopg.Connection[Any]) -> None:
    admin.execute(
        "INSERT INTO agent_episodes"
        " (project_id, agent_version, perception, reasoning, action, external_id)"
        " SELECT 'apollo', '1', '{}', '{}', '{}', 'd' || i FROM generate_series(1, 2000) AS i"
    )
    admin.execute("ANALYZE agent_episodes")
    # A table this small would be read as a whole; what has no other way still is.
    admin.execute("SET enable_seqscan = off")
    parameters = {
        "episode_ids": [uuid4() for _ in range(256)],
        "project_ids": ["apollo"] * 256,
        "external_ids": [f"d{i}" for i in range(256)],
        "outcomes": ["{}"] * 256,
        "qualities": [0.5] * 256,
    }
    for topic, name in (("episodes", "taken"), ("transfer", "fill_outcomes")):
        rows = admin.execute("EXPLAIN " + statement(topic, name), parameters)
        plan = "\n".join(row[0] for row in rows)
        assert "Index Scan" in plan
        assert "Seq Scan" not in plan, plan
