"""One line of an import: what is taken, what is refused, and what the refusal says."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from pgrecall.errors import InvalidInput
from pgrecall.models import NewEpisode
from pgrecall.ops.transfer import KEYS
from pgrecall.ops.transfer.lines import DERIVED_PREFIX, Entry, Rules, parse
from pgrecall.ops.transfer.reading import Line

RULES = Rules(project_id=None, dimensions=3, max_document_bytes=1000)
GOOD: dict[str, Any] = {
    "project_id": "apollo",
    "agent_version": "1.0",
    "perception": {"backlog": 12},
    "reasoning": {"confidence": 0.8},
    "action": {"created": True},
}


def read(text: str | bytes, rules: Rules = RULES) -> Entry:
    raw = text if isinstance(text, bytes) else text.encode()
    return parse(Line(7, raw), rules, 10_000)


def good(**changes: Any) -> str:
    return json.dumps({**GOOD, **changes})


def test_every_key_of_a_line_reaches_its_column() -> None:
    values = {
        **GOOD,
        "outcome": {"completed": 5},
        "outcome_quality": 0.5,
        "timestamp": "2026-03-01T10:00:00+02:00",
        "control_mode": "memory_augmented",
        "decision_source": "rules",
        "sprint_id": "s1",
        "chronicle_note_id": "6f1c1a52-0a32-4a4b-a6c1-6a43bd0d6b5c",
        "external_id": "x1",
        "episode_id": "0b0e8a9c-98e6-4e0a-8a3c-0a1a2d9d6a11",
        "embedding": [1, 0.5, 0],
    }
    assert set(values) == set(KEYS) == {field.name for field in fields(NewEpisode)}
    row = read(json.dumps(values)).row
    assert row.project_id == "apollo"
    assert row.agent_version == "1.0"
    assert json.loads(row.perception) == {"backlog": 12}
    assert json.loads(row.outcome or "") == {"completed": 5}
    assert row.outcome_quality == 0.5
    assert row.timestamp == datetime(2026, 3, 1, 8, tzinfo=UTC)
    assert row.control_mode == "memory_augmented"
    assert (row.decision_source, row.sprint_id, row.external_id) == ("rules", "s1", "x1")
    assert row.chronicle_note_id == UUID("6f1c1a52-0a32-4a4b-a6c1-6a43bd0d6b5c")
    assert row.episode_id == UUID("0b0e8a9c-98e6-4e0a-8a3c-0a1a2d9d6a11")
    assert row.embedding is not None
    assert row.embedding.to_list() == [1, 0.5, 0]


def test_the_identifier_of_the_row_is_fixed_for_repeated_writes() -> None:
    entry = read(good())
    assert entry.new.episode_id == entry.row.episode_id


def test_null_is_as_good_as_absent() -> None:
    row = read(good(outcome=None, control_mode=None, embedding=None, timestamp=None)).row
    assert row.outcome is None
    assert row.control_mode == "rule_based_only"
    assert row.timestamp is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON: Expecting property name"),
        ("nonsense", "not JSON: Expecting value at character 0"),
        (b'{"a": "\xff"}', "not UTF-8 text: invalid start byte at byte 7"),
        ("[1]", "a JSON array, not an object"),
        ('"x"', "a JSON string, not an object"),
        ("null", "a JSON null, not an object"),
        ("3", "a JSON number, not an object"),
        ("[" * 5000, "cannot be read"),
        ('{"a": ' + "9" * 5000 + "}", "cannot be read"),
        (good(colour="red"), "unknown key 'colour'; known are project_id, agent_version"),
        (good(a=1, b=2), "unknown keys 'a', 'b'; known"),
        ("{}", "missing: project_id, agent_version, perception, reasoning, action"),
        (good(action=None, agent_version=None), "missing: agent_version, action"),
        (good(perception="text"), "perception is a str, not a JSON object"),
        (good(perception={"a": [1, {"b": "x\0"}]}), r"perception\.a\[1\]\.b"),
        (good(perception={"a": "\ud800"}), "lone surrogate"),
        (good(perception={"a": "x" * 1000}), "perception takes 1,0.. bytes"),
        (good(perception={"a": float("nan")}), r"perception\.a"),
        (good(project_id="x" * 51), "project_id has 51 characters"),
        (good(project_id=5), "project_id is a int"),
        (good(agent_version=1.0), "agent_version is a float"),
        (good(outcome_quality=1.5), "outcome_quality is 1.5"),
        (good(outcome_quality="high"), "outcome_quality must be a number"),
        (good(outcome_quality=float("nan")), "outcome_quality is nan"),
        (good(control_mode="magic"), "control_mode is 'magic'"),
        (good(control_mode=["magic"]), "control_mode is"),
        (good(episode_id="7"), "episode_id is '7', which is not a UUID"),
        (good(episode_id=7), "episode_id is 7, which is not a UUID"),
        (good(chronicle_note_id="x"), "chronicle_note_id is 'x'"),
        (good(external_id=""), "external_id is blank"),
        (good(external_id="x" * 201), "external_id has 201"),
        (good(timestamp="2026-03-01T10:00:00"), "no time zone"),
        (good(timestamp="yesterday"), "timestamp is 'yesterday'"),
        (good(timestamp=1772355600), "timestamp is 1772355600"),
        (good(timestamp="9999-12-31T23:59:59-12:00"), "not a time that can be stored"),
        (good(timestamp="0001-01-01T00:00:00+12:00"), "not a time that can be stored"),
        (good(embedding=[1, 2]), "2 dimensions, the memory has 3"),
        (good(embedding=[1, 2, float("nan")]), "NaN at position 2"),
        (good(embedding=[0, 0, 0]), "zero"),
        (good(embedding=[1, None, 2]), "NoneType at position 1"),
        (good(embedding="[1,2,3]"), "a str is no embedding"),
        (good(embedding={"a": 1}), "a dict is no embedding"),
    ],
)
def test_a_bad_line_says_what_is_wrong(text: str | bytes, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        read(text)


def test_an_overlong_line_is_refused_unread() -> None:
    with pytest.raises(InvalidInput, match="longer than 10,000 bytes"):
        parse(Line(1, b"{}", overlong=True), RULES, 10_000)


def test_the_project_of_the_import_fills_in_and_keeps_others_out() -> None:
    rules = Rules(project_id="apollo", dimensions=3, max_document_bytes=1000)
    assert read(good(project_id=None), rules).row.project_id == "apollo"
    assert read(good(), rules).row.project_id == "apollo"
    with pytest.raises(InvalidInput, match="'gemini', but this import is for project 'apollo'"):
        read(good(project_id="gemini"), rules)


def test_a_line_without_identifier_is_known_by_its_content() -> None:
    def derived(**changes: Any) -> str:
        return str(read(good(**changes)).row.external_id)

    first = derived()
    assert first.startswith(DERIVED_PREFIX)
    assert len(first) <= 200
    assert derived(embedding=[1, 0, 0]) == first
    assert derived(outcome=None) == first
    reordered = json.dumps(dict(reversed(GOOD.items())), indent=None, separators=(", ", " :  "))
    assert read(reordered).row.external_id == first
    others = [
        derived(action={"created": False}),
        derived(project_id="gemini"),
        derived(outcome={"completed": 5}),
        derived(timestamp="2026-03-01T10:00:00+00:00"),
    ]
    assert len({first, *others}) == 5


def test_a_line_with_an_identifier_keeps_it() -> None:
    assert read(good(external_id="x")).row.external_id == "x"
    assert read(good(episode_id="0b0e8a9c-98e6-4e0a-8a3c-0a1a2d9d6a11")).row.external_id is None


def test_a_time_in_utc_may_be_written_with_z() -> None:
    row = read(good(timestamp="2026-03-01T10:00:00.123456Z")).row
    assert row.timestamp == datetime(2026, 3, 1, 10, 0, 0, 123456, UTC)
    assert row.timestamp.utcoffset() == timedelta(0)
