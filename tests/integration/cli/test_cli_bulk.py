"""``pgrecall episodes import`` where the vector index is put off: plan, report, and its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import pytest

from pgrecall.ops.transfer.indexing import VectorIndexes
from pgrecall.testing import Database

pytestmark = pytest.mark.usefixtures("configured")
INDEX = "idx_episodes_embedding"


class Done(Protocol):
    out: str
    err: str
    data: Any


class Run(Protocol):
    def __call__(self, *words: str, code: int = 0, **variables: str) -> Done: ...


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "bulk.jsonl"
    line = {"agent_version": "1", "reasoning": {}, "action": {}}
    texts = [json.dumps({**line, "perception": {"n": n}}) + "\n" for n in range(50)]
    path.write_text("".join(texts), encoding="utf-8")
    return path


def test_an_import_is_planned_put_off_and_finished(
    run: Run, configured: Database, source: Path
) -> None:
    words = ["episodes", "import", str(source), "--project", "bulk"]
    plan = run(*words, "--dry-run").data
    assert (plan["index"], plan["connections"], plan["rows"]) == ("keep", 1, 50)
    table = run(*words, "--dry-run", "--index", "defer", "--connections", "2", "--table").out
    assert "defer" in table
    assert "as was asked" in table
    assert run("episodes", "list", "--project", "bulk").data["items"] == []
    report = run(*words, "--index", "defer").data
    assert (report["created"], report["built"]) == (50, [INDEX])
    assert report["plan"]["index"] == "defer"
    again = run(*words, "--index", "defer", "--table")
    assert f"{INDEX} built in" in again.out
    assert "vector index: defer" in again.err
    assert run("episodes", "import", "--finish").data == {"built": []}
    with VectorIndexes(configured.owner_dsn) as indexes:
        assert indexes.claim()
        assert indexes.defer()
    assert INDEX in run("episodes", "import", "--finish", "--table").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "not clear what to do"),
        (["FILE", "--finish"], "not clear what to do"),
        (["-", "--dry-run"], "there is no file -"),
        (["FILE", "--index", "sometimes"], "index is 'sometimes'"),
        (["FILE", "--connections", "1000"], "connections is 1000"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    run: Run, source: Path, words: list[str], said: str
) -> None:
    given = [str(source) if word == "FILE" else word for word in words]
    assert said in run("episodes", "import", *given, code=2).err


def test_without_the_owner_an_import_keeps_the_index_or_says_what_is_missing(
    run: Run, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGRECALL_OWNER_DSN")
    words = ["episodes", "import", str(source), "--project", "bulk"]
    plan = run(*words, "--dry-run").data
    assert plan["index"] == "keep"
    assert "as its owner" in plan["why"]
    assert "PGRECALL_OWNER_DSN" in run(*words, "--index", "defer", code=2).err
