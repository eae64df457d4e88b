"""Long integers in documents survive, wherever a line has its vector."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pgrecall.ops.transfer.lines import Rules, parse
from pgrecall.ops.transfer.reading import Line

LONG = 123456789012345678901234567890
RULES = Rules(project_id="p", dimensions=2, max_document_bytes=1000)
BASE: dict[str, Any] = {"agent_version": "1", "reasoning": {}, "action": {}}


@pytest.mark.parametrize(
    "values",
    [
        {"perception": {"n": LONG}},
        {"perception": {"n": LONG}, "embedding": [1, 2]},
        {"embedding": [1, 2], "perception": {"n": LONG}},
        {"perception": {"embedding": [LONG], "n": LONG}},
        {"perception": {"embedding": [LONG], "n": LONG}, "embedding": [1, 2]},
        {"perception": {"n": LONG, "text": 'a "embedding" and ]'}, "embedding": [0.5, 2]},
    ],
)
def test_a_long_integer_is_kept(values: dict[str, Any]) -> None:
    line = Line(1, json.dumps({**BASE, **values}).encode())
    entry = parse(line, RULES, 10_000)
    assert entry.new.perception == values["perception"]
    assert str(LONG) in entry.row.perception
