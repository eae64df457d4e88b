"""Checks of single values given by callers; each returns the value in its stored form."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import MAXYEAR, MINYEAR, datetime, timedelta
from typing import get_args
from uuid import UUID

from pgrecall.errors import InvalidInput
from pgrecall.models import ControlMode, Embed, KnowledgeType

MAX_LIMIT = 10_000


def check_fraction(value: float | None, name: str) -> float | None:
    """Return a number between 0 and 1, or None.

    Raises:
        InvalidInput: It is no number, not finite, or outside 0…1.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(f"{name} must be a number, not {type(value).__name__}")
    if not math.isfinite(value) or not 0 <= value <= 1:
        raise InvalidInput(f"{name} is {value!r}", hint="give a number between 0 and 1")
    return float(value)


def check_embed(value: Embed) -> Embed:
    """Return when texts are to be embedded.

    Raises:
        InvalidInput: It is neither ``"now"`` nor ``"later"``.
    """
    if value not in get_args(Embed):
        raise InvalidInput(f"embed is {value!r}", hint="give 'now' or 'later'")
    return value


def check_uuid(value: UUID | str, name: str) -> UUID:
    """Return an identifier as a UUID.

    Raises:
        InvalidInput: The text is not a UUID.
    """
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value)
    except (ValueError, AttributeError, TypeError) as error:
        raise InvalidInput(f"{name} is {value!r}, which is not a UUID") from error


def check_uuids(values: Iterable[UUID | str], name: str) -> list[UUID]:
    """Return identifiers as UUIDs, each once, in the given order."""
    if isinstance(values, str | UUID):
        raise InvalidInput(f"{name} must be a list of UUIDs, not a single value")
    return list(dict.fromkeys(check_uuid(value, f"{name}[{i}]") for i, value in enumerate(values)))


def check_time(value: datetime | None, name: str) -> datetime | None:
    """Return a time that says its zone, or None.

    Raises:
        InvalidInput: It is no datetime, or has no time zone.
    """
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidInput(f"{name} must be a datetime, not {type(value).__name__}")
    if value.tzinfo is None:
        raise InvalidInput(
            f"{name} is {value.isoformat()}, which has no time zone",
            hint="give an aware datetime, such as datetime.now(timezone.utc)",
        )
    if not MINYEAR < value.year < MAXYEAR:
        # In another time zone it would fall out of the calendar and could not be read back.
        raise InvalidInput(f"{name} is {value.isoformat()}, at the end of the calendar")
    return value


def check_ttl(value: timedelta | float | None, name: str) -> timedelta | None:
    """Return a time to live (a timedelta, or seconds) that is positive, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | timedelta):
        raise InvalidInput(f"{name} must be a timedelta or seconds, not {type(value).__name__}")
    try:
        ttl = value if isinstance(value, timedelta) else timedelta(seconds=value)
    except (OverflowError, ValueError) as error:
        raise InvalidInput(f"{name} is {value!r} seconds, which is not a usable time") from error
    if not timedelta(0) < ttl <= timedelta(days=36_500):
        raise InvalidInput(f"{name} is {ttl}", hint="give a time between 0 and 100 years")
    return ttl


def check_limit(value: int, name: str = "limit") -> int:
    """Return a number of rows between 1 and 10,000."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_LIMIT:
        raise InvalidInput(f"{name} is {value!r}", hint=f"give a number from 1 to {MAX_LIMIT:,}")
    return value


def check_choice(value: str, choices: Sequence[str], name: str) -> str:
    """Return a value that is one of ``choices``."""
    if value not in choices:
        raise InvalidInput(f"{name} is {value!r}", hint=f"choose one of {', '.join(choices)}")
    return value


def check_control_mode(value: str) -> str:
    """Return one of the control modes of the specification."""
    return check_choice(value, get_args(ControlMode), "control_mode")


def check_knowledge_type(value: str) -> str:
    """Return one of the kinds of knowledge of the specification."""
    return check_choice(value, get_args(KnowledgeType), "knowledge_type")
