"""Which filters a call uses: names of fragments in the ``.sql`` files, with their values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pgrecall.core.checks import check_fraction, check_knowledge_type, check_time
from pgrecall.core.documents import check_text
from pgrecall.core.pages import decode_cursor
from pgrecall.errors import InvalidInput


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
    *,
    project_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    sprint_id: str | None = None,
    decision_source: str | None = None,
    agent_version: str | None = None,
    min_quality: float | None = None,
    max_quality: float | None = None,
    with_outcome: bool | None = None,
    cursor: str | None = None,
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the checked filters of a listing or recall of episodes.

    Raises:
        InvalidInput: A value cannot be meant.
    """
    return chosen(
        {
            "project_id": scope_text(project_id, "project_id"),
            "since": check_time(since, "since"),
            "until": check_time(until, "until"),
            "sprint_id": scope_text(sprint_id, "sprint_id"),
            "decision_source": scope_text(decision_source, "decision_source"),
            "agent_version": scope_text(agent_version, "agent_version"),
            "min_quality": check_fraction(min_quality, "min_quality"),
            "max_quality": check_fraction(max_quality, "max_quality"),
            "with_outcome": check_flag(with_outcome, "with_outcome"),
            **decode_cursor(cursor),
        }
    )


def scope_text(value: str | None, name: str, max_length: int = 50) -> str | None:
    """Return an identifier that a column of the specification can hold, or None."""
    return None if value is None else check_text(value, name=name, max_length=max_length)


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
