"""Recall: what it finds and how fast, against the floor, single routes, peers and the limit.

Run it with ``python -m benchmarks.recall [--rows N] [--rounds N] [--peers-rows N] [--rebuild]
[--save]``. It starts an embedded server of its own, with all in memory. Everything is compared in
turns with its counterpart, each on a connection of its own, after a full pass that warms both up.
``--memory`` measures instead what a client process gains in memory over 200,000 recalls. Peers run
in the environment that ``make bench`` makes; without it they are left out, and the table says so.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import limits, routes
from benchmarks.comparing import Measure, Part
from benchmarks.measuring import save
from benchmarks.memory_use import memory_use
from benchmarks.peers import ROOT, peers
from benchmarks.plotting import plot
from benchmarks.stage import DIMENSIONS, Stage, Stored, stage

PEERS = ROOT / ".venv" / "peers"
console = Console(width=200)


def parts(options: argparse.Namespace) -> Iterator[Part]:
    """Measure everything, a part at a time."""
    with ExitStack() as stack:
        ground = stack.enter_context(stage(max(options.rows, options.peers_rows)))
        pooling = stack.enter_context(limits.pooling(ground))
        stored = stack.enter_context(ground.filled(options.rows))
        for part in of_one_size(ground, stored, options, pooling):
            yield part()
        if options.rebuild:
            yield routes.rebuilt(ground, stored)
        if options.peers_rows:
            python = options.peers / "bin" / "python"
            yield peers(ground, options.peers_rows, options.rounds, python)
        yield Part(name="loading", measures=[], facts=ground.seconds)


def of_one_size(
    ground: Stage, stored: Stored, options: argparse.Namespace, pooling: limits.Pooling | None
) -> Sequence[Callable[[], Part]]:
    """Return what is measured with the specification's index, in that order."""
    rounds, python = options.rounds, options.peers / "bin" / "python"
    return (
        lambda: limits.floor(stored, rounds),
        lambda: routes.without_filter(stored),
        lambda: routes.shares(stored, rounds),
        lambda: routes.filters(stored, rounds),
        lambda: limits.pooled(ground, stored, rounds, pooling),
        lambda: limits.growth(ground, stored, rounds),
        lambda: limits.in_process(stored, rounds, python, ground.folder),
    )


def show(measures: Sequence[Measure]) -> None:
    table = Table("measure", "value", "spread", "target", "met", "", title="Recall")
    marks = {None: "", True: "[green]yes", False: "[red]no"}
    for measure in measures:
        spread = ""
        if measure.lowest is not None and measure.highest is not None:
            spread = f"{measure.lowest:.2f} to {measure.highest:.2f}"
        target = ""
        if measure.target is not None:
            target = f"{'≥' if measure.least else '≤'} {measure.target:g}"
        table.add_row(
            measure.name, "" if math.isnan(measure.value) else f"{measure.value:.4g}", spread,
            target, marks[measure.met], measure.note,
        )  # fmt: skip
    console.print(table)


def as_row(measure: Measure) -> dict[str, Any]:
    """Return a measure as a JSON value; what was left out has no value."""
    row = {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(measure).items()}
    if math.isnan(measure.value):
        row["value"] = None
    return {**row, "met": measure.met}


def measure_all(name: str, found: Iterator[Part], options: argparse.Namespace) -> list[Measure]:
    """Run the parts, and print, save and draw what each found, the last two if asked for.

    Saved after every part, so that one that fails after an hour takes nothing with it.
    """
    done: list[Part] = []
    for part in found:
        done.append(part)
        for measure in part.measures:
            console.print(f"[dim]{measure.name}: {measure.value:.4g} {measure.note}")
        measures = [measure for one in done for measure in one.measures]
        if options.save:
            written = save(name, {
                "rows": options.rows, "rounds": options.rounds,
                "dimensions": getattr(options, "dimensions", DIMENSIONS),
                "measures": [as_row(measure) for measure in measures],
                **{one.name: one.facts for one in done},
            })  # fmt: skip
    if options.save and done:
        console.print("written:", written)
        for path in plot(name):
            console.print("drawn:", path)
    return measures


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--peers-rows", type=int, default=10_000, help="0: leave peers out")
    parser.add_argument("--peers", type=Path, default=PEERS, help="environment of the peers")
    parser.add_argument(
        "--rebuild",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="also with the proposed index; unless told, when results are saved",
    )
    parser.add_argument("--memory", action="store_true", help="measure the client's memory instead")
    parser.add_argument("--recalls", type=int, default=200_000, help="how many, with --memory")
    parser.add_argument("--save", action="store_true", help="write the results beside this file")
    options = parser.parse_args()  # fmt: skip
    options.rebuild = options.save if options.rebuild is None else options.rebuild
    if options.memory:
        measures = measure_all("recall-memory", iter([memory_use(options.recalls)]), options)
    else:
        measures = measure_all("recall", parts(options), options)
    show(measures)
    return 0 if all(measure.met is not False for measure in measures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
