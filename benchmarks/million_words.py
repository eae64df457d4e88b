"""Searches for words among a million episodes, under the filters that vectors are searched under.

Run it with ``python -m benchmarks.million_words [--rows N] [--save]``; it loads as
``benchmarks.million`` does, with the dimensions of the builtin embedder.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import psycopg

from benchmarks.comparing import LIMIT, Measure, Part, figures, p95, take_turns, timed
from benchmarks.measuring import wait_until_quiet
from benchmarks.million import PROJECTS, Loading, empty, planned
from benchmarks.recall import measure_all
from benchmarks.recall import show as show_measures
from benchmarks.stage import stage
from benchmarks.texts import question
from pgrecall import Memory

ASKED = 100
"""Queries of each kind."""
WITHIN = 100.0
"""Milliseconds, at the 95th percentile."""
Query = Callable[[int], str]


def texts_of(dsn: str, project: str | None) -> Sequence[str]:
    """Return the notes of some episodes."""
    with psycopg.connect(dsn) as owner:
        rows = owner.execute(
            "SELECT perception ->> 'notes' FROM agent_episodes TABLESAMPLE bernoulli (20) "
            "REPEATABLE (7) WHERE %(p)s::text IS NULL OR project_id = %(p)s LIMIT %(n)s",
            {"p": project, "n": ASKED},
        ).fetchall()
    return [text for (text,) in rows]


def queries(texts: Sequence[str]) -> dict[str, Query]:
    """Return what is asked, by kind."""
    rng = np.random.default_rng(5)
    some = [" ".join(rng.choice(text.split()[1:], 5, replace=False)) for text in texts]
    asked = [question(rng, 12) for _ in range(ASKED)]
    return {
        "an identifier": lambda i: texts[i % len(texts)].split()[0],
        "5 words of one": lambda i: some[i % len(some)],
        "a question of 12 words": lambda i: asked[i % len(asked)],
    }


def searches(large: Loading, rounds: int) -> Iterator[Part]:
    """Measure every kind of query in every share, by words, by both and by the vector alone."""
    vectors = large.stored.world.vectors(ASKED, queries=True)
    with large.stored.client() as memory:
        for project in (None, *PROJECTS):
            name = "all" if project is None else f"project-{project}"
            options = {} if project is None else {"project_id": name}
            texts = texts_of(large.stored.base.owner_dsn, options.get("project_id"))
            kinds = queries(texts)
            calls: dict[str, Callable[[int], Any]] = {"vector": _by(memory, None, vectors, options)}
            for kind, query in kinds.items():
                calls[f"words, {kind}"] = _by(memory, query, None, options)
                calls[f"hybrid, {kind}"] = _by(memory, query, vectors, options)
            taken = take_turns({n: timed(c) for n, c in calls.items()}, rounds, warm_up=10)
            first = _first(calls["words, an identifier"], kinds["an identifier"], len(texts))
            yield Part(
                name=name,
                measures=[
                    *(Measure(name=f"p95 ms, {n}, {name}", value=p95(times), target=WITHIN,
                              note=f"p50 {statistics.median(times):.1f}")
                      for n, times in taken.items()),
                    Measure(name=f"identifiers found first, {name}", value=first, target=0.99,
                            least=True),
                ],
                facts={n: figures(times) for n, times in taken.items()},
            )  # fmt: skip


def _by(memory: Memory, query: Query | None, vectors: Any, options: Any) -> Callable[[int], Any]:
    def call(i: int) -> Any:
        return memory.episodes.recall(
            None if query is None else query(i),
            embedding=None if vectors is None else vectors[i % ASKED],
            mode="words" if vectors is None else "vector" if query is None else "hybrid",
            limit=LIMIT, outcome_weight=0.0, **options,
        )  # fmt: skip

    return call


def _first(call: Callable[[int], Any], query: Query, count: int) -> float:
    """Return the share of identifiers whose episode is found first."""
    right = 0
    for i in range(count):
        hits = call(i)
        notes = hits[0].episode.perception["notes"] if hits else ""
        right += re.match(rf"{query(i)}\b", notes) is not None
    return right / count


def parts(options: argparse.Namespace) -> Iterator[Part]:
    with stage(options.rows, options.dimensions) as ground, empty(ground) as stored:
        large = Loading(stored, "halfvec", max(options.rows // 100, 20), 64)
        large.load(options.rows)
        large.index(planned(large, options).build_bytes)
        waited = wait_until_quiet(options.patience)
        print(f"waited {waited:,.0f} s until the machine was quiet", flush=True)
        yield from searches(large, options.rounds)
        yield Part(name="loading", measures=[], facts=large.seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--storage", default="halfvec", help="what the index holds")
    parser.add_argument("--patience", type=float, default=1800,
                        help="seconds to wait at most for a quiet machine")  # fmt: skip
    parser.add_argument("--save", action="store_true", help="write the results beside this file")
    options = parser.parse_args()
    measures = measure_all("million-words", parts(options), options)
    show_measures(measures)
    return 0 if all(measure.met is not False for measure in measures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
