"""JSON documents and short texts: what PostgreSQL would refuse is refused here, and named.

The way for usual values is one pass of orjson, which refuses most of what must be refused. What
it refuses, or writes as ``null``, takes the careful way: Python's own encoder, which knows more
numbers and strings, and on failure a walk that finds the place, so that the error can say
``perception.items[3].when``.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Literal, overload
from uuid import UUID

import orjson

from pgrecall.errors import InvalidInput

MAX_DEPTH = 254
"""Levels of nesting accepted, as many as orjson writes."""

MAX_DIGITS = 4300
"""Digits accepted in an integer: Python refuses to read back longer ones."""

_CONTAINERS = (dict, list, tuple)
_LONG_NUMBER = re.compile(rf"[0-9]{{{MAX_DIGITS + 1}}}")
_STRICT = (
    orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
# Any digit becomes a 0, so that a long number is a run of them: ten times as fast as a pattern.
_AS_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_LONG_FOR_ORJSON = b"0" * 19
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

_HINTS = {
    "datetime": "convert it with .isoformat()",
    "date": "convert it with .isoformat()",
    "time": "convert it with .isoformat()",
    "timedelta": "convert it with .total_seconds()",
    "Decimal": "convert it with float() or str()",
    "bytes": "decode it, or encode it as base64 text",
    "set": "convert it with sorted()",
    "frozenset": "convert it with sorted()",
    "ndarray": "convert it with .tolist()",
}


def to_json(value: Mapping[str, Any], *, name: str, max_bytes: int) -> str:
    """Serialise a JSON object for a ``jsonb`` parameter.

    Args:
        value: String keys; values None, bool, int, finite float, str, list, tuple or dict, and
            UUID (stored as text) or Enum (its value).
        name: What it is called in error messages, such as ``perception``.
        max_bytes: Largest size of the result, in bytes of UTF-8.

    Returns:
        Compact JSON text that PostgreSQL stores as it is.

    Raises:
        InvalidInput: No object; a key that is no string; a value of a type that JSON lacks, NaN
            or infinite; a NUL character or a lone surrogate; more than 254 levels; an integer of
            more than 4,300 digits; more than ``max_bytes``. The message names the place.
    """
    if not isinstance(value, Mapping):
        raise InvalidInput(
            f"{name} is a {type(value).__name__}, not a JSON object",
            hint='pass a dict, such as {"value": ...}',
        )
    document = value if isinstance(value, dict) else dict(value)
    text = _quickly(document)
    if text is None:
        text = _carefully(document, name, max_bytes)
    if (size := len(text.encode())) > max_bytes:
        raise _too_large(name, f"{size:,}", max_bytes)
    # Escaped backslashes look the same (`\\\\u0000` is harmless), hence the second look.
    if "\\u0000" in text and (fault := _first_fault(document, name)):
        raise fault
    return text


def from_json(data: bytes | str) -> Any:
    """Read a JSON document as Python's own reader does, mostly five times as fast.

    orjson makes a float of an integer over 64 bits, so a document with a number as long takes
    the slower way.
    """
    written = data.encode() if isinstance(data, str) else bytes(data)
    return json.loads(written) if has_long_number(written) else orjson.loads(written)


def has_long_number(written: bytes) -> bool:
    """Whether JSON may hold an integer over 64 bits, of which orjson makes a float."""
    return len(written) >= len(_LONG_FOR_ORJSON) and _LONG_FOR_ORJSON in written.translate(
        _AS_ZEROS
    )


def same_json(stored: Any, given: Any) -> bool:
    """Whether two JSON values are the same after a journey through ``jsonb``.

    It writes 1e23 out as an integer that no float equals, so all numbers are compared as floats.
    """
    return stored == given or bool(_as_floats(stored) == _as_floats(given))


def _as_floats(value: Any) -> Any:
    return json.loads(json.dumps(value), parse_int=float)


def _quickly(document: dict[str, Any]) -> str | None:
    """Serialise a usual document; None for one that needs a closer look.

    orjson writes NaN and infinity as ``null``, so a document with a null is not a usual one.
    """
    try:
        written = orjson.dumps(document, option=_STRICT)
    except TypeError:
        return None
    return None if b"null" in written else written.decode()


def _carefully(document: dict[str, Any], name: str, max_bytes: int) -> str:
    _check_structure(document, name, max_bytes)
    try:
        text = _encode(document)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise _explain(document, name, str(error)) from error
    if (
        _digits_unlimited()
        and _LONG_NUMBER.search(text)
        and (fault := _first_fault(document, name))
    ):
        raise fault
    return text


def _plain(value: object) -> object:
    """Give the JSON value of what orjson writes as well: a UUID as text, an enumeration's value."""
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} is no JSON value")


# json.dumps would make an encoder anew for each document.
_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
).encode


@overload
def check_text(
    value: str,
    *,
    name: str,
    max_length: int | None = None,
    allow_none: Literal[False] = False,
    allow_blank: bool = False,
) -> str: ...


@overload
def check_text(
    value: str | None,
    *,
    name: str,
    max_length: int | None = None,
    allow_none: Literal[True],
    allow_blank: bool = False,
) -> str | None: ...


def check_text(
    value: str | None,
    *,
    name: str,
    max_length: int | None = None,
    allow_none: bool = False,
    allow_blank: bool = False,
) -> str | None:
    """Check a text for a ``VARCHAR`` or ``TEXT`` column and return it as a plain ``str``.

    Args:
        value: The text, or None.
        name: What it is called in error messages, such as ``project_id``.
        max_length: Most characters the column takes; None for a ``TEXT`` column.
        allow_none: Whether None is a value; it is returned as it is.
        allow_blank: Whether a text of nothing but white space is a value.

    Raises:
        InvalidInput: Missing, no string, blank, too long, or with a character that PostgreSQL
            cannot store (NUL, lone surrogate).
    """
    if value is None and allow_none:
        return None
    if not isinstance(value, str):
        raise InvalidInput(
            f"{name} is missing" if value is None else f"{name} is a {type(value).__name__}",
            hint=f"pass {name} as a string",
        )
    if max_length is not None and len(value) > max_length:
        raise InvalidInput(
            f"{name} has {len(value):,} characters, at most {max_length:,} fit: {_short(value)}",
            hint="shorten it",
        )
    if not allow_blank and not value.strip():
        raise InvalidInput(f"{name} is blank: {_short(value)}", hint=f"pass a {name} with content")
    if fault := _bad_character(value):
        raise InvalidInput(f"{name} holds {fault}", hint="remove or replace it")
    # A subclass such as StrEnum would reach the driver as something else.
    return str.__str__(value)


def _check_structure(document: dict[str, Any], name: str, max_bytes: int) -> None:
    """Refuse bad keys, too many levels and cycles, looking at one level of containers at a time.

    ``json.dumps`` would turn the key 1 into ``"1"`` without a word, and recurse into the depth.
    """
    level: list[Any] = [document]
    containers = 0
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for container in level:
            if isinstance(container, dict):
                try:
                    "".join(container)
                except TypeError:
                    raise _bad_key(document, name) from None
                inner += [item for item in container.values() if isinstance(item, _CONTAINERS)]
            else:
                inner += [item for item in container if isinstance(item, _CONTAINERS)]
            # Each takes two bytes, so this ends a branching cycle long before the memory does.
            if 2 * (containers + len(inner)) > max_bytes:
                raise _too_large(name, f"more than {max_bytes:,}", max_bytes)
        if not inner:
            return
        containers += len(inner)
        level = inner
    raise InvalidInput(
        f"{name} is nested deeper than {MAX_DEPTH} levels, or contains itself",
        hint="flatten it, or store the deep part as text",
    )


def _too_large(name: str, size: str, max_bytes: int) -> InvalidInput:
    return InvalidInput(
        f"{name} takes {size} bytes as JSON, at most {max_bytes:,} are accepted",
        hint="store large content elsewhere and its address here,"
        " or raise PGRECALL_MAX_DOCUMENT_BYTES",
    )


def _digits_unlimited() -> bool:
    """Whether this process lets integers become texts that others could not read."""
    limit = sys.get_int_max_str_digits()
    return limit == 0 or limit > MAX_DIGITS


def _explain(document: dict[str, Any], name: str, reason: str) -> InvalidInput:
    """Name the place of a fault that ``json`` met."""
    return _first_fault(document, name) or InvalidInput(
        f"{name} cannot be written as JSON: {reason}", hint="use plain JSON values"
    )


def _bad_key(document: dict[str, Any], name: str) -> InvalidInput:
    for path, item in _walk(document, name):
        if isinstance(item, dict):
            for key in item:
                if not isinstance(key, str):
                    return InvalidInput(
                        f"{path} has the key {key!r} of type {type(key).__name__}",
                        hint="JSON keys are strings: convert it with str()",
                    )
    return InvalidInput(f"{name} has a key that is no string", hint="convert it with str()")


def _first_fault(document: dict[str, Any], name: str) -> InvalidInput | None:
    """The first value or key, in reading order, that cannot be stored."""
    for path, item in _walk(document, name):
        if isinstance(item, dict):
            for key in item:
                if fault := _bad_character(key):
                    return InvalidInput(
                        f"a key of {path} holds {fault}: {_short(key)}",
                        hint="remove or replace it",
                    )
        elif found := _value_fault(item):
            what, hint = found
            return InvalidInput(f"{path} {what}", hint=hint)
    return None


def _value_fault(item: Any) -> tuple[str, str] | None:
    """What is wrong with one value, and what to do."""
    if item is None or isinstance(item, bool | list | tuple | UUID):
        return None
    if isinstance(item, Enum):
        return _value_fault(item.value)
    if isinstance(item, str):
        bad = _bad_character(item)
        return (f"holds {bad}", "remove or replace it") if bad else None
    if isinstance(item, int):
        # Four bits make more than one digit: no need for the text, which Python may refuse.
        too_long = item.bit_length() > MAX_DIGITS * 3 and abs(item) >= 10**MAX_DIGITS
        return (
            (f"is an integer of more than {MAX_DIGITS:,} digits", "store it as a string")
            if too_long
            else None
        )
    if isinstance(item, float):
        if math.isfinite(item):
            return None
        return f"is {float(item)}, which JSON lacks", "replace it with None or a string"
    kind = type(item).__name__
    hint = _HINTS.get(kind)
    if hint is None:
        hint = "convert it with dict()" if isinstance(item, Mapping) else _fallback_hint(item)
    return f"is a {kind}, which JSON lacks", hint


def _fallback_hint(item: Any) -> str:
    if hasattr(item, "item") and hasattr(item, "dtype"):
        return "convert it with .item()"
    return "convert it to a dict, list, string, number, bool or None"


def _walk(document: dict[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    """Each value with its path, in reading order, without recursion."""
    stack: list[tuple[str, Any]] = [(name, document)]
    while stack:
        path, item = stack.pop()
        yield path, item
        if isinstance(item, dict):
            stack.extend((path + _step(key), inner) for key, inner in reversed(item.items()))
        elif isinstance(item, list | tuple):
            stack.extend((f"{path}[{i}]", item[i]) for i in range(len(item) - 1, -1, -1))


def _step(key: object) -> str:
    """A key as it stands in a path."""
    if isinstance(key, str) and len(key) <= 60 and _PLAIN_KEY.match(key):
        return f".{key}"
    return f"[{_short(key)}]"


def _bad_character(text: str) -> str | None:
    """A character that PostgreSQL cannot store, with its place, or None."""
    position = text.find("\0")
    if position >= 0:
        return f"a NUL character at position {position}"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        return f"a lone surrogate (U+{code:04X}) at position {error.start}"
    return None


def _short(value: object) -> str:
    """A value as it can stand in a message."""
    shown = ascii(value[:40]) if isinstance(value, str) else ascii(value)
    return shown[:60] + (
        "..." if len(shown) > 60 or (isinstance(value, str) and len(value) > 40) else ""
    )
