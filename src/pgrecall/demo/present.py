"""Shows a game in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pgrecall.demo.agent import Recollection
from pgrecall.demo.run import Comparison, DemoResult, Step
from pgrecall.demo.world import TROUBLES

MOMENTS = 6
BLOCKS = "▁▂▃▄▅▆▇█"
BAR = 20


def show(result: DemoResult, console: Console) -> None:
    """Print what happened: moments of the game, what was learned, and whether it was worth it.

    Args:
        result: What ``play`` returned.
        console: Where to print; 80 columns are enough, 100 look better.
    """
    count = len(result.steps)
    console.print()
    console.print(
        f"An agent planned [bold]{count} sprints[/]. Before each it recalled what it had done in "
        "similar situations and how that had turned out; afterwards it recorded the outcome. "
        "A second agent planned the same sprints, with the same luck, by its rules alone."
    )
    console.print(_moments(result.steps))
    console.print(_learned(result))
    console.print(_thirds(result.thirds()))
    console.print(_verdict(result.thirds()[-1]))
    console.print()
    console.print(Text("quality over time, with memory    ") + _sparkline(result, ours=True))
    console.print(Text("                   without        ") + _sparkline(result, ours=False))
    console.print()
    console.print(
        f"{count} episodes recorded under project [bold]{result.project_id}[/] in "
        f"{result.seconds:.1f} s; a recall took {result.recall_ms(0.5):.1f} ms (p50), "
        f"{result.recall_ms(0.95):.1f} ms (p95), embedding included; seed {result.seed}."
    )


def select(steps: Sequence[Step], count: int = MOMENTS) -> list[Step]:
    """Return a few moments spread over the game; of each stretch the one furthest from control.

    That may be a success or a failure: the choice looks at the size of the difference only.
    """
    count = min(count, len(steps))
    stretches = [
        steps[len(steps) * n // count : len(steps) * (n + 1) // count] for n in range(count)
    ]
    return [
        max(stretch, key=lambda step: abs(step.outcome.quality - step.control_quality))
        for stretch in stretches
    ]


def _moments(steps: Sequence[Step]) -> Table:
    table = Table(
        title="Where memory made the most difference, for good or ill, in each stretch of the game",
        title_justify="left",
        box=SIMPLE,
        pad_edge=False,
        expand=True,
    )
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("situation", ratio=4)
    table.add_column("recalled, and its quality", ratio=6, min_width=29)
    table.add_column("decision", ratio=5)
    table.add_column("outcome", ratio=5)
    for step in select(steps):
        table.add_row(
            str(step.situation.number),
            ", ".join(step.situation.troubles) or "nothing special",
            _recalled(step.memories[:3]),
            _decision(step),
            _outcome(step),
        )
        table.add_section()
    return table


def _recalled(memories: Sequence[Recollection]) -> Text:
    if not memories:
        return Text("nothing yet", style="dim")
    lines = [
        Text.assemble(
            f"{memory.similarity:.2f} {words(memory.practice)} ", _quality(memory.quality)
        )
        for memory in memories
    ]
    return Text("\n").join(lines)


def _decision(step: Step) -> Text:
    return Text.assemble(
        (words(step.plan.practice), "bold"),
        f"\n{step.plan.committed_points} pts, {step.decision.source}",
        (f"\nrules: {words(step.control_practice)}", "dim"),
    )


def _outcome(step: Step) -> Text:
    outcome = step.outcome
    return Text.assemble(
        "quality ",
        _quality(outcome.quality),
        f"\n{outcome.completed_points} of {step.plan.committed_points} pts, bugs: "
        f"{outcome.defects}",
        (f"\nrules: {step.control_quality:.2f}", "dim"),
    )


def _learned(result: DemoResult) -> Table:
    table = Table(
        title="What it found out: practices by mean quality (times tried)",
        title_justify="left",
        box=SIMPLE,
        pad_edge=False,
        expand=True,
    )
    for heading, ratio in (("situation", 2), ("best", 3), ("second", 3), ("worst", 3)):
        table.add_column(heading, ratio=ratio)
    lessons = result.lessons()
    for kind in (*TROUBLES, "nothing special"):
        # What was tried once or twice says little.
        tried = {name: seen for name, seen in lessons.get(kind, {}).items() if seen[0] >= 3}
        if len(tried) < 2:
            continue
        order = sorted(tried, key=lambda name: -tried[name][1])
        cells = [
            Text.assemble(_quality(tried[name][1]), f" {words(name)} ({tried[name][0]})")
            for name in (order[0], order[1], order[-1])
        ]
        table.add_row(kind, cells[0], cells[1], cells[2] if len(order) > 2 else "")
    return table


def _thirds(parts: Sequence[Comparison]) -> Table:
    table = Table(
        title="Quality, with memory and without (mean ± standard deviation)",
        title_justify="left",
        box=SIMPLE,
        pad_edge=False,
    )
    table.add_column("sprints")
    table.add_column("with", justify="right")
    table.add_column("", no_wrap=True)
    table.add_column("without", justify="right")
    table.add_column("", no_wrap=True)
    table.add_column("difference", justify="right")
    first = 1
    for part in parts:
        table.add_row(
            f"{first}-{first + part.count - 1}",
            f"{part.with_memory:.3f} ± {part.spread_with:.2f}",
            Text(_bar(part.with_memory), style="green"),
            f"{part.without_memory:.3f} ± {part.spread_without:.2f}",
            Text(_bar(part.without_memory), style="blue"),
            f"{part.difference:+.3f}",
        )
        first += part.count
    return table


def _verdict(last: Comparison) -> Text:
    """Say what the last third shows, and when it shows nothing."""
    if abs(last.difference) <= last.margin:
        finding = "no difference beyond chance in this game"
    elif last.difference > 0:
        finding = "the memory made the agent better"
    else:
        finding = "the memory made the agent worse in this game"
    return Text.assemble(
        "Last third, sprint by sprint: ",
        (f"{last.difference:+.3f} ± {last.margin:.3f}", "bold"),
        f" (95 % interval, {last.count} sprints): {finding}.",
    )


def _sparkline(result: DemoResult, *, ours: bool, width: int = 40) -> Text:
    """Draw mean quality in up to ``width`` stretches; the lowest block is 0.4, the highest 1."""
    values = [step.outcome.quality if ours else step.control_quality for step in result.steps]
    width = min(width, len(values))
    blocks = ""
    for number in range(width):
        part = values[len(values) * number // width : len(values) * (number + 1) // width]
        height = (sum(part) / len(part) - 0.4) / 0.6
        blocks += BLOCKS[min(len(BLOCKS) - 1, max(0, int(height * len(BLOCKS))))]
    return Text(blocks, style="green" if ours else "blue")


def _bar(value: float) -> str:
    return "█" * round(value * BAR)


def _quality(value: float) -> tuple[str, str]:
    style = "green" if value >= 0.8 else "yellow" if value >= 0.6 else "red"
    return f"{value:.2f}", style


def words(practice: str) -> str:
    """Return a practice as people write it."""
    return practice.replace("_", " ")
