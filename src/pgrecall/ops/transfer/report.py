"""What an import or export tells while it runs and when it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pgrecall.ops.transfer.indexing import Building
from pgrecall.ops.transfer.loading import Plan


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
        building: How far the building of an index is, once all lines are dealt with; else None.
    """

    read: int
    created: int
    existing: int
    updated: int
    rejected: int
    bytes_read: int
    total_bytes: int | None
    seconds: float
    building: Building | None = None

    @property
    def rate(self) -> float:
        """Lines a second."""
        return self.read / self.seconds if self.seconds > 0 else 0.0

    @property
    def phase(self) -> str:
        """What is being done, in words."""
        return "loading" if self.building is None else f"building {self.building.index}"

    @property
    def seconds_left(self) -> float | None:
        """Expected seconds until the phase is over; None where that cannot be known."""
        if self.building is not None:
            return self.building.seconds_left
        if not self.total_bytes or not self.bytes_read:
            return None
        return self.seconds * (self.total_bytes - self.bytes_read) / self.bytes_read


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
        plan: How it loaded, and why; None of an empty source.
        built: Vector indexes that were put off and are there again.
        build_seconds: How long that took.
    """

    rejects: Path | None
    first_rejects: Sequence[Reject]
    plan: Plan | None = None
    built: Sequence[str] = ()
    build_seconds: float = 0.0


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
