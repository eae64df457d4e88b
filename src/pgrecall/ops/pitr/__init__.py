"""Point in time: WAL archiving and base backups by the server's own tools, and recovery."""

from pgrecall.ops.pitr.archiving import ARCHIVE_TIMEOUT, SetupReport, setup
from pgrecall.ops.pitr.base import BaseReport, base_backup
from pgrecall.ops.pitr.place import Base, Place, place_of
from pgrecall.ops.pitr.prune import PruneReport, prune
from pgrecall.ops.pitr.recover import Found, RecoverReport, recover
from pgrecall.ops.pitr.status import Archiver, StatusReport, Window, status

__all__ = [
    "ARCHIVE_TIMEOUT",
    "Archiver",
    "Base",
    "BaseReport",
    "Found",
    "Place",
    "PruneReport",
    "RecoverReport",
    "SetupReport",
    "StatusReport",
    "Window",
    "base_backup",
    "place_of",
    "prune",
    "recover",
    "setup",
    "status",
]
