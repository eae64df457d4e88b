"""What an import or export tells while it runs and when it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an import has come. ``read = created + existing + updated + rejected``.

    Attributes:
        read: Lines dealt with; blank ones don't count.
        created: New episodes.
        existing: Lines whose episode stood there already; nothing was changed.
        updated: Lines whose episode stood there without the outcome that the line brought.
        rejected: Bad lines.
        bytes_read: How much of the source was read; of the packed file if it is packed.
        total_bytes: Size of the source; None where it cannot be known, such as a pipe.
        seconds: Since the start.
    """

    read: int
    created: int
    existing: int
    updated: int
    rejected: int
    bytes_read: int
    total_bytes: int | None
    seconds: float

    @property
    def rate(self) -> float:
        """Lines a second."""
        return self.read / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A bad line: its number, counted from 1, and what is wrong with it."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport(Progress):
    """What an import did.

    Attributes:
        rejects: The file that holds the bad lines; None if there were none.
        first_rejects: The first few of them.
    """

    rejects: Path | None
    first_rejects: Sequence[Reject]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportProgress:
    """How far an export has come.

    Attributes:
        written: Episodes written.
        total: How many matched at the start.
        seconds: Since the start.
    """

    written: int
    total: int
    seconds: float

    @property
    def rate(self) -> float:
        """Episodes a second."""
        return self.written / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport(ExportProgress):
    """What an export did.

    Attributes:
        vectors: How many of the episodes carry their vector.
        path: The file; None if it was written to a stream.
    """

    vectors: int
    path: Path | None


OnImportProgress = Callable[[Progress], None]
OnExportProgress = Callable[[ExportProgress], None]
