"""Every command on episodes, knowledge and sessions, against a real database."""

from __future__ import annotations

import gzip
import json
import secrets
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID, uuid4

import pytest

pytestmark = pytest.mark.usefixtures("configured")


class Done(Protocol):
    code: int
    out: str
    err: str
    data: Any


class Run(Protocol):
    def __call__(
        self, *words: str, stdin: str | bytes = "", code: int = 0, **variables: str
    ) -> Done: ...


@pytest.fixture
def project() -> str:
    return f"p-{secrets.token_hex(4)}"


def record(run: Run, project: str, words: str = "declining velocity", **more: str) -> Any:
    flags = [part for name, value in more.items() for part in (f"--{name}", value)]
    perception = json.dumps({"situation": words})
    return run(
        *("episodes", "record", "--project", project, "--agent-version", "1.4.0"),
        *("--perception", perception, "--reasoning", '{"decision": "plan"}'),
        *("--action", '{"sprint_created": true}', *flags),
    ).data


def test_a_decision_from_record_to_delete(run: Run, project: str) -> None:
    recorded = record(run, project, outcome='{"completed": 5}', quality="0.83")
    identifier = recorded["episode_id"]
    UUID(identifier)
    assert recorded["outcome_quality"] == 0.83
    assert recorded["embedded"] is True
    shown = run("episodes", "show", identifier).data
    assert shown == recorded
    changed = run("episodes", "outcome", identifier, "--quality", "0.5").data
    assert changed["outcome_quality"] == 0.5
    assert changed["outcome"] == {"completed": 5}
    (listed,) = run("episodes", "list", "--project", project).data["items"]
    assert listed == changed
    assert run("episodes", "delete", identifier, "--yes").data == {"deleted": 1, "missing": 0}
    assert run("episodes", "delete", identifier, "--yes", code=1).data["missing"] == 1
    gone = run("episodes", "show", identifier, code=1)
    assert gone.err == f"error: there is no episode {identifier}\n"


def test_recall_finds_the_similar_one_and_its_outcome(run: Run, project: str) -> None:
    record(run, project, "database outage at night", quality="0.1")
    near = record(run, project, "declining velocity and a large backlog", quality="0.9")
    hits = run("episodes", "recall", "large backlog", "--project", project, "--limit", "1").data
    assert [hit["episode"]["episode_id"] for hit in hits] == [near["episode_id"]]
    assert set(hits[0]) == {
        "episode", "similarity", "score", "repeats", "terms", "reranked", "neighbours",
    }  # fmt: skip
    by_words = ("episodes", "recall", "backlog", "--project", project, "--mode", "words")
    (hit,) = run(*by_words, "--no-context").data
    assert (hit["episode"]["episode_id"], hit["similarity"]) == (near["episode_id"], None)
    assert "choose one of" in run("episodes", "recall", "x", "--mode", "luck", code=2).err
    good = run("episodes", "recall", "outage", "--project", project, "--min-quality", "0.8").data
    assert [hit["episode"]["outcome_quality"] for hit in good] == [0.9]
    assert run("episodes", "recall", "x", "--project", f"{project}-none").data == []


def test_tables(run: Run, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = record(run, project, quality="0.83", outcome='{"completed": 5}')
    for width in ("60", "100"):
        monkeypatch.setenv("COLUMNS", width)
        for words in (["recall", "velocity"], ["list"]):
            text = run("episodes", *words, "--project", project, "--table").out
            assert "0.83" in text
            assert "sprint" in text
            assert max(map(len, text.splitlines())) <= int(width)
        text = run("episodes", "show", recorded["episode_id"], "--table").out
        assert recorded["episode_id"] in text
        assert '"situation": "declining velocity"' in text
    empty = run("episodes", "list", "--project", f"{project}-none", "--table")
    assert empty.out == "No such episodes.\n"


def test_json_may_stand_before_or_after_the_subcommand(run: Run, project: str) -> None:
    for words in (
        ["--json", "episodes", "list"],
        ["episodes", "--json", "list"],
        ["episodes", "list", "--json"],
        ["--table", "episodes", "list", "--json"],
    ):
        assert run(*words, "--project", project).data == {"items": [], "next_cursor": None}


def test_an_episode_from_a_file_and_flags_that_win(run: Run, project: str, tmp_path: Path) -> None:
    document = {
        "project_id": "overridden",
        "agent_version": "2",
        "perception": {"situation": "ä"},
        "reasoning": {},
        "action": {},
        "timestamp": "2026-05-01T10:00:00+02:00",
        "external_id": "e-1",
        "outcome": None,
    }
    path = tmp_path / "episode.json"
    path.write_text(json.dumps(document))
    words = ["episodes", "record", "--project", project, "--file"]
    first = run(*words, str(path)).data
    assert first["project_id"] == project
    assert first["timestamp"].startswith("2026-05-01T")
    # The same external_id again is the same episode.
    assert run(*words, "-", stdin=path.read_text()).data["episode_id"] == first["episode_id"]
    document["colour"] = "red"
    assert "unknown keys: 'colour'" in run(*words, "-", stdin=json.dumps(document), code=2).err


def test_pages(run: Run, project: str) -> None:
    for number in range(5):
        record(run, project, f"situation {number}")
    first = run("episodes", "list", "--project", project, "--limit", "3").data
    assert len(first["items"]) == 3
    words = ["episodes", "list", "--project", project, "--cursor", first["next_cursor"]]
    rest = run(*words).data
    assert len(rest["items"]) == 2
    assert rest["next_cursor"] is None
    seen = {item["episode_id"] for item in first["items"] + rest["items"]}
    assert len(seen) == 5
    more = run("episodes", "list", "--project", project, "--limit", "3", "--table").out
    assert "--cursor" in more


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["episodes", "show", "abc"], "which is not a UUID"),
        (["episodes", "outcome", str(uuid4())], "neither outcome nor quality"),
        (["episodes", "outcome", str(uuid4()), "--quality", "1.5"], "quality is 1.5"),
        (["episodes", "list", "--since", "soon"], "--since is 'soon'"),
        (["episodes", "list", "--limit", "0"], "limit is 0"),
        (["episodes", "list", "--cursor", "x"], "cursor is 'x'"),
        (["episodes", "record", "--project", "x"], "lacks agent_version, perception"),
        (["episodes", "record", "--file", "/nowhere.json"], "/nowhere.json cannot be read"),
        (["episodes", "record", "--perception", "{"], "--perception is no JSON"),
        (["episodes", "delete", str(uuid4())], "nobody can be asked"),
        (["episodes", "import", "/nowhere.jsonl"], "no file /nowhere.jsonl"),
        (["episodes", "recall", " "], "text to look for"),
        (["knowledge", "add", "guess", "x", "--candidate"], "knowledge_type is 'guess'"),
        (["knowledge", "add", "strategy", "x"], "at least 3 different supporting episodes"),
        (["knowledge", "list", "--active", "maybe"], "--active is 'maybe'"),
        (["knowledge", "apply", str(uuid4())], "not said how it went"),
        (["sessions", "open", "--project", "x", "--ttl", "-1"], "ttl"),
        (["episodes", "frobnicate"], "No such command 'frobnicate'"),
        (["sessions", "open"], "Missing option '--project'"),
    ],
)
def test_bad_input_is_refused(run: Run, words: list[str], said: str) -> None:
    done = run(*words, code=2)
    assert said in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_errors_are_objects_with_json(run: Run) -> None:
    done = run("episodes", "show", str(uuid4()), "--json", code=1)
    error = json.loads(done.err)
    assert error["error"] == "NotFound"
    assert error["message"].startswith("there is no episode")


def test_export_and_import_again(run: Run, project: str, tmp_path: Path) -> None:
    for number in range(3):
        record(run, project, f"situation {number}", quality="0.5")
    lines = run("episodes", "export", "--project", project)
    assert "3 episodes" in lines.err
    assert len(lines.out.splitlines()) == 3
    path = tmp_path / "all.jsonl.gz"
    report = run("episodes", "export", str(path), "--project", project, "--with-embeddings").data
    assert (report["written"], report["vectors"]) == (3, 3)
    assert len(gzip.decompress(path.read_bytes()).splitlines()) == 3
    again = run("episodes", "import", str(path)).data
    assert (again["read"], again["created"], again["existing"]) == (3, 0, 3)


def test_bad_lines_are_kept_and_told(run: Run, project: str, tmp_path: Path) -> None:
    good = {"agent_version": "1", "perception": {"a": 1}, "reasoning": {}, "action": {}}
    text = json.dumps(good) + '\nnot json\n{"agent_version": "1"}\n'
    kept = tmp_path / "bad.jsonl"
    words = ["episodes", "import", "-", "--project", project, "--rejects", str(kept)]
    report = run(*words, stdin=text, code=1).data
    assert (report["read"], report["created"], report["rejected"]) == (3, 1, 2)
    assert [reject["line"] for reject in report["first_rejects"]] == [2, 3]
    assert report["rejects"] == str(kept)
    assert len(kept.read_text().splitlines()) == 2
    table = run(*words, "--table", stdin=text, code=1).out
    assert "line 2: not JSON" in table
    later = run(*words[:-2], "--embed", "later", stdin=json.dumps({**good, "action": {"b": 2}}))
    assert later.data["created"] == 1
    listed = run("episodes", "list", "--project", project).data["items"]
    assert sorted(item["embedded"] for item in listed) == [False, True]


def test_knowledge_from_add_to_retire(run: Run, project: str) -> None:
    evidence = [record(run, project, f"case {number}")["episode_id"] for number in range(3)]
    supports = [part for identifier in evidence for part in ("--supports", identifier)]
    added = run(
        *("knowledge", "add", "strategy", "Keep a buffer when velocity declines"),
        *("--content", '{"buffer": 2}', "--confidence", "0.9", "--project", project, *supports),
    ).data
    identifier = added["knowledge_id"]
    assert added["supporting_episodes"] == evidence
    assert run("knowledge", "show", identifier).data == added
    (hit,) = run("knowledge", "recall", "velocity declines", "--project", project).data
    assert hit["knowledge"]["knowledge_id"] == identifier
    run("knowledge", "apply", identifier, "--success")
    applied = run("knowledge", "apply", identifier, "--failure", "--episode", evidence[0]).data
    assert (applied["times_applied"], applied["success_count"]) == (2, 1)
    for words in (["list"], ["recall", "velocity"], ["show", identifier]):
        flags = [] if words[0] == "show" else ["--project", project]
        assert "buffer" in run("knowledge", *words, *flags, "--table").out
    refused = run("episodes", "delete", evidence[0], "--yes", code=1)
    assert identifier in refused.err
    retired = run("knowledge", "retire", identifier).data
    assert retired["is_active"] is False
    assert run("knowledge", "list", "--project", project).data["items"] == []
    everything = run("knowledge", "list", "--project", project, "--active", "all").data
    assert len(everything["items"]) == 1


def test_sessions_from_open_to_close(run: Run, project: str) -> None:
    opened = run(
        *("sessions", "open", "--project", project, "--goal", "ship it", "--user", "u"),
        *("--context", '{"focus": "tests"}', "--ttl", "60"),
    ).data
    identifier = opened["session_id"]
    assert opened["active_context"] == {"focus": "tests"}
    assert run("sessions", "show", identifier).data == opened
    (listed,) = run("sessions", "list", "--project", project, "--active").data["items"]
    assert listed["session_id"] == identifier
    table = run("sessions", "list", "--project", project, "--table").out
    assert "live" in table
    assert "ship it" in table
    assert "focus" in run("sessions", "show", identifier, "--table").out
    assert run("sessions", "close", identifier).data["is_active"] is False
    assert run("sessions", "list", "--project", project, "--active").data["items"] == []
    assert "ended" in run("sessions", "list", "--project", project, "--table").out
    assert run("sessions", "expire").data == {"expired": 0}


def test_every_flag_has_a_variable(run: Run, project: str) -> None:
    record(run, project)
    listed = run("episodes", "list", PGRECALL_EPISODES_LIST_PROJECT=project).data
    assert len(listed["items"]) == 1
    assert "What" not in run("episodes", "list", PGRECALL_JSON="0").out
    assert run("--version", PGRECALL_VERSION="anything").out.strip()
    table = run("episodes", "list", "--project", project, PGRECALL_JSON="0").out
    assert table.startswith("id ")
