"""What a memory will take at a number of rows, for each way to store its vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pgrecall.ops.embeddings.models import MOST_DIMENSIONS, Storage
from pgrecall.ops.sizing.hnsw import VALUE, bytes_a_row
from pgrecall.ops.sizing.measuring import Now, Sample

Fit: TypeAlias = Literal["fits", "tight", "leaves memory"]

ROOMY, FULL = 0.5, 0.75
"""Shares of the machine's memory that what recalls touch may take: up to the one all is well,
beyond the other the system, the connections and the writers push it out again and again."""
_HELP = 0.8
"""What another process adds to a build, as a share of the first: measured on two cores."""
_OTHERS_A_ROW = 1200
"""Bytes of a row's other columns, indexes and words where there are no rows to see it by."""
_THRESHOLDS = ((1000, 3), (600, 5), (300, 9), (0, 15))
"""How often values are cut for codes, by the length of vectors: as ``pgrecall.thresholds``."""
_CODE_HEADER = 70
"""Of a code's row or index entry, besides the code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to store vectors, at a number of rows; sizes in bytes.

    Attributes:
        column: Type of the column.
        index: Type that the index holds.
        rows: For how many rows.
        index_bytes: Of the vector index.
        touched_bytes: What recalls touch and so should stay in memory: vector index, codes, words.
        disk_bytes: Of everything.
        build_seconds: To build the index, with the helpers that the server allows.
        build_bytes: ``maintenance_work_mem`` that a fast build needs.
        fit: How the touched bytes stand to the machine's memory; None where that is not known.
        most_rows: How many rows would still fit.
        rounding: Share of the nearest that its rounding leaves the same.
    """

    column: Storage
    index: Storage
    rows: int
    index_bytes: int
    touched_bytes: int
    disk_bytes: int
    build_seconds: float
    build_bytes: int
    fit: Fit | None
    most_rows: int | None
    rounding: float


def ways(now: Now, sample: Sample, rows: int, memory: int | None, cores: int) -> list[Way]:
    """Return the ways to store vectors, the most precise first.

    Args:
        now: The memory.
        sample: How long indexing took here.
        rows: How many rows to plan for.
        memory: Bytes of the machine's memory; None if not known.
        cores: Its processors.
    """
    pairs: tuple[tuple[Storage, Storage], ...] = (
        ("vector", "vector"), ("vector", "halfvec"), ("halfvec", "halfvec"),
    )  # fmt: skip
    return [
        _way(now, sample, column, index, rows, memory, cores)
        for column, index in pairs
        if now.dimensions <= MOST_DIMENSIONS[index]
    ]


def _way(
    now: Now,
    sample: Sample,
    column: Storage,
    index: Storage,
    rows: int,
    memory: int | None,
    cores: int,
) -> Way:
    indexed = bytes_a_row(now.dimensions, index, now.m)
    others = _others_a_row(now)
    touched = indexed + _codes_a_row(now) + _words_a_row(now)
    whole = indexed + others + 8 + VALUE[column] * now.dimensions
    return Way(
        column=column,
        index=index,
        rows=rows,
        index_bytes=round(indexed * rows),
        touched_bytes=round(touched * rows),
        disk_bytes=round(whole * rows),
        build_seconds=build_seconds(sample, index, rows, now.workers, cores),
        build_bytes=round(indexed * rows * 1.1),
        fit=None if memory is None else _fit(touched * rows / memory),
        most_rows=None if memory is None else int(FULL * memory / touched),
        rounding=1.0 if index == "vector" else sample.kept,
    )


def build_seconds(sample: Sample, index: Storage, rows: int, workers: int, cores: int) -> float:
    """Return how long an index takes to build; a search for neighbours grows with the logarithm.

    Args:
        sample: How long it took one process for some rows.
        index: What it holds.
        rows: How many rows.
        workers: Helpers that the server allows.
        cores: Processors.
    """
    helpers = max(min(workers, cores - 1), 0)
    taken = sample.seconds[index] / (sample.rows * math.log(sample.rows))
    return taken * rows * math.log(max(rows, 2)) / (1 + _HELP * helpers)


def _fit(share: float) -> Fit:
    return "fits" if share <= ROOMY else "tight" if share <= FULL else "leaves memory"


def _code(dimensions: int) -> float:
    cuts = next(cuts for least, cuts in _THRESHOLDS if dimensions >= least)
    return cuts * dimensions / 8 + _CODE_HEADER


def _codes_a_row(now: Now) -> float:
    """Return what recalls read of a code, which is its index entry."""
    return now.code_index_bytes / now.vectors if now.vectors else _code(now.dimensions)


def _words_a_row(now: Now) -> float:
    return now.word_bytes / now.rows if now.rows else _OTHERS_A_ROW / 2


def _others_a_row(now: Now) -> float:
    """Return what a row takes besides its vector and the vector index."""
    if not now.rows:
        return _OTHERS_A_ROW + 2 * _code(now.dimensions)
    vectors = now.vectors * (8 + VALUE[now.storage] * now.dimensions)
    known = now.table_bytes + now.plain_index_bytes + now.code_bytes + now.word_bytes
    return max(known - vectors, 0) / now.rows
