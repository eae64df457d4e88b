"""Draws the saved results of ``benchmarks.recall`` into ``docs/images``.

Run it with ``python -m benchmarks.plotting``, or let ``benchmarks.recall --save`` do so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import RESULTS

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
COLOURS = ("#1f6feb", "#8c959f", "#bf8700", "#57ab5a")
"""Ours first."""

Results = Mapping[str, Any]
Bars = Mapping[str, Sequence[float]]


def plot(name: str = "recall") -> list[Path]:
    """Draw all that the results have, and return the images."""
    results = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    drawn = []
    for part, (image, draw) in PLOTS.items():
        if results.get(part):
            prefix = f"{name}-" if name.startswith("million") else ""
            drawn.append(_draw(IMAGES / f"{prefix}{image}.png", results, draw))
    return drawn


def _draw(target: Path, results: Results, draw: Callable[[Any, Results], None]) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    draw(axes, results)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis="y", alpha=0.3)
    machine = results["machine"]
    figure.supxlabel(
        f"{machine['cores']} cores, {machine['date']}, {machine['commit']}",
        x=0.995, ha="right", fontsize=6, color="#8c959f",
    )  # fmt: skip
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130)
    return target


def _bars(axes: Any, groups: Sequence[str], bars: Bars, unit: str, digits: int = 2) -> None:
    """Draw bars side by side, one group of them a place."""
    width = 0.8 / len(bars)
    for number, (label, heights) in enumerate(bars.items()):
        places = [place + (number - (len(bars) - 1) / 2) * width for place in range(len(groups))]
        drawn = axes.bar(places, heights, 0.92 * width, label=label, color=COLOURS[number])
        axes.bar_label(drawn, fmt=f"%.{digits}f", fontsize=7, padding=1)
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylabel(unit)
    axes.margins(y=0.12)
    axes.legend(frameon=False, fontsize=8)


def _floor(axes: Any, results: Results) -> None:
    parts = ("by similarity", "weighing outcomes")
    groups = [f"{part},\n{which}" for part in parts for which in ("p50", "p95")]
    bars = {
        label: [results["floor"][part][name][which] for part in parts for which in ("p50", "p95")]
        for label, name in (("client", "client"), ("raw statement", "raw"))
    }
    _bars(axes, groups, bars, "milliseconds")
    axes.set_title(f"Recall and the raw statement, {results['rows']:,} episodes", fontsize=10)


def _accuracy(axes: Any, results: Results) -> None:
    found = {"specification's index": results["accuracy"]["specified, all"]}
    for name, one in results.get("accuracy_rebuilt", {}).items():
        if name.isdigit():
            found[f"ef_construction 200,\nef_search {name}"] = one
    labels = [f"{name}\n{one['nothing']} of {one['queries']} found nothing right"
              for name, one in found.items()]  # fmt: skip
    _bars(axes, labels, {"recall@10": [one["recall"] for one in found.values()]}, "recall@10", 4)
    axes.set_ylim(min(one["recall"] for one in found.values()) - 0.01, 1.004)
    axes.axhline(0.99, color="#cf222e", linewidth=1, linestyle="--")
    axes.get_legend().remove()
    axes.set_title(f"What an unfiltered recall finds, {results['rows']:,} episodes", fontsize=10)


def _shares(axes: Any, results: Results) -> None:
    facts = results["shares"]
    names = list(facts[0]["strategies"])
    groups = [f"{fact['percent']:g} %\n{fact['route']} chosen" for fact in facts]
    bars = {name: [fact["strategies"][name]["p95"] for fact in facts] for name in names}
    _bars(axes, groups, bars, "p95, milliseconds", 1)
    for container, name in zip(axes.containers, names, strict=True):
        for bar, fact in zip(container.patches, facts, strict=True):
            one = fact["strategies"][name]
            if min(one["recall_own"], one["recall_other"]) < 0.99 or one["short"]:
                bar.set(hatch="////", alpha=0.45, edgecolor="#cf222e")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.set_title(
        "Recall in one project, by its share of the episodes and by route\n"
        "(hatched: recall below 0.99, or results missing)", fontsize=10,
    )  # fmt: skip


def _filters(axes: Any, results: Results) -> None:
    facts = results["filters"]
    groups = [f"{name}\n{fact['route']} chosen" for name, fact in facts.items()]
    bars = {name: [fact[name]["p50"] for fact in facts.values()] for name in ("chosen", "exact")}
    _bars(axes, groups, bars, "p50, milliseconds")
    axes.set_title("Filters that let 1 % of the episodes through", fontsize=10)


def _pooler(axes: Any, results: Results) -> None:
    facts = results["pooler"]
    bars = {
        label: [facts[name][which] for which in ("p50", "p95")]
        for label, name in (("through PgBouncer", "pooled"), ("direct", "direct"))
    }
    _bars(axes, ["p50", "p95"], bars, "milliseconds")
    axes.set_title(f"Recall through a pooler, {results['rows']:,} episodes", fontsize=10)


def _growth(axes: Any, results: Results) -> None:
    facts = {int(size): fact for size, fact in results["growth"].items()}
    sizes = sorted(facts)
    for which, colour in zip(("p50", "p95"), COLOURS, strict=False):
        axes.plot(sizes, [facts[size][which] for size in sizes], "o-", label=which, color=colour)
        for size in sizes:
            axes.annotate(f"{facts[size][which]:.2f}", (size, facts[size][which]), fontsize=7,
                          xytext=(0, 5 if which == "p95" else -12), ha="center",
                          textcoords="offset points")  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_ylim(0, None)
    axes.margins(y=0.12)
    axes.set_xlabel("episodes")
    axes.set_ylabel("milliseconds")
    axes.legend(frameon=False, fontsize=8)
    axes.set_title("Unfiltered recall as the memory grows", fontsize=10)


def _faiss(axes: Any, results: Results) -> None:
    facts = results["faiss"]
    bars = {
        label: [facts[name][which] for which in ("p50", "p95")]
        for label, name in (("client", "ours"), ("faiss in process", "faiss"))
    }
    _bars(axes, ["p50", "p95"], bars, "milliseconds")
    recalls = " and ".join(f"{facts[name]['recall']:.4f}" for name in ("ours", "faiss"))
    axes.set_title(f"Recall and an index in the same process (recall@10 {recalls})", fontsize=10)


def _peers(axes: Any, results: Results) -> None:
    facts = results["peers"]["peers"]
    bars = {
        f"{label}, {which}": [fact[part][who]["p50"] for fact in facts.values()]
        for part, which in (("no filter", "no filter"), ("filtered", "1 % of the episodes"))
        for who, label in (("ours", "pgrecall"), ("peer", "the other"))
    }
    _bars(axes, list(facts), bars, "p50, milliseconds")
    rows = results["peers"]["rows"]
    axes.set_title(f"The same {rows:,} vectors and documents in other memories", fontsize=10)


def _memory(axes: Any, results: Results) -> None:
    facts = results["memory"]
    axes.plot(facts["made"], facts["resident_mb"], color=COLOURS[0])
    middle = sum(facts["resident_mb"]) / len(facts["resident_mb"])
    axes.set_ylim(middle - 5, middle + 5)
    axes.set_xlabel("recalls")
    axes.set_ylabel("resident, MB")
    slope = results["measures"][0]["value"]
    axes.set_title(f"A client's memory: {slope:+.2f} MB in 100,000 recalls", fontsize=10)


def _quality(axes: Any, results: Results) -> None:
    sets = list(results["quality"])
    ways = {"words": "words", "vectors": "vectors", "ranks fused": "ranks fused (RRF)",
            "hybrid, neighbours": "hybrid"}  # fmt: skip
    bars = {
        label: [results["quality"][one][way]["NDCG@10"]["mean"] for one in sets]
        for way, label in ways.items()
    }
    _bars(axes, [one.replace(", ", ",\n") for one in sets], bars, "NDCG@10")
    axes.set_title("What words, vectors and both find", fontsize=10)


def _cost(axes: Any, results: Results) -> None:
    compared = {name: sides for name, sides in results["cost"].items() if "vector" in sides}
    groups = ["with the query's embedding", "in the database"]
    bars = {
        side: [compared[name][side]["p50"] for name in compared] for side in ("hybrid", "vector")
    }
    _bars(axes, groups, bars, "milliseconds, p50")
    axes.set_title(f"Recall by words and vectors, {results['rows']:,} episodes", fontsize=10)


def _grown(axes: Any, results: Results) -> None:
    facts = results["grown"]
    for (name, curve), colour in zip(facts["curves"].items(), COLOURS, strict=False):
        rows = facts["rows"] // (10 if name == "tenth" else 1)
        for which, style, label in (
            ("recall", "o--", "all queries"),
            ("known_recall", "o-", "queries of topics there are"),
        ):
            axes.plot([one["p50"] for one in curve.values()],
                      [one[which] for one in curve.values()], style, color=colour, markersize=4,
                      label=f"{rows:,}, {label}")  # fmt: skip
        for width, one in curve.items():
            axes.annotate(f"{width}", (one["p50"], one["known_recall"]), fontsize=6,
                          xytext=(0, 4), ha="center", textcoords="offset points")  # fmt: skip
    axes.set_xlim(0, None)
    axes.set_xlabel("p50, milliseconds (numbers: ef_search)")
    axes.set_ylabel("recall@10")
    axes.legend(frameon=False, fontsize=7, loc="lower right")
    axes.set_title("What wider searches find and take, at ten times as many", fontsize=10)


def _projects(axes: Any, results: Results) -> None:
    facts = results["projects"]
    groups = [f"{one['rows']:,}\nrecall {one['recall']:.3f}" for one in facts.values()]
    bars = {which: [one[which] for one in facts.values()] for which in ("p50", "p95")}
    _bars(axes, groups, bars, "milliseconds", 1)
    axes.axhline(100, color="#cf222e", linewidth=1, linestyle="--")
    axes.set_title(f"Recall in projects of every size among {results['rows']:,}", fontsize=10)


PLOTS: Mapping[str, tuple[str, Callable[[Any, Results], None]]] = {
    "floor": ("recall-floor", _floor),
    "accuracy": ("recall-accuracy", _accuracy),
    "shares": ("recall-shares", _shares),
    "filters": ("recall-filters", _filters),
    "pooler": ("recall-pooler", _pooler),
    "growth": ("recall-growth", _growth),
    "faiss": ("recall-faiss", _faiss),
    "peers": ("recall-peers", _peers),
    "memory": ("recall-memory", _memory),
    "quality": ("retrieval-quality", _quality),
    "cost": ("retrieval-cost", _cost),
    "grown": ("grown", _grown),
    "projects": ("projects", _projects),
}
"""Image and drawing of each part of the results."""


def main() -> int:
    for name in ("recall", "recall-memory", "retrieval-quality", "retrieval-cost", "million",
                 "million-200"):  # fmt: skip
        if (RESULTS / f"{name}.json").exists():
            print(*plot(name), sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
