"""Keyset pages: a cursor names the last row seen, so that pages stay right while rows arrive."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from pgrecall.errors import InvalidInput
from pgrecall.models import Page

Row = TypeVar("Row")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Where the listings of the ``.sql`` files sort rows that lack their time."""


def encode_cursor(time: datetime, row_id: UUID) -> str:
    """Return the cursor for the row with this time and identifier."""
    return base64.urlsafe_b64encode(json.dumps([time.isoformat(), str(row_id)]).encode()).decode()


def decode_cursor(cursor: str | None) -> dict[str, Any]:
    """Return the statement's parameters for a cursor; none for the first page.

    Raises:
        InvalidInput: The text is no cursor of ours.
    """
    if cursor is None:
        return {}
    try:
        time, row_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        return {"after_time": datetime.fromisoformat(time), "after_id": UUID(row_id)}
    except (ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise InvalidInput(
            f"cursor is {cursor!r}", hint="give the next_cursor of the page before, unchanged"
        ) from error


def to_page(
    rows: Sequence[Row], limit: int, key: Callable[[Row], tuple[datetime | None, UUID]]
) -> Page[Row]:
    """Return a page of at most ``limit`` rows out of up to ``limit + 1`` that were fetched."""
    if len(rows) <= limit:
        return Page(items=rows)
    time, row_id = key(rows[limit - 1])
    return Page(items=rows[:limit], next_cursor=encode_cursor(time or EPOCH, row_id))
