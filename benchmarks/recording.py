"""Recording one episode with its vector: against raw SQL, and against other memories.

Run it with ``python -m benchmarks.recording [--rows N] [--peers-rows N] [--rounds N] [--save]``.
Every record is a vector that no other has, and takes turns with its counterpart's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparing import Call, Measure, Part, figures, left_out, middle, take_turns, timed
from benchmarks.data import World
from benchmarks.floor import RAW_INSERT, as_row, raw_connection
from benchmarks.peers import LIVES_IN_POSTGRES, Left, Peer, new_database
from benchmarks.recall import PEERS, measure_all, show
from benchmarks.stage import DIMENSIONS, Stage, Stored, stage
from pgrecall import Memory

RATES = {"LangGraph": 2.0, "mem0": 2.0, "Chroma": 3.0}
"""How many times as many records a second as theirs ours are to be."""
WARM_UP = 50


def recording(memory: Memory, rounds: int, seed: int, *, burst: bool = False) -> Call:
    """Return timed records of so many episodes, each another one."""
    episodes = iter(list(World(DIMENSIONS, seed=seed).episodes(rounds)))
    return timed(lambda _: memory.episodes.record(**next(episodes), burst=burst))


def _rate(name: str, ours: Sequence[float], theirs: Sequence[float], target: float) -> Measure:
    return replace(middle(name, theirs, ours, target), least=True)


def floor(stored: Stored, rounds: int) -> Part:
    """Compare with the same INSERT on a raw, prepared connection."""
    rows = iter([as_row(one) for one in World(DIMENSIONS, seed=41).episodes(rounds + WARM_UP)])
    with stored.client() as memory, raw_connection(stored.base.dsn) as raw:
        taken = take_turns(
            {
                "ours": recording(memory, rounds + WARM_UP, 42),
                "raw": timed(lambda _: raw.execute(RAW_INSERT, next(rows), binary=True).fetchall()),
            },
            rounds, warm_up=WARM_UP,
        )  # fmt: skip
    name = f"rate of record / of raw INSERT, beside {len(stored.ids):,}"
    return Part(
        name="beside_raw",
        measures=[_rate(name, taken["ours"], taken["raw"], 0.9)],
        facts={who: figures(times) for who, times in taken.items()},
    )


def others(ground: Stage, stored: Stored, rounds: int, python: Path) -> Part:
    """Compare with what other memories take for one record."""
    measures: list[Measure] = []
    facts: dict[str, Any] = {"rows": len(stored.ids)}
    place = ground.folder / "peers"
    place.mkdir()
    np.save(place / "vectors.npy", stored.vectors)
    np.save(place / "projects.npy", stored.projects)
    np.save(place / "queries.npy", stored.world.vectors(rounds + WARM_UP, queries=True))
    for number, (name, target) in enumerate(RATES.items()):
        label = f"rate of record / of {name}, beside {len(stored.ids):,}"
        try:
            options = {"dsn": new_database(ground, name)} if name in LIVES_IN_POSTGRES else {}
            with Peer(python, name, place, **options) as peer, stored.client() as memory:
                taken = take_turns(
                    {
                        "ours": recording(memory, rounds + WARM_UP, 43 + number),
                        "burst": recording(memory, rounds + WARM_UP, 83 + number, burst=True),
                        "theirs": partial(_next, peer, count()),
                    },
                    rounds, warm_up=WARM_UP,
                )  # fmt: skip
                facts[name] = {"versions": peer.versions,
                               **{who: figures(times) for who, times in taken.items()}}  # fmt: skip
        except Left as reason:
            measures.append(left_out(label, str(reason)))
            continue
        measures.append(_rate(label, taken["ours"], taken["theirs"], target))
        label = f"rate of record(burst=True) / of {name}, beside {len(stored.ids):,}"
        measures.append(_rate(label, taken["burst"], taken["theirs"], target))
    return Part(name="others", measures=measures, facts=facts)


def _next(peer: Peer, numbers: Iterator[int], _: int) -> float:
    return peer.record(next(numbers))


def parts(options: argparse.Namespace) -> Iterator[Part]:
    with stage(max(options.rows, options.peers_rows)) as ground:
        with ground.filled(options.rows) as stored:
            yield floor(stored, options.rounds)
        if options.peers_rows:
            with ground.filled(options.peers_rows) as stored:
                yield others(ground, stored, options.rounds, options.peers / "bin" / "python")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--peers-rows", type=int, default=10_000, help="0: leave peers out")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--peers", type=Path, default=PEERS, help="environment of the peers")
    parser.add_argument("--save", action="store_true", help="write the results beside this file")
    options = parser.parse_args()
    measures = measure_all("recording", parts(options), options)
    show(measures)
    return 0 if all(measure.met is not False for measure in measures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
