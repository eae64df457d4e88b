"""Which filters a call uses: names of fragments in the ``.sql`` files, with their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from pgrecall.core.checks import check_fraction, check_knowledge_type, check_time
from pgrecall.core.documents import check_text, to_json
from pgrecall.core.pages import decode_cursor
from pgrecall.errors import InvalidInput
from pgrecall.models import EpisodeFilters


def chosen(values: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the names of the filters that have a value, and those values.

    A cursor's two values belong to the one filter ``after``.
    """
    parameters = {name: value for name, value in values.items() if value is not None}
    names = [name for name in parameters if name not in ("after_time", "after_id")]
    if "after_id" in parameters:
        names.append("after")
    return tuple(names), parameters


def episode_filters(
    given: EpisodeFilters, *, max_bytes: int, cursor: str | None = None
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the checked filters of a listing or recall of episodes.

    Args:
        given: The filters; documents become JSON texts.
        max_bytes: Largest size of a document, in bytes.
        cursor: Where a page begins.

    Raises:
        InvalidInput: A value cannot be meant, or a name is no filter.
    """
    values: dict[str, Any] = {}
    for name, value in given.items():
        check = _EPISODE_CHECKS.get(name)
        if check is None:
            raise InvalidInput(
                f"{name} is not a filter of episodes",
                hint=f"give some of {', '.join(EpisodeFilters.__annotations__)}",
            )
        if value is not None:
            values[name] = check(value, name, max_bytes)
    return chosen({**values, **decode_cursor(cursor)})


def recall_filter(parameters: Mapping[str, Any]) -> str:
    """Return checked filters as the JSON object that the recall functions of the database take."""
    parts = [
        f'"{name}":{value if name in DOCUMENTS else _plain(value)}'
        for name, value in parameters.items()
    ]
    return f"{{{','.join(parts)}}}"


def _plain(value: Any) -> str:
    return orjson.dumps(value).decode()


def check_texts(values: Sequence[str], name: str) -> list[str]:
    """Return a list of identifiers that a column of the specification can hold."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InvalidInput(f"{name} is {values!r}", hint="give a list of texts")
    return [check_text(value, name=f"{name}[{i}]", max_length=50) for i, value in enumerate(values)]


def scope_text(value: str | None, name: str, max_length: int = 50) -> str | None:
    """Return an identifier that a column of the specification can hold, or None."""
    return None if value is None else check_text(value, name=name, max_length=max_length)


DOCUMENTS = frozenset({"perception", "reasoning", "action", "outcome"})
"""Filters by what a document contains."""


def project_filter(project_id: str | None) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the filter of a call on one row: its project, if the call is meant for one."""
    return chosen({"project_id": scope_text(project_id, "project_id")})


def knowledge_filters(
    *,
    project_id: str | None = None,
    knowledge_type: str | None = None,
    active: bool | None = None,
    min_confidence: float | None = None,
    cursor: str | None = None,
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the checked filters of a listing or recall of knowledge.

    Raises:
        InvalidInput: A value cannot be meant.
    """
    return chosen(
        {
            "project_id": scope_text(project_id, "project_id"),
            "knowledge_type": None
            if knowledge_type is None
            else check_knowledge_type(knowledge_type),
            "active": check_flag(active, "active"),
            "min_confidence": check_fraction(min_confidence, "min_confidence"),
            **decode_cursor(cursor),
        }
    )


def session_filters(
    *,
    project_id: str | None = None,
    user_id: str | None = None,
    active: bool | None = None,
    cursor: str | None = None,
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the checked filters of a listing of sessions.

    Raises:
        InvalidInput: A value cannot be meant.
    """
    return chosen(
        {
            "project_id": scope_text(project_id, "project_id"),
            "user_id": scope_text(user_id, "user_id", 100),
            "active": check_flag(active, "active"),
            **decode_cursor(cursor),
        }
    )


def check_flag(value: bool | None, name: str) -> bool | None:
    """Return True, False or None."""
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(f"{name} is {value!r}", hint="give True, False or None")
    return value


def _document(value: Any, name: str, max_bytes: int) -> str:
    return to_json(value, name=name, max_bytes=max_bytes)


def _simple(check: Callable[[Any, str], Any]) -> Callable[[Any, str, int], Any]:
    return lambda value, name, _max_bytes: check(value, name)


_EPISODE_CHECKS: dict[str, Callable[[Any, str, int], Any]] = {
    "project_id": _simple(scope_text),
    "project_ids": _simple(check_texts),
    "since": _simple(check_time),
    "until": _simple(check_time),
    "sprint_id": _simple(scope_text),
    "decision_source": _simple(scope_text),
    "agent_version": _simple(scope_text),
    "min_quality": _simple(check_fraction),
    "max_quality": _simple(check_fraction),
    "with_outcome": _simple(check_flag),
    **dict.fromkeys(DOCUMENTS, _document),
}
