"""The text of an episode: stable, readable, within its budget, without the outcome's place."""

from __future__ import annotations

import inspect
import json
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgrecall.core.text import fair_shares, render_episode, render_knowledge
from pgrecall.core.tokens import cut, estimate_tokens
from pgrecall.errors import InvalidInput


def said(perception: dict[str, Any], max_tokens: int = 256) -> str:
    return render_episode(perception, {}, {}, max_tokens=max_tokens)


def test_a_decision_reads_as_phrases_in_the_order_seen_decided_done() -> None:
    assert (
        render_episode(
            {"team_size": 5, "backlogTasks": 12, "velocity-trend": "declining"},
            {"confidence": 0.8, "decision": "create_sprint"},
            {"sprint_created": True, "holiday": False, "assignee": None},
        )
        == "backlog tasks: 12; team size: 5; velocity trend: declining. "
        "decision: create sprint; confidence: 0.8. holiday: no; sprint created: yes"
    )


def test_there_is_no_way_to_pass_an_outcome() -> None:
    assert list(inspect.signature(render_episode).parameters) == [
        "perception", "reasoning", "action", "max_tokens",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"HTTPStatus": 404}, "http status: 404"),
        ({"a": 2.0}, "a: 2"),
        ({"a": 0.123456}, "a: 0.1235"),
        ({"a": 1234567.891}, "a: 1234568"),
        ({"a": 10**20}, "a: 1e+20"),
        ({"a": 10**400, "b": 1}, "b: 1"),
        ({"a": math.nan, "b": 1}, "b: 1"),
        ({"a": -0.0}, "a: 0"),
        ({"tool": "createTicket"}, "tool: create ticket"),
        ({"device": "iPhone"}, "device: iPhone"),
        ({"tags": ["red", "blue", "red"]}, "tags: red, blue"),
        ({"tags": [f"t{i}" for i in range(11)]}, "tags: t0, t1, t2, t3, t4, t5, t6, t7 and 3 more"),
        ({"load": list(range(500))}, "load: 500 numbers from 0 to 499, last 499"),
        ({"load": [10**400] * 9, "b": 1}, "b: 1"),
        ({"order": {"city": "Austin", "items": 3}}, "order city: Austin, items: 3"),
        ({"more": ["x " * 30, "y"]}, "more: " + "x " * 29 + "x, y"),
        ({"call": '{"args": [1, 2]}'}, "call args: 1, 2"),
        ({"broken": "{not json"}, "broken: {not json"),
        ({"a": {"b": "the very same long sentence"}, "c": "the very same long sentence"},
         "c: the very same long sentence"),
        ({"text": "  a\n\n b\t"}, "text: a b"),
        ({"at": "noon", "日本": "東京"}, "at: noon; 日本: 東京"),
        ({"": "bare"}, "bare"),
        ({"e": "", "l": [], "d": {}, "n": None}, ""),
    ],
)  # fmt: skip
def test_values(value: dict[str, Any], text: str) -> None:
    assert said(value) == text


def test_identifiers_and_times_come_last_or_not_at_all() -> None:
    text = said(
        {
            "order_id": "A17",
            "created_at": "2026-01-02T10:00:00Z",
            "seen": "2026-01-02 10:00",
            "run": "7f2c1d5e-1111-2222-3333-444455556666",
            "commit": "8199be6f699a395f99f89df973f9dc5285fbcfcd",
            "note": "see 7f2c1d5e-1111-2222-3333-444455556666 please",
            "epoch_ts": 1767348000,
            "weather": "rain",
        }
    )
    assert text.startswith("note: see please; weather: rain. ")
    assert "order id: A17" in text
    assert "7f2c1d5e" not in text
    assert "8199be6f" not in text


def test_a_long_part_leaves_the_others_their_share() -> None:
    text = render_episode(
        {"request": "alpha beta gamma " * 500},
        {"reason": "delta epsilon " * 500},
        {"answer": "zeta eta " * 500},
        max_tokens=100,
    )
    counts = [text.count(word) for word in ("alpha", "delta", "zeta")]
    assert min(counts) >= 5
    assert counts[0] > 10
    assert 80 <= estimate_tokens(text) <= 98


def test_an_unused_share_flows_on() -> None:
    text = render_episode({"request": "alpha " * 500}, {"reason": "short"}, {"done": True})
    assert text.count("alpha") > 200
    assert text.endswith("reason: short. done: yes")


def test_words_are_not_cut() -> None:
    words = set(said({"request": "alpha beta gamma " * 500}, 64).removeprefix("request: ").split())
    assert words == {"alpha", "beta", "gamma"}


def test_many_keys_beside_one_long_text() -> None:
    value: dict[str, Any] = {f"key{i:04}": i for i in range(5000)}
    value["request"] = "please book a flight"
    # Of thousands of keys only the first are read, by name.
    assert said(value, 64).startswith("key0000: 0; key0001: 1; ")
    few = dict(list(value.items())[:50]) | {"request": value["request"]}
    assert said(few, 64).startswith("request: please book a flight; key0000: 0; ")


def test_depth_bombs_are_read_as_far_as_it_makes_sense() -> None:
    deep: Any = "end"
    for _ in range(10_000):
        deep = [{"a": deep}]
    assert said({"top": "seen", "deep": deep}) == "top: seen"
    assert said({"top": "seen", "deep": "[" * 10_000}) == "top: seen"


def test_wide_documents_are_bounded() -> None:
    wide = {f"k{i}": {f"k{j}": [{"x": j, "y": i}] * 50 for j in range(50)} for i in range(50)}
    assert 0 < estimate_tokens(said(wide)) <= 254


def test_knowledge_begins_with_its_description() -> None:
    text = render_knowledge(
        "Split large backlogs before planning", {"when": {"backlog_tasks": 30}, "id": "k1"}
    )
    assert text == "Split large backlogs before planning. when backlog tasks: 30. id: k1"


@pytest.mark.parametrize("max_tokens", [0, 15, -1])
def test_too_small_a_budget_is_refused(max_tokens: int) -> None:
    with pytest.raises(InvalidInput, match="cannot be rendered"):
        said({"a": 1}, max_tokens)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=60),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=12), inner, max_size=5)
    ),
    max_leaves=20,
)
objects = st.dictionaries(st.text(max_size=12), json_values, max_size=6)


def shuffled(value: Any, source: random.Random) -> Any:
    if isinstance(value, dict):
        items = list(value.items())
        source.shuffle(items)
        return {key: shuffled(item, source) for key, item in items}
    return [shuffled(item, source) for item in value] if isinstance(value, list) else value


@settings(derandomize=True, max_examples=200, deadline=None)
@given(objects, objects, objects, st.integers(16, 300))
def test_any_json_gives_one_text_within_budget_whatever_its_key_order(
    perception: dict[str, Any], reasoning: dict[str, Any], action: dict[str, Any], budget: int
) -> None:
    text = render_episode(perception, reasoning, action, max_tokens=budget)
    assert estimate_tokens(text) <= budget - 2
    source = random.Random(7)
    again = [shuffled(part, source) for part in (perception, reasoning, action)]
    assert render_episode(*again, max_tokens=budget) == text


def test_the_way_through_the_database_changes_nothing() -> None:
    given_ = {"a": 1.0, "b": 1e22, "tuple": (1, 2), "big": 2**53 + 1}
    # jsonb keeps numbers as decimals: 1e22 comes back as an integer.
    stored = json.loads('{"a": 1.0, "b": 10000000000000000000000, "tuple": [1, 2]}')
    stored["big"] = 2**53 + 1
    assert said(given_) == said(stored)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.text(), st.integers(0, 40))
def test_cut_keeps_a_beginning_within_the_limit(text: str, tokens: int) -> None:
    kept = cut(text, tokens)
    assert text.startswith(kept)
    assert estimate_tokens(kept) <= tokens


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 9), st.sampled_from([1.0, 2.0]))),
    st.integers(0, 300),
)
def test_shares_never_exceed_the_budget_or_the_need(
    wants: list[tuple[int, int, float]], budget: int
) -> None:
    costs = [cost for cost, _, _ in wants]
    least = [min(cost, need) for cost, need, _ in wants]
    shares = fair_shares(costs, least, budget, [weight for _, _, weight in wants])
    assert len(shares) == len(costs)
    assert sum(shares) <= budget
    for share, cost, need in zip(shares, costs, least, strict=True):
        assert share <= cost
        assert share == 0 or share >= need
    if sum(costs) <= budget:
        assert shares == costs


def test_shares_are_fair() -> None:
    assert fair_shares([100, 10, 100], [4, 4, 4], 90) == [40, 10, 40]
    assert fair_shares([100, 100], [4, 4], 90, [2.0, 1.0]) == [60, 30]
    assert fair_shares([100, 9], [14, 6], 20) == [14, 6]
    assert fair_shares([100, 9], [50, 6], 20) == [0, 9]


def test_nothing_is_cut_while_there_is_room() -> None:
    situation = "an ordinary sprint, nothing special"
    text = render_episode({"situation": situation, "team": "x", "b": 1, "c": [1, 2]}, {}, {})
    assert situation in text
