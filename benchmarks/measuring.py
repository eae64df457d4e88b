"""How everything here is measured: interleaved, after a warm-up, medians with their spread."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

RESULTS = Path(__file__).parent / "results"
BUSY = 12
"""Per cent of all processors' time, taken by others, that would show in what is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Milliseconds a call."""

    name: str
    p50: float
    p95: float
    calls: int


def interleave(
    calls: Mapping[str, Callable[[int], object]], rounds: int, *, warm_up: int
) -> dict[str, list[float]]:
    """Call each in turn, ``rounds`` times, and return the milliseconds of each call.

    The order turns round by round, so that none always profits from what the one before it
    brought into the caches.
    """
    names = list(calls)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for i in range(-warm_up, rounds):
        turn = i % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            calls[name](i)
            if i >= 0:
                taken[name].append((time.perf_counter() - start) * 1000)
    return taken


def wait_until_quiet(seconds: float) -> float:
    """Wait until others leave the processors alone for ten seconds, and return how long it took.

    Args:
        seconds: Wait no longer; whatever runs then is measured as well.
    """
    begun = time.monotonic()
    while time.monotonic() - begun < seconds and psutil.cpu_percent(10) > BUSY:
        pass
    return time.monotonic() - begun


def summarise(name: str, taken: Sequence[float]) -> Timing:
    """Return median and 95th percentile."""
    return Timing(
        name=name,
        p50=statistics.median(taken),
        p95=statistics.quantiles(taken, n=20)[-1],
        calls=len(taken),
    )


def ratio(
    taken: Sequence[float], floor: Sequence[float], blocks: int = 10
) -> tuple[float, float, float]:
    """Return the ratio of the medians, and the lowest and highest of parts of the run."""
    size = max(1, len(taken) // blocks)
    parts = [
        statistics.median(taken[i : i + size]) / statistics.median(floor[i : i + size])
        for i in range(0, size * blocks, size)
        if taken[i : i + size]
    ]
    return statistics.median(taken) / statistics.median(floor), min(parts), max(parts)


def machine() -> dict[str, str | int | float]:
    """Return what ran the benchmark."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    ).stdout.strip()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit or "unknown",
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": psutil.cpu_count() or 0,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": round(psutil.getloadavg()[0], 2),
    }


def save(name: str, results: Mapping[str, object]) -> Path:
    """Write a result with machine and commit, and return where."""
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"{name}.json"
    target.write_text(json.dumps({"machine": machine(), **results}, indent=2) + "\n")
    return target


def as_rows(timings: Sequence[Timing]) -> list[dict[str, object]]:
    """Return timings as JSON values, rounded to microseconds."""
    return [
        {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}
        for row in map(asdict, timings)
    ]
