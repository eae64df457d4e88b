"""The short form of ``python -m tests.chaos.switching``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.chaos.place import standing
from tests.chaos.switching import ROOT, switch_under_load

pytestmark = pytest.mark.skipif(
    os.environ.get("PGRECALL_TEST_CHAOS", "") in ("", "0"),
    reason="`make test` runs it by itself at its end: set PGRECALL_TEST_CHAOS=1",
)


def test_a_change_of_model_that_is_killed_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.delenv("PGRECALL_EMBEDDER", raising=False)
    assert Path(ROOT / "pyproject.toml").exists()
    with standing() as place:
        seen = switch_under_load(place, rows=300, kills=3)
    print(seen)
    assert (seen.failed, seen.first_failure) == (0, "")
    assert (seen.short, seen.lost, seen.doubled, seen.without, seen.wrong) == (0, 0, 0, 0, 0)
    assert seen.kills == {"client": 2, "server": 1}
    assert min(seen.recalls, seen.records) > 0
