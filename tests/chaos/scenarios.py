"""All scenarios: the long form runs them for many rounds, ``test_chaos.py`` each for one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos import (
    backing_up,
    cutting,
    filling,
    freezing,
    killing,
    migrating,
    recovering,
)
from tests.chaos.ledger import Tally
from tests.chaos.place import Place


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way to break something.

    Attributes:
        run: Breaks it for a number of rounds, and judges.
        weight: Rounds of it in one round of the long form.
        needs: ``"pgbouncer"``, or ``"root"`` to mount a file system.
    """

    run: Callable[[Place, int], Tally]
    weight: int = 1
    needs: str | None = None

    @property
    def name(self) -> str:
        return self.run.__name__


SCENARIOS = (
    Scenario(killing.kill_postmaster, weight=3),
    Scenario(killing.kill_everything, weight=3),
    Scenario(killing.kill_backend, weight=3),
    Scenario(killing.end_backends, weight=3),
    Scenario(killing.kill_pgbouncer, weight=3, needs="pgbouncer"),
    Scenario(cutting.cut_everywhere),
    Scenario(cutting.cut_opening),
    Scenario(cutting.stall_everywhere),
    Scenario(freezing.freeze_briefly),
    Scenario(freezing.freeze_long),
    Scenario(freezing.freeze_backend),
    Scenario(freezing.freeze_while_opening),
    Scenario(recovering.use_hot_standby),
    Scenario(recovering.meet_recovery),
    Scenario(filling.fill_disk, needs="root"),
    Scenario(filling.fill_backups, needs="root"),
    Scenario(migrating.kill_migration, weight=2),
    Scenario(migrating.kill_server_under_migration),
    Scenario(backing_up.kill_backup),
    Scenario(backing_up.kill_server_under_backup),
)
