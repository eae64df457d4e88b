"""A primary with a memory, and a standby that streams from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest
from tests.chaos.place import Place, standing, wait_for
from tests.standby import Standby, standby

from pgrecall import Memory


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with standing() as made:
        yield made


@pytest.fixture
def primary(place: Place) -> Iterator[Memory]:
    with place.memory() as memory:
        yield memory


@pytest.fixture(scope="module")
def replica(place: Place) -> Iterator[Standby]:
    with standby(place.server, place.directory) as made:
        yield made


@pytest.fixture
def caught_up(place: Place, replica: Standby) -> Callable[[], None]:
    """Wait until the standby has replayed what the primary has committed so far."""

    def wait() -> None:
        with (
            psycopg.connect(place.admin_dsn, autocommit=True) as there,
            psycopg.connect(replica.at(place.admin_dsn), autocommit=True) as here,
        ):
            (committed,) = there.execute("SELECT pg_current_wal_flush_lsn()").fetchone() or ()
            wait_for(
                lambda: here.execute(
                    "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [committed]
                ).fetchone() == (True,),
                "the standby to catch up",
            )  # fmt: skip

    return wait
