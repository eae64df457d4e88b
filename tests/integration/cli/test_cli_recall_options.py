"""What ``recall`` on the command line takes besides filters, and how it explains itself."""

from __future__ import annotations

import json
import secrets
from typing import Any, Protocol

import pytest

pytestmark = pytest.mark.usefixtures("configured")


class Done(Protocol):
    code: int
    out: str
    err: str
    data: Any


class Run(Protocol):
    def __call__(self, *words: str, code: int = 0, **variables: str) -> Done: ...


@pytest.fixture
def project() -> str:
    return f"p-{secrets.token_hex(4)}"


def record(run: Run, project: str, words: str, **more: str) -> str:
    flags = [part for name, value in more.items() for part in (f"--{name}", value)]
    done = run(
        *("episodes", "record", "--project", project, "--agent-version", "1.4.0"),
        *("--perception", json.dumps({"situation": words})),
        *("--reasoning", '{"decision": "plan"}', "--action", '{"sprint_created": true}', *flags),
    )
    return str(done.data["episode_id"])


def recall(run: Run, text: str, *words: str) -> Any:
    return run("episodes", "recall", text, *words).data


def test_the_account_and_the_terms(run: Run, project: str) -> None:
    record(run, project, "declining velocity", quality="0.9")
    told = recall(run, "declining velocity", "--project", project, "--explain",
                  "--age-weight", "0.25", "--outcome-weight", "0.25")  # fmt: skip
    assert set(told) == {"hits", "account"}
    (hit,) = told["hits"]
    terms = hit["terms"]
    weights = [terms[f"{name}_weight"] for name in ("relevance", "worth", "recency")]
    assert weights == [0.5, 0.25, 0.25]
    assert terms["worth"] == 0.9
    total = sum(terms[f"{name}_weight"] * terms[name] for name in ("relevance", "worth", "recency"))
    assert total == pytest.approx(hit["score"])
    account = told["account"]
    assert account["tried"][-1] == account["route"]
    assert set(account["expected_ms"]) == {"exact", "codes", "index"}
    assert account["plan"]
    evidence = terms["evidence"]
    parts = evidence["words"] + evidence["surprise"] + evidence["lent"]
    assert parts == pytest.approx(evidence["total"])
    assert {term["word"] for term in account["words"]["terms"]} == {"declin", "veloc"}


def test_without_it_json_is_the_list_of_hits(run: Run, project: str) -> None:
    record(run, project, "declining velocity")
    (hit,) = recall(run, "velocity", "--project", project)
    assert hit["terms"] is None


def test_explained_in_words(run: Run, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    record(run, project, "declining velocity", quality="0.9")
    for width in ("60", "160"):
        monkeypatch.setenv("COLUMNS", width)
        text = run("episodes", "recall", "velocity", "--project", project, "--explain", "--table",
                   "--route", "codes").out  # fmt: skip
        words = " ".join(text.split())
        for part in ("relevance (words", "mode hybrid", "words veloc"):
            assert part in words
        assert "outcome" in words
        assert "recency" not in words  # it has no weight
        for part in ("route codes", "why about", "tried codes", "considered", "embedding",
                     "choosing", "searching"):  # fmt: skip
            assert part in words
        assert "Scan" in words
        assert max(map(len, text.splitlines())) <= int(width)


def test_even_nothing_is_explained(run: Run, project: str) -> None:
    told = recall(run, "velocity", "--project", project, "--explain")
    assert told["hits"] == []
    assert told["account"]["route"] in ("exact", "codes", "index")
    text = run("episodes", "recall", "velocity", "--project", project, "--explain", "--table").out
    assert text.startswith("Nothing similar is remembered.")
    assert "route" in text


@pytest.mark.parametrize("route", ["exact", "codes", "index"])
def test_a_route_can_be_chosen(run: Run, project: str, route: str) -> None:
    mine = record(run, project, "declining velocity")
    told = recall(run, "velocity", "--project", project, "--explain", "--route", route)
    assert told["account"]["tried"] == [route]
    if route != "index":  # which may give up before it meets a single row of many
        assert [hit["episode"]["episode_id"] for hit in told["hits"]] == [mine]
    assert "choose one of" in run("episodes", "recall", "x", "--route", "luck", code=2).err


def test_repeats_are_grouped_and_counted(run: Run, project: str) -> None:
    same = {record(run, project, "declining velocity") for _ in range(3)}
    other = record(run, project, "database outage")
    hits = recall(run, "declining velocity", "--project", project)
    assert len(hits) == 2
    assert {hits[0]["episode"]["episode_id"], *hits[0]["repeats"]} == same
    assert hits[1]["episode"]["episode_id"] == other
    assert len(recall(run, "velocity", "--project", project, "--no-group")) == 4
    text = run("episodes", "recall", "declining velocity", "--project", project, "--table").out
    assert "repeats" in text
    text = run("episodes", "recall", "x", "--project", project, "--no-group", "--table").out
    assert "repeats" not in text


def test_diversity_prefers_what_differs(run: Run, project: str) -> None:
    record(run, project, "declining velocity backlog")
    record(run, project, "declining velocity backlog again")
    record(run, project, "declining weather")
    query = "declining velocity backlog"
    words = ("--project", project, "--limit", "2")
    plain = [h["episode"]["perception"]["situation"] for h in recall(run, query, *words)]
    assert plain == ["declining velocity backlog", "declining velocity backlog again"]
    hits = recall(run, query, *words, "--diversity", "0.9")
    assert [h["episode"]["perception"]["situation"] for h in hits][1] == "declining weather"


@pytest.mark.parametrize(
    ("text", "recency"), [("1", 0.5), ("24h", 0.5), ("0.5d", 0.25), ("2w", 0.5 ** (1 / 14))]
)
def test_half_life(run: Run, project: str, text: str, recency: float) -> None:
    from datetime import UTC, datetime, timedelta

    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    record(run, project, "declining velocity", timestamp=yesterday)
    told = recall(run, "velocity", "--project", project, "--age-weight", "0.5", "--explain",
                  "--half-life", text)  # fmt: skip
    assert told["hits"][0]["terms"]["recency"] == pytest.approx(recency, rel=0.01)


@pytest.mark.parametrize("text", ["soon", "-1", "0", "1y", "9" * 400])
def test_no_half_life(run: Run, text: str) -> None:
    done = run("episodes", "recall", "x", f"--half-life={text}", code=2)
    assert "half" in done.err


def test_what_documents_contain(run: Run, project: str) -> None:
    small = record(run, project, "velocity", outcome='{"done": 3, "late": false}')
    large = record(run, project, "velocity", outcome='{"done": 9}')

    def found(*words: str) -> set[str]:
        hits = recall(run, "velocity", "--project", project, "--no-group", *words)
        return {hit["episode"]["episode_id"] for hit in hits}

    assert found("--outcome", '{"done": 3}') == {small}
    assert found("--outcome", '{"late": true}') == set()
    assert found("--perception", '{"situation": "velocity"}') == {small, large}
    assert found("--reasoning", '{"decision": "wait"}') == set()
    assert found("--action", '{"sprint_created": true}', "--outcome", '{"done": 9}') == {large}
    assert "is no JSON" in run("episodes", "recall", "x", "--action", "{", code=2).err


def test_several_projects(run: Run, project: str) -> None:
    mine = record(run, project, "velocity")
    theirs = record(run, f"{project}-b", "velocity")
    record(run, f"{project}-c", "velocity")
    hits = recall(run, "velocity", "--project", project, "--project", f"{project}-b")
    assert {hit["episode"]["episode_id"] for hit in hits} == {mine, theirs}


def test_knowledge(run: Run, project: str) -> None:
    run("knowledge", "add", "strategy", "split large stories", "--candidate", "--project", project,
        "--confidence", "0.7")  # fmt: skip
    words = ("large stories", "--project", project, "--active", "no")
    told = run("knowledge", "recall", *words, "--explain", "--route", "exact", "--age-weight",
               "0.2", "--half-life", "7", "--diversity", "0.1").data  # fmt: skip
    assert told["account"]["tried"] == ["exact"]
    (hit,) = told["hits"]
    assert hit["terms"]["worth"] == 0.7
    assert hit["terms"]["recency_weight"] == 0.2
    text = run("knowledge", "recall", *words, "--explain", "--table").out
    assert "0.15 * 0.700 confidence" in " ".join(text.split())
    assert "why" in text
