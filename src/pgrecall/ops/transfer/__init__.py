"""Import and export of episodes as JSON Lines.

How a line travels: ``reading`` splits the source, ``lines`` checks one line, ``writing`` records
a batch, ``rejects`` keeps what was bad; ``importing`` drives them and counts. ``exporting``
writes the same lines to a ``target``.
"""

from __future__ import annotations

from pgrecall.ops.transfer.exporting import export_episodes
from pgrecall.ops.transfer.importing import import_episodes
from pgrecall.ops.transfer.lines import KEYS
from pgrecall.ops.transfer.reading import MAX_LINE_BYTES
from pgrecall.ops.transfer.report import (
    ExportProgress,
    ExportReport,
    ImportReport,
    Progress,
    Reject,
)

__all__ = [
    "KEYS",
    "MAX_LINE_BYTES",
    "ExportProgress",
    "ExportReport",
    "ImportReport",
    "Progress",
    "Reject",
    "export_episodes",
    "import_episodes",
]
