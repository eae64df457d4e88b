"""Backups of a memory: made in one snapshot, restored to prove them, kept by a schedule.

``docs/decisions/0009-backups.md`` says why they are as they are.
"""

from pgrecall.ops.backup.create import BackupRequest, CreateReport, create
from pgrecall.ops.backup.drill import DrillReport, DrillRequest, drill
from pgrecall.ops.backup.pruning import Pruned, prune
from pgrecall.ops.backup.rehearsal import RehearsalReport, rehearse
from pgrecall.ops.backup.restore import RestoreReport, RestoreRequest, restore
from pgrecall.ops.backup.storage import open_storage
from pgrecall.ops.backup.stored import Stored, list_backups

__all__ = [
    "BackupRequest",
    "CreateReport",
    "DrillReport",
    "DrillRequest",
    "Pruned",
    "RehearsalReport",
    "RestoreReport",
    "RestoreRequest",
    "Stored",
    "create",
    "drill",
    "list_backups",
    "open_storage",
    "prune",
    "rehearse",
    "restore",
]
