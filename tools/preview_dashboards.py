"""Draw the dashboards as they look, from what Prometheus answered to their own queries.

Usage: python tools/preview_dashboards.py RESULTS.json [DIRECTORY]

``RESULTS.json`` is what tests/integration/monitor/test_dashboards_live.py writes where
``PGRECALL_DASHBOARD_RESULTS`` says. The pictures go to docs/images unless told otherwise.
"""

from __future__ import annotations

import io
import json
import math
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")

import matplotlib.dates as mdates
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
BACKGROUND, PANEL, TEXT, FAINT, GRID = "#111217", "#181b1f", "#d8d9da", "#8e8f94", "#2c3235"
COLORS = (
    "#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c",
    "#b877d9", "#56d9c9", "#e0b400", "#8ab8ff", "#ffb357", "#c4162a", "#96d98d",
)  # fmt: skip
NAMED = {"green": "#73bf69", "red": "#f2495c", "orange": "#ff9830", "blue": "#5794f2"}
WIDE, UNIT = 1440, 34
"""Pixels of a picture's width, and of one step of Grafana's grid in height."""
DPI = 100
MOST_COLORS = 128

Series = list[tuple[str, list[float], list[float]]]


def scaled(value: float, size: float, names: tuple[str, ...]) -> str:
    """Return a number with the largest unit that fits."""
    position = 0
    while abs(value) >= size and position < len(names) - 1:
        value, position = value / size, position + 1
    return f"{value:.3g} {names[position]}".strip()


def seconds(value: float) -> str:
    """Return a duration as Grafana shows it."""
    for size, name in ((31_557_600, "years"), (86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}"
    return f"{value * 1000:.3g} ms" if value else "0 s"


UNITS: dict[str, Callable[[float], str]] = {
    "short": lambda value: scaled(value, 1000, ("", "K", "M", "G")),
    "bytes": lambda value: scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB")),
    "s": seconds,
    "d": lambda value: f"{value:.3g} d",
    "ops": lambda value: scaled(value, 1000, ("/s", "K/s", "M/s")),
    "percentunit": lambda value: f"{value * 100:.3g} %",
}


def series_of(panel: dict[str, Any], answers: dict[str, Any]) -> Series:
    """Return name, times and values of every series of a panel."""
    found: Series = []
    for target in panel["targets"]:
        for item in answers[target["refId"]]:
            name = target["legendFormat"]
            for label in re.findall(r"\{\{(\w+)\}\}", name):
                name = name.replace(f"{{{{{label}}}}}", item["metric"].get(label, ""))
            points = [(time, float(value)) for time, value in item["values"]]
            found.append((name, [time for time, _ in points], [value for _, value in points]))
    return found


def draw_lines(axes: Axes, panel: dict[str, Any], found: Series) -> None:
    """Draw the lines of a panel, and its limit."""
    defaults = panel["fieldConfig"]["defaults"]
    stacked = defaults["custom"].get("stacking", {}).get("mode") == "normal"
    floor: dict[float, float] = {}
    for color, (name, times, values) in zip(COLORS * 3, found, strict=False):
        dates: Any = [datetime.fromtimestamp(time, UTC) for time in times]
        low = [floor.get(time, 0.0) for time in times] if stacked else [0.0] * len(times)
        high = [below + value for below, value in zip(low, values, strict=True)]
        axes.plot(dates, high, color=color, linewidth=1.2, label=name)
        if stacked or len(found) == 1:
            alpha = 0.3 if stacked else 0.12
            axes.fill_between(dates, low, high, color=color, alpha=alpha, linewidth=0)
        floor.update(zip(times, high, strict=True))
    bottom, top = axes.get_ylim()
    if "min" in defaults:
        bottom, top = defaults["min"], top + (top - defaults["min"]) * 0.06
    steps = defaults.get("thresholds", {}).get("steps", [])
    for limit in (step["value"] for step in steps if step["value"]):
        if limit <= top + (top - bottom) * 4:
            axes.axhline(limit, color=NAMED["red"], linestyle=(0, (4, 3)), linewidth=1)
            top = max(top, limit * 1.08)
    if defaults["unit"] == "percentunit" and all(max(values) <= 1 for _, _, values in found):
        top = min(top, 1.005)
    axes.set_ylim(bottom, top)


def dress(axes: Axes, panel: dict[str, Any], columns: int) -> None:
    """Draw what stands around the lines: axes, grid, legend."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    show = UNITS[unit]
    bottom, top = axes.get_ylim()
    axes.yaxis.set_major_locator(MultipleLocator(round_step((top - bottom) / 5, top, unit)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))
    dates: Any = mdates  # matplotlib has no types for it
    left, right = axes.get_xlim()
    pattern = "%H:%M:%S" if (right - left) * 86_400 < 180 else "%H:%M"
    axes.xaxis.set_major_locator(dates.AutoDateLocator(minticks=3, maxticks=7))
    axes.xaxis.set_major_formatter(dates.DateFormatter(pattern))
    axes.tick_params(colors=FAINT, labelsize=7.5, length=0)
    axes.grid(color=GRID, linewidth=0.6)
    for spine in axes.spines.values():
        spine.set_visible(False)
    legend = axes.legend(
        loc="upper left", bbox_to_anchor=(-0.09, -0.12), ncols=columns, fontsize=7.5,
        frameon=False, labelcolor=TEXT, handlelength=1, columnspacing=1.1, labelspacing=0.25,
        borderaxespad=0,
    )  # fmt: skip
    for line in legend.get_lines():
        line.set_linewidth(2.5)


def round_step(step: float, top: float, unit: str) -> float:
    """Return a step between marks that is a round number in the unit in which they are shown."""
    sizes = {"bytes": (1024**3, 1024**2, 1024, 1), "s": (31_557_600, 86_400, 3600, 60, 1)}
    size = next((size for size in sizes.get(unit, ()) if top >= size), 1)
    power: float = 10 ** math.floor(math.log10(step / size))
    return min(power * part * size for part in (1, 2, 2.5, 5, 10) if power * part * size >= step)


def legend_columns(found: Series, width: float) -> int:
    """Return how many names stand side by side in so many pixels."""
    longest = max((len(name) for name, _, _ in found), default=1)
    return max(1, int(width / (longest * 5.8 + 32)))


def draw_figure(axes: Axes, panel: dict[str, Any], found: Series) -> None:
    """Draw the latest value as a large number."""
    defaults = panel["fieldConfig"]["defaults"]
    value = found[-1][2][-1] if found else float("nan")
    color = "blue"
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            color = step["color"]
    text = UNITS[defaults["unit"]](value)
    for mapping in defaults.get("mappings", []):
        word = mapping["options"].get(f"{value:g}")
        if word:
            text, color = word["text"], word["color"]
    axes.text(
        0.5, 0.42, text, ha="center", va="center", fontsize=19, color=NAMED.get(color, color),
        transform=axes.transAxes, fontweight="bold",
    )  # fmt: skip
    axes.set_axis_off()


def draw(board: dict[str, Any], answers: dict[str, Any]) -> Figure:
    """Draw one dashboard."""
    panels = board["panels"]
    high = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) + 2
    figure = plt.figure(figsize=(WIDE / DPI, high * UNIT / DPI), dpi=DPI, facecolor=BACKGROUND)

    def place(x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
        """Turn a place on Grafana's grid into one on the picture."""
        return (x / 24, 1 - (y + h + 2) / high, w / 24, h / high)

    figure.text(
        0.008, 1 - 1 / high, board["title"], color=TEXT, fontsize=15, va="center", weight="bold"
    )
    for panel in panels:
        at = panel["gridPos"]
        if panel["type"] == "row":
            _, bottom, _, height = place(at["x"], at["y"], at["w"], 1)
            figure.text(
                0.008, bottom + height / 2, panel["title"], color=TEXT, fontsize=10.5, va="center"
            )
            continue
        left, bottom, width, height = place(
            at["x"] + 0.06, at["y"] + 0.08, at["w"] - 0.12, at["h"] - 0.16
        )
        figure.add_artist(
            mpl.patches.Rectangle(
                (left, bottom), width, height, facecolor=PANEL, edgecolor=GRID, linewidth=0.8,
                zorder=-1,
            )
        )  # fmt: skip
        figure.text(
            left + 0.006, bottom + height - 0.55 / high, panel["title"], color=TEXT, fontsize=9,
            va="center",
        )  # fmt: skip
        found = series_of(panel, answers[str(panel["id"])])
        if panel["type"] == "stat":
            draw_figure(figure.add_axes((left, bottom, width, height)), panel, found)
        else:
            columns = legend_columns(found, width * WIDE)
            legend = 0.75 + 0.5 * min(5, -(-len(found) // columns))
            axes = figure.add_axes(
                (
                    left + 0.042,
                    bottom + (legend + 0.55) / high,
                    width - 0.05,
                    height - (legend + 1.75) / high,
                ),
                facecolor=PANEL,
            )
            draw_lines(axes, panel, found)
            dress(axes, panel, columns)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a picture with few colours, so that it stays small."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI, facecolor=BACKGROUND)
    plt.close(figure)
    drawn.seek(0)
    Image.open(drawn).convert("RGB").quantize(MOST_COLORS).save(path, optimize=True)


def main() -> int:
    """Draw all dashboards."""
    if len(sys.argv) not in (2, 3):
        print(__doc__)
        return 2
    results = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    directory = Path(sys.argv[2]) if len(sys.argv) == 3 else ROOT / "docs" / "images"
    directory.mkdir(parents=True, exist_ok=True)
    for source in sorted((ROOT / "deploy" / "grafana").glob("*.json")):
        board = json.loads(source.read_text(encoding="utf-8"))
        path = directory / f"dashboard-{source.stem}.png"
        save(draw(board, results[board["uid"]]), path)
        print(f"wrote {path} ({path.stat().st_size // 1000} kB)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
