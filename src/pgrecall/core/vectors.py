"""From whatever callers hold an embedding in to the value that is sent to PostgreSQL.

This runs in every recall, so the way for good values is short: one conversion and one norm. The
norm alone tells all faults, as it is NaN, infinite or zero when they occur; only then does a slow
walk find which one it is and where.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from pgvector import Vector

from pgrecall.errors import InvalidVector
from pgrecall.models import VectorLike

# pgvector adds up squares in single precision for the cosine distance. Beyond these lengths the
# sum becomes infinite or zero and the distance NaN, which would sort before every true answer.
MAX_LENGTH = 1e18
MIN_LENGTH = 1e-18

_MAX_FLOAT32 = 3.4028235677973366e38  # where rounding to single precision gives infinity


def to_vector(value: VectorLike | Vector, dimensions: int | None) -> Vector:
    """Check an embedding and convert it for PostgreSQL.

    Args:
        value: A list, tuple or other sequence of numbers, ``array.array``, ``numpy.ndarray`` of
            floats or integers, anything else with ``tolist()`` (a tensor), or a
            ``pgvector.Vector``.
        dimensions: The length it must have; None for any.

    Raises:
        InvalidVector: Wrong length; a value that is no number, NaN, infinite or too large for
            single precision; all values zero; or a length (L2 norm) outside 1e-18 ... 1e18.
            The message names the first bad position, counted from 0. Of a sequence that is
            otherwise good, only the first value is checked for being a bool.
    """
    # An array can only have come from a numpy that is loaded; ours to use, never to load.
    numpy = sys.modules.get("numpy")
    if isinstance(value, Vector):
        if numpy is None:
            _check_list(value.to_list(), dimensions)
        else:
            _from_numpy(numpy, value.to_numpy(), dimensions)
        return value
    if numpy is not None and isinstance(value, numpy.ndarray):
        return _from_numpy(numpy, value, dimensions)
    values = _as_list(value)
    _check_list(values, dimensions)
    return Vector(values)


def _from_numpy(numpy: Any, value: Any, dimensions: int | None) -> Vector:
    """Convert an ``ndarray`` without a Python object per number."""
    if value.ndim != 1:
        raise InvalidVector(
            f"the embedding is an array of shape {value.shape}, not of one dimension",
            hint=f"pass one vector of shape ({dimensions or 'dimensions'},), for instance row [0]",
        )
    if dimensions is not None and len(value) != dimensions:
        raise _wrong_length(len(value), dimensions)
    kind = value.dtype.kind
    if kind == "O":
        return to_vector(value.tolist(), dimensions)
    if kind not in "fiu":
        raise InvalidVector(
            f"the embedding is an array of {value.dtype}, not of floats",
            hint="convert it with .astype('float32')",
        )
    with numpy.errstate(all="ignore"):  # an overflow is an error of ours, not also a warning
        single = value.astype(numpy.float32, copy=False)
        square = single.dot(single)
    if not MIN_LENGTH**2 < square < MAX_LENGTH**2:
        raise _explain(value.tolist())
    return Vector(single)


def _as_list(value: Any) -> list[Any]:
    """The values as a list; refuses what has no order or is no collection of numbers."""
    if isinstance(value, list):
        return value
    if hasattr(value, "tolist"):
        values = value.tolist()
        if isinstance(values, list):
            return values
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return list(value)
    hint = "pass a list of floats or a one-dimensional array"
    if isinstance(value, AbstractSet):
        hint += "; a set has no order"
    raise InvalidVector(f"a {type(value).__name__} is no embedding", hint=hint)


def _check_list(values: list[Any], dimensions: int | None) -> None:
    """Refuse a list that is no usable vector (of ``dimensions`` numbers)."""
    if dimensions is not None and len(values) != dimensions:
        raise _wrong_length(len(values), dimensions)
    try:
        length = math.hypot(*values)
    except (TypeError, ValueError, OverflowError) as error:
        raise _explain(values) from error
    if not MIN_LENGTH < length < MAX_LENGTH or type(values[0]) is bool:
        raise _explain(values)


def _wrong_length(found: int, dimensions: int) -> InvalidVector:
    return InvalidVector(
        f"the embedding has {found} dimensions, the memory has {dimensions}",
        hint="use the embedding model this memory was made for",
    )


def _explain(values: Sequence[Any]) -> InvalidVector:
    """Find what is wrong with values that failed the norm."""
    for position, item in enumerate(values):
        fault = _fault(item)
        if fault:
            return InvalidVector(
                f"the embedding holds {fault} at position {position}",
                hint="every value must be a finite number",
            )
    if not any(array("f", [float(item) for item in values])):
        return InvalidVector(
            "all values of the embedding are zero in single precision, so it has no direction",
            hint="store the row without a vector, or embed a text that is not empty",
        )
    return InvalidVector(
        f"the embedding's length (L2 norm) is {math.hypot(*values):.3g},"
        f" outside {MIN_LENGTH:g} ... {MAX_LENGTH:g}, where cosine distances fail",
        hint="normalise it to length 1",
    )


def _fault(item: Any) -> str | None:
    """What makes one value unusable, or None."""
    if isinstance(item, bool | str | bytes | complex) or item is None:
        return f"a {type(item).__name__}"
    try:
        number = float(item)
    except (TypeError, ValueError):
        return f"a {type(item).__name__}"
    except OverflowError:
        return "a number too large for single precision"
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "an infinite value"
    if abs(number) >= _MAX_FLOAT32:
        return f"{number:g}, too large for single precision,"
    return None
