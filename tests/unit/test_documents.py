"""JSON documents and texts: what is accepted survives PostgreSQL, what is refused is named."""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgrecall.core.documents import MAX_DEPTH, check_text, from_json, to_json
from pgrecall.errors import InvalidInput

BIG = 1_000_000


def convert(value: Any, max_bytes: int = BIG) -> str:
    return to_json(value, name="perception", max_bytes=max_bytes)


def nested(levels: int) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for _ in range(levels - 1):
        document = {"a": document}
    return document


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8", min_codepoint=1)), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.dictionaries(st.text(st.characters(codec="utf-8", min_codepoint=1)), json_values))
def test_what_json_can_say_comes_back_the_same(value: dict[str, Any]) -> None:
    text = convert(value)
    assert json.loads(text) == value
    assert "\0" not in text
    text.encode()


def test_any_mapping_is_an_object() -> None:
    assert convert(MappingProxyType({"a": (1, 2)})) == '{"a":[1,2]}'
    assert convert(OrderedDict(a=1)) == '{"a":1}'
    assert convert({}) == "{}"


@pytest.mark.parametrize("value", [None, [1], "text", 3, ("a", 1)])
def test_anything_else_at_the_top_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"perception is a .*not a JSON object"):
        convert(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"items": [0, 1, 2, {"when": datetime(2026, 1, 1, tzinfo=UTC)}]},
         r"perception\.items\[3\]\.when is a datetime.*isoformat"),
        ({"a": {"odd key": {1, 2}}}, r"perception\.a\['odd key'\] is a set.*sorted"),
        ({"a": (Decimal(1),)}, r"perception\.a\[0\] is a Decimal.*float\(\)"),
        ({"a": b"x"}, r"perception\.a is a bytes"),
        ({"a": np.float32(1)}, r"perception\.a is a float32.*\.item\(\)"),
        ({"a": np.ones(2)}, r"perception\.a is a ndarray.*tolist"),
        ({"a": MappingProxyType({})}, r"perception\.a is a mappingproxy.*dict\(\)"),
        ({"a": [float("nan")]}, r"perception\.a\[0\] is nan"),
        ({"a": float("-inf")}, r"perception\.a is -inf"),
        ({"a": "x\0y"}, r"perception\.a holds a NUL character at position 1"),
        ({"a": {"k\0": 1}}, r"a key of perception\.a holds a NUL character"),
        ({"a": ["ok", "x\ud800"]}, r"perception\.a\[1\] holds a lone surrogate \(U\+D800\)"),
        ({"b": {"\udfff": 1}}, r"a key of perception\.b holds a lone surrogate"),
        ({1: "a"}, r"perception has the key 1 of type int"),
        ({"a": [{None: 1}]}, r"perception\.a\[0\] has the key None of type NoneType"),
        ({"a": {True: 1}}, r"perception\.a has the key True of type bool"),
        ({"a": 10**5000}, r"perception\.a is an integer of more than 4,300 digits"),
        ({"a": -(10**5000)}, r"perception\.a is an integer of more than 4,300 digits"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_place(value: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        convert(value)


def test_an_escaped_backslash_is_no_nul() -> None:
    assert json.loads(convert({"path": "C:\\u0000"})) == {"path": "C:\\u0000"}


def test_4300_digits_are_accepted() -> None:
    value = {"a": 10**4299}
    assert json.loads(convert(value)) == value


@pytest.fixture
def unlimited_digits() -> Iterator[None]:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    yield
    sys.set_int_max_str_digits(before)


@pytest.mark.usefixtures("unlimited_digits")
def test_long_integers_are_refused_where_python_would_write_them() -> None:
    with pytest.raises(InvalidInput, match="more than 4,300 digits"):
        convert({"a": 10**4300})
    assert len(convert({"a": "1" * 5000})) == 5008


def test_size_is_counted_in_bytes_and_both_are_named() -> None:
    assert convert({"a": "é" * 10}, max_bytes=28)
    with pytest.raises(InvalidInput, match=r"takes 28 bytes as JSON, at most 27 are"):
        convert({"a": "é" * 10}, max_bytes=27)


class Phase(Enum):
    PLANNING = "planning"


@pytest.mark.parametrize("other", [{}, {"n": None}], ids=["quickly", "carefully"])
def test_uuids_and_enumerations_have_an_obvious_form(other: dict[str, Any]) -> None:
    document = {"id": UUID(int=1), "phase": Phase.PLANNING, **other}
    assert json.loads(convert(document)) == {
        "id": "00000000-0000-0000-0000-000000000001", "phase": "planning", **other,
    }  # fmt: skip


def test_nesting_ends_at_the_limit() -> None:
    assert json.loads(convert(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    for levels in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(InvalidInput, match="deeper than 254 levels"):
            convert(nested(levels))


def test_cycles_are_refused() -> None:
    single: dict[str, Any] = {}
    single["self"] = single
    with pytest.raises(InvalidInput, match="contains itself"):
        convert(single)
    branching: list[Any] = []
    branching.extend([branching, branching])
    with pytest.raises(InvalidInput, match="at most 10,000 are accepted"):
        convert({"a": branching}, max_bytes=10_000)


def test_a_message_stays_short_whatever_the_key() -> None:
    with pytest.raises(InvalidInput) as caught:
        convert({"k" * 100_000: {1: 2}})
    assert len(str(caught.value)) < 300


class Mode(StrEnum):
    FAST = "fast"


def test_text_is_returned_as_a_plain_string() -> None:
    assert check_text("apollo", name="project_id", max_length=6) == "apollo"
    assert type(check_text(Mode.FAST, name="mode")) is str
    assert check_text(None, name="sprint_id", allow_none=True) is None
    assert check_text(" ", name="goal", allow_blank=True) == " "


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "project_id is missing"),
        (5, "project_id is a int"),
        (b"x", "project_id is a bytes"),
        ("", "project_id is blank"),
        (" \n", "project_id is blank"),
        ("x" * 51, "project_id has 51 characters, at most 50 fit"),
        ("x" * 1_000_000, "project_id has 1,000,000 characters"),
        ("a\0b", "NUL character at position 1"),
        ("a\udc00", r"lone surrogate \(U\+DC00\) at position 1"),
    ],
)
def test_a_bad_text_is_refused(value: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        check_text(value, name="project_id", max_length=50)
    assert len(str(caught.value)) < 200


def test_length_is_counted_in_characters() -> None:
    assert check_text("é🙂" * 25, name="project_id", max_length=50) == "é🙂" * 25


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"a":[1,2.5,null,true,"x\\u00e9"]}',
        '{"n":123456789012345678}',
        '{"n":18446744073709551616}',
        '{"n":-9223372036854775809}',
        '{"n":1000000000000000000000.5}',
        '{"s":"\\ud83d\\ude00"}',
        '"12"',
    ],
)
def test_documents_are_read_as_python_reads_them(text: str) -> None:
    for data in (text, text.encode()):
        found = from_json(data)
        assert found == json.loads(text)
        assert repr(found) == repr(json.loads(text))
