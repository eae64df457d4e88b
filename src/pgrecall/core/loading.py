"""Whether a load keeps the vector index up, or puts it off and builds it anew at the end.

Constants are milliseconds at 1,536 dimensions on two processors (docs/decisions/0016);
the choice needs their ratios only, and those of the server at hand are measured where it could be
close.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Indexing: TypeAlias = Literal["auto", "keep", "defer"]
"""What a caller wants: the cheaper way, or one of the two."""

BUILDING: Final = 0.24
"""What a row costs in the building of an index by one process, as a part of what it costs later."""

SAMPLED: Final = 800
"""Rows of the small index by which a server is measured."""

_FIXED = 1500.0  # dropping, waiting for transactions, a second look at the table, statistics
_SECOND = 0.6  # what each further connection adds, as they share the index and its pages
_HELPER = 0.8  # what each further process adds to building
_LEAST = 0.3  # a row in an almost empty index
_CLEAR = 4.0  # how many times as long one way takes where no measuring would change the choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is to be loaded, and where.

    Attributes:
        rows: Vectors to come.
        present: Vectors that are there.
        dimensions: Of the vectors.
        connections: That write at once.
        processes: That would build the index.
        upkeep: How long a row takes in an index here, as a multiple of what is expected.
        building: The same of building.
    """

    rows: int
    present: int
    dimensions: int
    connections: int = 1
    processes: int = 1
    upkeep: float = 1.0
    building: float = 1.0


def row_ms(rows: float, dimensions: int) -> float:
    """Return the milliseconds that one more row takes in an index of so many."""
    return max(_LEAST, 1.43 * math.log10(max(rows, 1)) - 2.85) * dimensions / 1536


def keeping_ms(load: Load) -> float:
    """Return the milliseconds that the index costs when it is kept up row by row."""
    each = row_ms(load.present + load.rows / 2, load.dimensions) * load.upkeep
    return load.rows * each / (1 + _SECOND * (load.connections - 1))


def deferring_ms(load: Load) -> float:
    """Return the milliseconds that it costs when it is built anew from all rows."""
    total = load.present + load.rows
    each = BUILDING * row_ms(total / 2, load.dimensions) * load.building
    return _FIXED + total * each / (1 + _HELPER * (load.processes - 1))


def worth_measuring(load: Load) -> bool:
    """Whether the choice depends on how fast the server is."""
    ratio = keeping_ms(load) / deferring_ms(load)
    return load.present > 2 * SAMPLED and 1 / _CLEAR < ratio < _CLEAR


def build_memory(rows: int, dimensions: int) -> int:
    """Return the bytes in which a graph of so many rows can be built, with something to spare."""
    return int(1.2 * rows * (4 * dimensions + 900)) + (64 << 20)
