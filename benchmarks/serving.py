"""The memory over HTTP: what it adds to the client, and many clients at once.

Run it with ``python -m benchmarks.serving [--rows N] [--clients N] [--seconds N] [--save]``.
Recalls of one HTTP client take turns with the Python client's; then many clients recall and record
for a while. Vectors are given, so no embedder is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil

from benchmarks.comparing import LIMIT, Measure, Part, figures, middle, p95, take_turns, timed
from benchmarks.recall import measure_all, show
from benchmarks.stage import Stage, Stored, stage

DIMENSIONS = 384
RECORDS = 5
"""One request in so many records, the others recall."""
QUERIES = 256
EVERY = 5.0
"""Seconds between looks at the server's memory."""


@contextmanager
def serving(ground: Stage, stored: Stored) -> Iterator[tuple[str, psutil.Process]]:
    """Run ``pgrecall serve`` on a database, and give its address and process."""
    environment = {**os.environ, "PGRECALL_SERVE_PORT": "0", "PGRECALL_EMBEDDER": "none",
                   "PGRECALL_DSN": stored.base.dsn}  # fmt: skip
    with (ground.folder / "serve.log").open("w") as log, subprocess.Popen(
        [sys.executable, "-m", "pgrecall.cli", "serve", "--table"], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=log,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("listening: "):
            raise RuntimeError((ground.folder / "serve.log").read_text())
        try:
            yield line.removeprefix("listening: ").strip(), psutil.Process(process.pid)
        finally:
            process.terminate()


def overhead(stored: Stored, address: str, rounds: int) -> Part:
    """Compare a recall over HTTP with one of the client."""
    queries = stored.world.vectors(QUERIES, queries=True)
    bodies = [_question(query) for query in queries]
    with stored.client() as memory, httpx.Client(base_url=address, timeout=60) as http:

        def over_http(i: int) -> object:
            return http.post("/api/v1/episodes/recall", json=bodies[i % QUERIES]).raise_for_status()

        taken = take_turns(
            {
                "http": timed(over_http),
                "client": timed(lambda i: memory.episodes.recall(
                    embedding=queries[i % QUERIES], limit=LIMIT, outcome_weight=0.0)),
            },
            rounds, warm_up=QUERIES,
        )  # fmt: skip
    return Part(
        name="overhead",
        measures=[middle("recall over HTTP / of the client: p50", taken["http"], taken["client"])],
        facts={who: figures(times) for who, times in taken.items()},
    )


def _question(query: Any) -> dict[str, Any]:
    return {"embedding": [float(value) for value in query], "limit": LIMIT, "outcome_weight": 0.0}


@dataclass
class Load:
    """What many clients saw."""

    taken: dict[str, list[float]] = field(default_factory=lambda: {"recall": [], "record": []})
    errors: list[str] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)


async def load(
    stored: Stored, address: str, server: psutil.Process, clients: int, seconds: float
) -> Load:
    """Let so many clients ask one thing after another."""
    queries = stored.world.vectors(QUERIES, queries=True)
    questions = [_question(query) for query in queries]
    seen = Load()
    end = time.monotonic() + seconds

    async def client(number: int, http: httpx.AsyncClient) -> None:
        i = number
        while time.monotonic() < end:
            i += clients
            kind = "record" if i % RECORDS == 0 else "recall"
            path, body = "/api/v1/episodes/recall", questions[i % QUERIES]
            if kind == "record":
                path = "/api/v1/episodes"
                body = {"project_id": f"load-{number}", "agent_version": "1", "reasoning": {},
                        "perception": {"n": i}, "action": {},
                        "embedding": body["embedding"]}  # fmt: skip
            begun = time.perf_counter()
            try:
                answer = await http.post(path, json=body)
                if not answer.is_success:
                    seen.errors.append(answer.text[:200])
            except httpx.HTTPError as error:
                seen.errors.append(repr(error))
            seen.taken[kind].append((time.perf_counter() - begun) * 1000)

    async def watch() -> None:
        while time.monotonic() < end:
            await asyncio.sleep(EVERY)
            seen.resident.append(server.memory_info().rss / 2**20)

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as http:
        await asyncio.gather(watch(), *(client(number, http) for number in range(clients)))
    return seen


def many(stored: Stored, address: str, server: psutil.Process, options: argparse.Namespace) -> Part:
    """Measure many clients at once."""
    asyncio.run(load(stored, address, server, options.clients, 10))  # a warm-up
    seen = asyncio.run(load(stored, address, server, options.clients, options.seconds))
    half = len(seen.resident) // 2
    growth = sum(seen.resident[half:]) / len(seen.resident[half:]) / (
        sum(seen.resident[:half]) / max(half, 1))  # fmt: skip
    measures = [
        Measure(name=f"errors, {options.clients} clients", value=len(seen.errors), target=0,
                note="; ".join(seen.errors[:2])),
        Measure(name="resident memory, second half / first", value=growth, target=1.05,
                note=f"{seen.resident[-1]:.0f} MiB at the end"),
    ]  # fmt: skip
    total = sum(map(len, seen.taken.values()))
    measures.append(Measure(name="requests a second", value=total / options.seconds))
    measures += [
        Measure(name=f"{kind} p95 ms, {options.clients} clients", value=p95(taken),
                note=f"p50 {figures(taken)['p50']}")
        for kind, taken in seen.taken.items()
    ]  # fmt: skip
    facts = {kind: figures(taken) for kind, taken in seen.taken.items()}
    return Part(
        name="many",
        measures=measures,
        facts={**facts, "resident_mib": seen.resident, "clients": options.clients},
    )


def parts(options: argparse.Namespace) -> Iterator[Part]:
    with (
        stage(options.rows, DIMENSIONS) as ground,
        ground.filled(options.rows) as stored,
        serving(ground, stored) as (address, server),
    ):
        yield overhead(stored, address, options.rounds)
        yield many(stored, address, server, options)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--save", action="store_true", help="write the results beside this file")
    options = parser.parse_args()
    options.dimensions = DIMENSIONS
    measures = measure_all("serving", parts(options), options)
    show(measures)
    return 0 if all(measure.met is not False for measure in measures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
