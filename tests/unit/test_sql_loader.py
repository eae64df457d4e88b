from __future__ import annotations

from pathlib import Path

import pytest

import pgrecall
from pgrecall.sql import load, parse, statement


def test_statements_are_split_at_their_headers() -> None:
    parsed = parse("-- about\n\n-- name: one\nSELECT 1;\n\n-- name: two\n-- why\nSELECT 2\n", "x")
    assert dict(parsed) == {"one": "SELECT 1", "two": "-- why\nSELECT 2"}


def test_fragments_are_included_wherever_they_are_named() -> None:
    text = (
        "-- name: a\nSELECT /* include: b */ FROM t\n-- name: b\n/* include: c */, y\n-- name: c\nx"
    )
    assert parse(text, "x")["a"] == "SELECT x, y FROM t"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT 1\n-- name: a\nSELECT 2", "before the first"),
        ("-- name: a\nSELECT 1\n-- name: a\nSELECT 2", "two statements are named 'a'"),
    ],
)
def test_files_that_are_wrong(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text, "x")


def test_only_filters_of_the_file_can_be_chosen() -> None:
    assert "AND e.sprint_id = %(sprint_id)s" in statement("episodes", "list", ("sprint_id",))
    with pytest.raises(KeyError):
        statement("episodes", "list", ("1 = 1; DROP TABLE x",))


def test_every_file_loads() -> None:
    for path in (Path(pgrecall.__file__).parent / "sql").glob("*.sql"):
        assert load(path.stem)
