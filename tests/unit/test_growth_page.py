"""The arithmetic of docs/explanation/growth.md is that of ``pgrecall doctor --sizing``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgrecall.ops.embeddings.models import Storage
from pgrecall.ops.sizing.measuring import Now, Sample
from pgrecall.ops.sizing.plan import FULL, Way, ways

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "growth.md"
MILLION = 1_000_000
GB, MACHINE_GB = 10**9, 2**30
STORAGES: tuple[Storage, ...] = ("vector", "halfvec")


def cells(first: str) -> Iterator[list[str]]:
    """Give the rows of the page whose first cell begins so."""
    for line in PAGE.read_text().splitlines():
        row = [cell.strip(" *`") for cell in line.strip("|").split("|")]
        if line.startswith("|") and row[0].startswith(first):
            yield row


def number(text: str) -> float:
    return float(text.split()[0].replace(",", ""))


@pytest.fixture(scope="module")
def seconds() -> float:
    """How long 100,000 took to index in the published run."""
    results = json.loads((ROOT / "benchmarks" / "results" / "recall.json").read_text())
    return float(results["loading"]["index on 100000, ef_construction 64"])


def way(storage: Storage, rows: int, memory: int | None, seconds: float) -> Way:
    now = Now(
        rows=0, vectors=0, storage="vector", dimensions=1536, table_bytes=0, plain_index_bytes=0,
        vector_index_bytes=None, code_bytes=0, code_index_bytes=0, word_bytes=0, m=16,
        ef_construction=64, shared_buffers=0, maintenance_work_mem=0, workers=0, recall=None,
        machine_bytes=None, cores=None,
    )  # fmt: skip
    taken: dict[Storage, float] = dict.fromkeys(STORAGES, seconds)
    sample = Sample(rows=100_000, real=True, seconds=taken, kept=1.0)
    (found,) = [w for w in ways(now, sample, rows, memory, 1) if w.column == w.index == storage]
    return found


@pytest.mark.parametrize(("place", "storage"), [(1, "vector"), (2, "halfvec")])
def test_a_row(place: int, storage: Storage, seconds: float) -> None:
    one = way(storage, 1, None, seconds)
    for name, expected in (
        ("vector index", one.index_bytes), ("touched", one.touched_bytes),
        ("on disk", one.disk_bytes),
    ):  # fmt: skip
        (row,) = cells(name)
        assert number(row[place]) == expected
    parts = ("vector index", "codes", "words", "vector in the table", "documents")
    assert sum(number(next(cells(name))[place]) for name in parts) == one.disk_bytes


@pytest.mark.parametrize("memory", [24, 64, 256])
def test_a_machine(memory: int, seconds: float) -> None:
    (row,) = cells(f"{memory} GB")
    for cell, storage in zip(row[1:], STORAGES, strict=True):
        most = way(storage, 1, memory * MACHINE_GB, seconds).most_rows
        assert most is not None
        assert number(cell) == pytest.approx(most / MILLION, abs=0.051)


@pytest.mark.parametrize("millions", [10, 100, 1000])
def test_a_size(millions: int, seconds: float) -> None:
    rows = list(cells(f"{millions:,} million"))
    assert [row[1] for row in rows] == [*STORAGES]
    for row, storage in zip(rows, STORAGES, strict=True):
        wanted = way(storage, millions * MILLION, None, seconds)
        assert number(row[2]) == round(wanted.index_bytes / GB)
        assert number(row[3]) == round(wanted.touched_bytes / GB)
        assert number(row[4]) == round(wanted.disk_bytes / GB)
        assert number(row[5]) == pytest.approx(wanted.build_seconds / 3600, rel=0.03)
        for cell, memory in zip(row[6:], (64, 256), strict=True):
            assert number(cell) == math.ceil(wanted.touched_bytes / (FULL * memory * MACHINE_GB))
