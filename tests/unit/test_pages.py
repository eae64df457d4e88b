from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from pgrecall.core.pages import EPOCH, decode_cursor, encode_cursor, to_page
from pgrecall.errors import InvalidInput

TIME = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def test_a_cursor_survives_the_journey() -> None:
    row_id = uuid4()
    assert decode_cursor(encode_cursor(TIME, row_id)) == {"after_time": TIME, "after_id": row_id}
    assert decode_cursor(None) == {}


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "bm8=", "WzEsIDJd", "é", "W10="])
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidInput, match="cursor is"):
        decode_cursor(cursor)


@pytest.mark.parametrize(("found", "items", "more"), [(0, 0, False), (2, 2, False), (3, 2, True)])
def test_one_row_more_than_asked_for_means_another_page(found: int, items: int, more: bool) -> None:
    rows = [(TIME, uuid4()) for _ in range(found)]
    page = to_page(rows, 2, lambda row: row)
    assert len(page) == items
    assert (page.next_cursor is not None) == more


def test_a_row_without_its_time_sorts_at_the_epoch() -> None:
    rows: list[tuple[datetime | None, UUID]] = [(None, uuid4()), (None, uuid4())]
    page = to_page(rows, 1, lambda row: row)
    assert decode_cursor(page.next_cursor)["after_time"] == EPOCH
