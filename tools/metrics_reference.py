"""Writes docs/reference/metrics.md from the catalogue of metrics.

Usage: python tools/metrics_reference.py [--check]; with ``--check`` nothing is written.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from pgrecall.telemetry.catalogue import AGENT, BUCKETS, MONITOR, SOURCES, Metric

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "metrics.md"

HEAD = """# Metrics

<!-- Made by tools/metrics_reference.py from src/pgrecall/telemetry/catalogue.py. Do not edit. -->

What each process of pgrecall shows to Prometheus. Names, units and kinds follow Prometheus's
conventions; labels take few values, and none is a project unless you ask for it.
"""
AGENTS = """
## Of agents

Shown by each process that uses the client and has `PGRECALL_PROMETHEUS` set:
[Observe your agent](../how-to/observe-your-agent.md). `project` is empty unless
`PGRECALL_PROMETHEUS_PROJECTS` asks for names, and `other` beyond that number.
"""
DATABASE = """
## Of the database

Shown by `pgrecall monitor`: [Monitor](../how-to/monitor.md). A collector that fails shows
`pgrecall_collector_success` 0 and none of its other metrics.
"""
TAIL = f"""
Histograms of durations have the upper bounds {", ".join(f"{bound:g}" for bound in BUCKETS)}
seconds.
"""


def table(metrics: Iterable[Metric]) -> Iterator[str]:
    """Return a table of metrics, line by line."""
    yield "| metric | kind | labels | meaning |"
    yield "|---|---|---|---|"
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        yield f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |"


def page() -> str:
    """Return the text of the page."""
    lines = [HEAD, AGENTS, *table(AGENT), DATABASE]
    lines += table(metric for metric in MONITOR if not metric.source)
    for source in SOURCES:
        lines += ["", f"### Collector `{source}`", ""]
        lines += table(metric for metric in MONITOR if metric.source == source)
    return "\n".join([*lines, TAIL])


def main(arguments: list[str]) -> int:
    """Write the page, or compare it."""
    wanted = page()
    if arguments == ["--check"]:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == wanted:
            return 0
        print(f"{PAGE.name} is not what the catalogue says: make generate", file=sys.stderr)
        return 1
    PAGE.write_text(wanted, encoding="utf-8")
    print(f"written: {PAGE.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
