"""``pgrecall doctor --sizing``: what a memory takes now, and what it will take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from pgrecall.cli.output import Column, Printer, faint, working

if TYPE_CHECKING:
    from pgrecall.config import Settings
    from pgrecall.ops.sizing import Now, Sample, Way

USUAL = (1_000_000, 10_000_000)
"""Rows to plan for, besides those there are."""
_GIB = 1024**3


def show_sizing(
    show: Printer, settings: Settings, rows: Sequence[int] | None, memory: float | None
) -> None:
    """Measure, plan and print.

    Args:
        show: Where to.
        settings: Which memory.
        rows: Rows to plan for.
        memory: Of the server's machine, in GiB; that of this machine if the server runs here.
    """
    from pgrecall.ops.sizing import measure, ways
    from pgrecall.targets import direct_owner_dsn

    with working("indexing a sample") as progress:
        now, sample = measure(direct_owner_dsn(settings, progress=progress))
    most = now.machine_bytes if memory is None else round(memory * _GIB)
    wanted = sorted(set(rows or (*USUAL, *([now.rows] if now.rows else ()))))
    planned = [way for count in wanted for way in ways(now, sample, count, most, now.cores or 1)]
    if show.as_json:
        show.data(
            {
                "now": asdict(now),
                "sample": asdict(sample),
                "memory": most,
                "ways": [asdict(way) for way in planned],
            }
        )
        return
    _show_now(show, now, most)
    _show_ways(show, planned)
    _show_advice(show, now, sample, planned)


def _show_now(show: Printer, now: Now, memory: int | None) -> None:
    from pgrecall.ops.checks import in_bytes

    index = now.vector_index_bytes
    show.fields(
        [
            ("episodes", f"{now.rows:,}, {now.vectors:,} with a vector"),
            ("vectors", f"{now.storage}({now.dimensions})"),
            ("vector index", faint("none") if index is None else in_bytes(index)),
            ("table", in_bytes(now.table_bytes)),
            ("codes, words", f"{in_bytes(now.code_bytes)}, {in_bytes(now.word_bytes)}"),
            ("other indexes", in_bytes(now.plain_index_bytes)),
            ("memory", faint("not seen; give --memory") if memory is None else in_bytes(memory)),
            ("shared_buffers", in_bytes(now.shared_buffers)),
            ("recall, 7 days", None if now.recall is None else f"{now.recall:.3f}"),
        ]
    )


def _show_ways(show: Printer, planned: Sequence[Way]) -> None:
    from pgrecall.ops.checks import in_bytes

    show.table(
        [
            Column(name="episodes", right=True),
            Column(name="column"),
            Column(name="index"),
            Column(name="index size", right=True),
            Column(name="touched", right=True),
            Column(name="disk", right=True, from_width=90),
            Column(name="build", right=True),
            Column(name="memory"),
            Column(name="fits up to", right=True, from_width=100),
        ],
        [
            (
                f"{way.rows:,}",
                way.column,
                way.index,
                in_bytes(way.index_bytes),
                in_bytes(way.touched_bytes),
                in_bytes(way.disk_bytes),
                _duration(way.build_seconds),
                way.fit,
                None if way.most_rows is None else f"{way.most_rows:,}",
            )
            for way in planned
        ],
    )


def _show_advice(show: Printer, now: Now, sample: Sample, planned: Sequence[Way]) -> None:
    from pgrecall.ops.checks import in_bytes

    vectors = "stored vectors" if sample.real else "random vectors, as too few are stored"
    show.line(
        f"Builds by {sample.rows:,} {vectors}, indexed here; half precision left "
        f"{sample.kept:.3f} of the ten nearest the same. Touched is what recalls read: vector "
        "index, codes, words."
    )
    for rows in sorted({way.rows for way in planned}):
        good = [way for way in planned if way.rows == rows and way.fit in ("fits", "tight")]
        if all(way.fit is None for way in planned):
            return
        if not good:
            show.line(f"At {rows:,}: no way fits; more memory, or several servers.")
        elif good[0].column == "halfvec" and now.storage == "vector":
            show.line(f"At {rows:,}: pgrecall embeddings switch --storage halfvec")
        elif good[0].index == "halfvec" and now.storage == "vector":
            show.line(
                f"At {rows:,}: an index in half precision, on (embedding::halfvec"
                f"({now.dimensions})); or pgrecall embeddings switch --storage halfvec"
            )
        else:
            show.line(
                f"At {rows:,}: as it is, with maintenance_work_mem of "
                f"{in_bytes(good[0].build_bytes)} for a build."
            )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
