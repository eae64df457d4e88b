"""Import and export of episodes as JSON Lines.

How a line travels: ``reading`` splits the source, ``lines`` checks one line, ``writing`` records
a batch, ``rejects`` keeps what was bad; ``importing`` drives them and counts. ``loading`` chooses
how to load, ``indexing`` puts the vector index off and builds it. ``exporting`` writes the same
lines to a ``target``.
"""

from __future__ import annotations

from pgrecall.ops.transfer.exporting import export_episodes
from pgrecall.ops.transfer.importing import finish_import, import_episodes, plan_import
from pgrecall.ops.transfer.indexing import Building
from pgrecall.ops.transfer.lines import KEYS
from pgrecall.ops.transfer.loading import Plan
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
    "Building",
    "ExportProgress",
    "ExportReport",
    "ImportReport",
    "Plan",
    "Progress",
    "Reject",
    "export_episodes",
    "finish_import",
    "import_episodes",
    "plan_import",
]
