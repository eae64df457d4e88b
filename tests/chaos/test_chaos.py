"""The short form: every scenario of the fault suite once; ``make chaos`` runs the long one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
from tests.chaos.__main__ import missing
from tests.chaos.filling import NoSmallDisk
from tests.chaos.place import Place, standing
from tests.chaos.scenarios import SCENARIOS, Scenario

pytestmark = pytest.mark.skipif(
    os.environ.get("PGRECALL_TEST_CHAOS", "") in ("", "0"),
    reason="`make test` runs it by itself at its end: set PGRECALL_TEST_CHAOS=1",
)

HARMLESS = ("use_hot_standby", "meet_recovery", "freeze_while_opening", "cut_opening")
"""Scenarios in which no write is acknowledged."""


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with standing() as made:
        yield made


@pytest.fixture(autouse=True)
def pool_is_quiet() -> Iterator[None]:
    """It tells of each connection that breaks, which is what happens here all the time."""
    logger = logging.getLogger("psycopg.pool")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_nothing_is_lost_doubled_or_untold(place: Place, scenario: Scenario) -> None:
    if lacks := missing(scenario):
        pytest.skip(lacks)
    try:
        tally = scenario.run(place, 1)
    except NoSmallDisk as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    assert tally.wrong == []
    assert (tally.lost, tally.doubled, tally.ghosts, tally.torn) == (0, 0, 0, 0)
    assert tally.faults > 0
    assert tally.acknowledged > 0 or scenario.name in HARMLESS
