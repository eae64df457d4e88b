"""The short form of ``python -m tests.chaos.bulk``."""

from __future__ import annotations

import os

import pytest
from tests.chaos.bulk import load_under_fire
from tests.chaos.place import standing

pytestmark = pytest.mark.skipif(
    os.environ.get("PGRECALL_TEST_CHAOS", "") in ("", "0"),
    reason="`make test` runs it by itself at its end: set PGRECALL_TEST_CHAOS=1",
)


def test_an_import_that_is_killed_ten_times_loses_nothing() -> None:
    with standing() as place:
        seen = load_under_fire(place, rows=2000, kills=10)
    print(seen)
    assert (seen.lost, seen.doubled, seen.wrong, seen.not_found) == (0, 0, 0, 0)
    assert (seen.failed, seen.first_failure, seen.faults) == (0, "", "")
    assert sum(seen.kills.values()) == 10
    for victim in ("client", "server"):
        assert sum(n for name, n in seen.kills.items() if name.startswith(victim)) == 5
    assert seen.recalls > 0
