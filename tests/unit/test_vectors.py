"""Embeddings given by callers: every form that is good, every fault with its place."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from array import array
from collections import deque
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pgvector import Vector

from pgrecall.core.vectors import to_vector
from pgrecall.errors import InvalidVector

GOOD = [0.5, -1.25, 3.0]


@pytest.mark.parametrize(
    "value",
    [
        GOOD,
        tuple(GOOD),
        deque(GOOD),
        array("f", GOOD),
        array("d", GOOD),
        np.array(GOOD, dtype=np.float32),
        np.array(GOOD, dtype=np.float64),
        np.array(GOOD, dtype=np.float16),
        np.array(GOOD, dtype=">f4"),
        np.array(GOOD, dtype=object),
        np.repeat(np.array(GOOD, dtype=np.float32), 2)[::2],
        Vector(GOOD),
        [Decimal("0.5"), -1.25, 3],
        [np.float32(0.5), np.float64(-1.25), np.int64(3)],
    ],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, 'dtype', '')}",
)
def test_every_form_gives_the_same_vector(value: Any) -> None:
    assert to_vector(value, 3).to_list() == GOOD


def test_integers_are_numbers() -> None:
    assert to_vector(np.array([1, 2, 3]), 3).to_list() == [1.0, 2.0, 3.0]
    assert to_vector([1, 2, 3], 3).to_list() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("value", [[1.0] * 4, (1.0,) * 4, np.ones(4), Vector([1.0] * 4), []])
def test_a_wrong_length_names_both_numbers(value: Any) -> None:
    found = 4 if not isinstance(value, list) or value else 0
    with pytest.raises(InvalidVector, match=f"has {found} dimensions, the memory has 3"):
        to_vector(value, 3)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (math.nan, "NaN at position 2"),
        (math.inf, "an infinite value at position 2"),
        (-math.inf, "an infinite value at position 2"),
        (1e39, "too large for single precision, at position 2"),
        (-3.4028235677973366e38, "too large for single precision, at position 2"),
    ],
)
@pytest.mark.parametrize("form", [list, tuple, np.array, lambda v: np.array(v, dtype=object)])
def test_a_bad_number_is_named_with_its_place(bad: float, said: str, form: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InvalidVector, match=said):
            to_vector(form([1.0, 2.0, bad, math.nan]), 4)


@pytest.mark.parametrize(("bad", "said"), [(math.nan, "NaN"), (math.inf, "infinite")])
def test_bad_single_precision_arrays(bad: float, said: str) -> None:
    value = np.ones(1536, dtype=np.float32)
    value[700] = bad
    with pytest.raises(InvalidVector, match=f"{said}.* at position 700"):
        to_vector(value, 1536)
    with pytest.raises(InvalidVector, match=f"{said}.* at position 700"):
        to_vector(Vector(value), 1536)


@pytest.mark.parametrize(
    ("bad", "kind"),
    [("1", "str"), (None, "NoneType"), (1j, "complex"), ([1.0], "list"), (object(), "object")],
)
def test_what_is_no_number_is_named_with_its_place(bad: object, kind: str) -> None:
    with pytest.raises(InvalidVector, match=f"a {kind} at position 1"):
        to_vector([1.0, bad, 2.0], 3)  # type: ignore[list-item]


def test_booleans_are_refused() -> None:
    with pytest.raises(InvalidVector, match="a bool at position 0"):
        to_vector([True, False, True], 3)
    with pytest.raises(InvalidVector, match="array of bool"):
        to_vector(np.array([True, False, True]), 3)


def test_a_huge_integer_is_refused() -> None:
    with pytest.raises(InvalidVector, match="too large for single precision at position 1"):
        to_vector([1.0, 10**400], 2)


@pytest.mark.parametrize("value", [[0.0] * 3, np.zeros(3), np.zeros(3, "f4"), [1e-60, 0.0, -0.0]])
def test_all_zero_is_refused(value: Any) -> None:
    with pytest.raises(InvalidVector, match="no direction"):
        to_vector(value, 3)


@pytest.mark.parametrize("size", [1e-25, 1e25])
@pytest.mark.parametrize("form", [list, lambda v: np.array(v, dtype=np.float32)])
def test_a_length_that_breaks_cosine_distances_is_refused(size: float, form: Any) -> None:
    with pytest.raises(InvalidVector, match="L2 norm"):
        to_vector(form([size, size]), 2)


@pytest.mark.parametrize(
    "value", ["123", b"123", {1.0, 2.0, 3.0}, 3.0, None, iter(GOOD), np.float32(1), np.ones((1, 3))]
)
def test_what_is_no_row_of_numbers_is_refused(value: Any) -> None:
    with pytest.raises(InvalidVector, match="embedding"):
        to_vector(value, 3)


def test_complex_arrays_are_refused() -> None:
    with pytest.raises(InvalidVector, match="complex128"):
        to_vector(np.array([1 + 0j, 2]), 2)


def test_anything_with_tolist_is_taken() -> None:
    class Tensor:
        def tolist(self) -> list[float]:
            return GOOD

    assert to_vector(Tensor(), 3).to_list() == GOOD


def test_the_callers_array_is_not_changed_later() -> None:
    value = np.array(GOOD, dtype=np.float32)
    vector = to_vector(value, 3)
    value[:] = 9
    assert vector.to_list() == GOOD


def test_numpy_is_never_loaded_for_it() -> None:
    code = (
        "import sys; from pgrecall.core.vectors import to_vector; to_vector([1.0], 1);"
        "sys.exit('numpy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.lists(st.floats(width=64) | st.integers(), min_size=1, max_size=6))
def test_lists_and_arrays_are_judged_alike(values: list[float]) -> None:
    def judge(value: Any) -> list[float] | None:
        try:
            return to_vector(value, len(values)).to_list()
        except InvalidVector:
            return None

    from_list = judge(values)
    try:
        as_array = np.array(values, dtype=np.float64)
    except OverflowError:  # an integer beyond any float
        assert from_list is None
        return
    length = math.hypot(*as_array)
    if math.isfinite(length) and (1.1e-18 < length < 0.9e18):
        assert from_list is not None
        assert from_list == judge(as_array)
        assert all(map(math.isfinite, from_list))
    elif not 0.9e-18 < length < 1.1e18:  # NaN included
        assert from_list is None
        assert judge(as_array) is None
