"""Which tests of a suite are left out: the rows of a page of the docs, with the reasons."""

from __future__ import annotations

import re
from pathlib import Path

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
_ROW = re.compile(r"^\| `(?P<file>tests/\S+)` \| (?P<names>`.+?) \| \w", re.MULTILINE)


def left_out(page: str) -> set[str]:
    """Return the tests that a page lists, as pytest calls them."""
    return {
        f"{row['file']}::{name}"
        for row in _ROW.finditer(page)
        for name in re.findall(r"`(\w+)`", row["names"])
    }
