"""The long form of the fault suite: ``python -m tests.chaos [--rounds N] [--only NAME]...``.

Every scenario breaks something real, again and again, and compares what callers were told with
what the database holds afterwards. The exit code is 0 when nothing was lost, doubled or otherwise
not as promised. ``--json FILE`` writes the numbers with machine, version and commit.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from benchmarks.measuring import machine
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from tests.chaos.cutting import quiet
from tests.chaos.ledger import Tally
from tests.chaos.place import Place, standing
from tests.chaos.scenarios import SCENARIOS, Scenario
from tests.pgbouncer import PROGRAM

import pgrecall

console = Console(width=150)


@contextmanager
def own_environment() -> Iterator[None]:
    """Stay away from the memory and the settings of whoever runs this."""
    kept = {name: os.environ.pop(name) for name in [*os.environ] if name.startswith("PGRECALL_")}
    try:
        yield
    finally:
        os.environ.update(kept)


def missing(scenario: Scenario) -> str | None:
    """Return what a scenario lacks here."""
    if scenario.needs == "root" and os.geteuid() != 0:
        return "mounts a file system, which needs root"
    if scenario.needs == "pgbouncer" and PROGRAM is None:
        return "PgBouncer is not installed"
    return None


def run(place: Place, chosen: Sequence[Scenario], rounds: int) -> list[Tally]:
    """Run scenarios one after another, and say how each went."""
    tallies = []
    for scenario in chosen:
        if lacks := missing(scenario):
            console.print(f"left out: {scenario.name}: {lacks}")
            continue
        started = time.monotonic()
        tally = scenario.run(place, rounds * scenario.weight)
        tallies.append(tally)
        taken = time.monotonic() - started
        console.print(f"{'ok  ' if tally.good else 'BAD '} {tally.scenario}, {taken:.0f} s")
        for text in tally.wrong:
            console.print(f"     {text}", style="red", markup=False)
    return tallies


COUNTS = (
    "faults", "writes", "acknowledged", "refused", "unknown", "repeated", "lost", "doubled",
    "ghosts", "torn",
)  # fmt: skip


def totals(tallies: Sequence[Tally]) -> dict[str, int]:
    """Return the sums of all scenarios."""
    sums = {name: sum(getattr(tally, name) for tally in tallies) for name in COUNTS}
    return {**sums, "wrong": sum(len(tally.wrong) for tally in tallies)}


def show(tallies: Sequence[Tally]) -> None:
    """Print the table."""
    table = Table("scenario", *COUNTS, "wrong", "back in", box=SIMPLE, padding=(0, 0, 0, 1))
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = True
    for tally in tallies:
        back = max(tally.recovery_seconds, default=None)
        table.add_row(
            tally.scenario,
            *(f"{getattr(tally, name):,}" for name in COUNTS),
            str(len(tally.wrong)),
            "" if back is None else f"{back:.1f} s",
        )
    table.add_section()
    table.add_row("all", *(f"{count:,}" for count in totals(tallies).values()), "")
    console.print(table)


def save(path: Path, tallies: Sequence[Tally], rounds: int, seconds: float) -> None:
    """Write the results as the benchmarks do."""
    scenarios = [
        {
            **asdict(tally),
            "errors": dict(tally.errors),
            "recovery_seconds": [round(value, 3) for value in tally.recovery_seconds],
            "longest_call_seconds": round(tally.longest_call_seconds, 3),
        }
        for tally in tallies
    ]
    path.write_text(
        json.dumps(
            {
                "machine": machine(),
                "pgrecall": pgrecall.__version__,
                "rounds": rounds,
                "seconds": round(seconds, 1),
                "totals": totals(tallies),
                "scenarios": scenarios,
            },
            indent=2,
        )
        + "\n"
    )


def main() -> int:
    """Run the long form."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--only", action="append", choices=[one.name for one in SCENARIOS])
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    chosen = [one for one in SCENARIOS if not arguments.only or one.name in arguments.only]
    started = time.monotonic()
    quiet()
    with own_environment(), standing() as place:
        tallies = run(place, chosen, arguments.rounds)
    seconds = time.monotonic() - started
    show(tallies)
    if arguments.json is not None:
        save(arguments.json, tallies, arguments.rounds, seconds)
    return 0 if all(tally.good for tally in tallies) else 1


if __name__ == "__main__":
    sys.exit(main())
