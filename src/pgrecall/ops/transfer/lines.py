"""From one line of JSON to a checked episode; everything that can be wrong is said here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from pgrecall.core.checks import check_time
from pgrecall.core.documents import from_json, has_long_number
from pgrecall.core.episode_rows import EpisodeRow, to_row
from pgrecall.errors import InvalidInput
from pgrecall.models import NewEpisode
from pgrecall.ops.transfer.reading import Line

KEYS = tuple(field.name for field in fields(NewEpisode))
"""The keys that a line may have, in the order of an export."""

REQUIRED = ("project_id", "agent_version", "perception", "reasoning", "action")

DERIVED_PREFIX = "line:"
"""How the ``external_id`` begins that a line gets which has no identifier of its own."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A good line: the episode as the client takes it, and its checked row."""

    line: Line
    new: NewEpisode
    row: EpisodeRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the lines of one import have to fit.

    Attributes:
        project_id: Project of lines that name none; those of other projects are bad. None if
            every line names its own.
        dimensions: Length of the vectors.
        max_document_bytes: Largest JSON document accepted, in bytes.
    """

    project_id: str | None
    dimensions: int
    max_document_bytes: int


def parse(line: Line, rules: Rules, max_line_bytes: int) -> Entry:
    """Return the episode of a line.

    Raises:
        InvalidInput: The line is bad; the message says why.
    """
    if line.overlong:
        raise InvalidInput(f"the line is longer than {max_line_bytes:,} bytes")
    values = _values(line)
    _check_keys(values)
    _choose_project(values, rules.project_id)
    if missing := [name for name in REQUIRED if name not in values]:
        raise InvalidInput(f"missing: {', '.join(missing)}")
    if "external_id" not in values and "episode_id" not in values:
        values["external_id"] = derived_id(values)
    if "timestamp" in values:
        values["timestamp"] = _time(values["timestamp"])
    new = NewEpisode(**values)
    row = to_row(new, dimensions=rules.dimensions, max_bytes=rules.max_document_bytes)
    # The identifier is fixed here, so that a repeated write finds its own rows again.
    return Entry(line, replace(new, episode_id=row.episode_id, embedding=row.embedding), row)


def derived_id(values: Mapping[str, Any]) -> str:
    """Return the ``external_id`` of a line without identifier: a hash of its content.

    The vector has no part in it, since it depends on a model; neither have the order of keys,
    white space and keys that are null.
    """
    content = {name: value for name, value in values.items() if name != "embedding"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return DERIVED_PREFIX + hashlib.sha256(text.encode()).hexdigest()


def _values(line: Line) -> dict[str, Any]:
    try:
        text = line.raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"not UTF-8 text: {error.reason} at byte {error.start}") from error
    try:
        values = _read(text)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"not JSON: {error.msg} at character {error.pos}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"JSON that cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise InvalidInput(
            f"a JSON {_JSON_NAMES[type(values)]}, not an object",
            hint="write one episode a line; `jq -c '.[]'` does that with an array",
        )
    # What is null is as good as absent.
    return {name: value for name, value in values.items() if value is not None}


def _read(text: str) -> Any:
    """Read JSON the quick way; what that refuses, the slower one takes or says why not.

    The numbers of a vector are floats anyway, and most of a line: they are not looked through for
    integers that only the slower way reads.
    """
    try:
        before, name, after = text.partition('"embedding"')
        if name and name not in after:
            values = orjson.loads(text)
            rest = before + after.partition("]")[2]
            # As it stands there once, it is the line's own, and no part of a document.
            if "embedding" in values and not has_long_number(rest.encode()):
                return values
        return from_json(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


_JSON_NAMES = {
    list: "array",
    str: "string",
    int: "number",
    float: "number",
    bool: "truth value",
    type(None): "null",
}


def _check_keys(values: Mapping[str, Any]) -> None:
    unknown = [name for name in values if name not in KEYS]
    if unknown:
        named = ", ".join(ascii(name)[:80] for name in unknown[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise InvalidInput(
            f"unknown key{'s' if len(unknown) > 1 else ''} {named}{more};"
            f" known are {', '.join(KEYS)}"
        )


def _choose_project(values: dict[str, Any], project_id: str | None) -> None:
    if project_id is None:
        return
    if values.setdefault("project_id", project_id) != project_id:
        raise InvalidInput(
            f"project_id is {values['project_id']!r:.80},"
            f" but this import is for project {project_id!r}"
        )


def _time(value: object) -> datetime:
    time = _moment(value)
    if time is None:
        raise InvalidInput(
            f"timestamp is {value!r:.80}, not a time that can be stored",
            hint="write it like 2026-03-01T09:30:00+00:00",
        )
    check_time(time, "timestamp")
    return time


def _moment(value: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
        # Rows at the edge of the calendar could be stored, but not read in every time zone.
        if time is not None and 2 <= time.astimezone(UTC).year <= 9998:
            return time
    except (ValueError, OverflowError):
        return None
    return None
