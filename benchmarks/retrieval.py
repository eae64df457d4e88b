"""Retrieval by words and vectors: what each finds, what fusing them finds, and what it costs.

Run it with ``python -m benchmarks.retrieval [--parts quality planted cost writing] [--save]``. The
sets of questions are read from the directory that ``PGRECALL_EVAL_DATA`` names. Every search goes
through the client, with the builtin embedder and one setting for all sets.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.comparing import Measure, Part
from benchmarks.planted import cost, planted, writing
from benchmarks.question_sets import Collection, Question, read_all
from benchmarks.recall import console, measure_all, show
from benchmarks.stage import stage
from pgrecall import Memory
from pgrecall.models import Recalled

DIMENSIONS = 384
DEPTH = 100
"""Hits of each side that fusion by ranks and by shares is given."""
METRICS = ("R@5", "R@10", "NDCG@10")
TARGETS = {("LoCoMo", "R@5"): 0.62, ("LoCoMo", "R@10"): 0.71, ("LoCoMo", "NDCG@10"): 0.52,
           ("tau-bench", "R@5"): 0.80}  # fmt: skip
DEFAULT = "hybrid, neighbours"

Ranking = Sequence[int]
Numbers = NDArray[np.float64]


def quality(dsn_of: Callable[[], Any], data: Path, conversations: int | None = None) -> Part:
    """Measure every way to search on every set."""
    facts: dict[str, Any] = {}
    measures: list[Measure] = []
    with dsn_of() as base, Memory.open(
        base.dsn, embedder="builtin", settings=base.settings
    ) as memory:  # fmt: skip
        for name, collections in read_all(data, conversations).items():
            found: dict[str, list[Numbers]] = {}
            for number, collection in enumerate(collections):
                project = f"{name} {number}"
                _record(memory, project, collection)
                for question in collection.questions:
                    for way, ranking in _searches(memory, project, question).items():
                        found.setdefault(way, []).append(_score(ranking, question))
            facts[name] = {way: _with_spread(np.stack(rows)) for way, rows in found.items()}
            measures += _judge(name, facts[name])
    return Part(name="quality", measures=measures, facts=facts)


def _record(memory: Memory, project: str, collection: Collection) -> None:
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    groups = collection.groups
    episodes = [
        {
            "project_id": project, "agent_version": "1", "perception": document, "reasoning": {},
            "action": {}, "timestamp": begun + timedelta(minutes=i), "external_id": str(i),
            "sprint_id": groups[i] if groups else None,
        }
        for i, document in enumerate(collection.documents)
    ]  # fmt: skip
    for i in range(0, len(episodes), 256):
        memory.episodes.record_many(episodes[i : i + 256])


def _searches(memory: Memory, project: str, question: Question) -> dict[str, Ranking]:
    """Return what each way finds, best first, without the asker."""
    (vector,) = memory.embed(question.text)

    def search(limit: int, **options: Any) -> Sequence[Recalled]:
        return memory.episodes.recall(
            project_id=project, limit=limit, outcome_weight=0.0, group_repeats=False, **options
        )

    words = search(DEPTH, query=question.text, mode="words", context=False)
    vectors = search(DEPTH, embedding=vector, mode="vector")
    both = {"query": question.text, "embedding": vector}
    ways = {
        "words": _places(words),
        "vectors": _places(vectors),
        "ranks fused": _fuse(words, vectors, lambda hits: [1 / (61 + i) for i in range(len(hits))]),
        "shares fused": _fuse(words, vectors, _shares),
        "hybrid": _places(search(11, context=False, **both)),
        DEFAULT: _places(search(11, **both)),
    }
    return {way: [i for i in ranking if i != question.asker][:10] for way, ranking in ways.items()}


def _places(hits: Sequence[Recalled]) -> Ranking:
    return [int(hit.episode.external_id or 0) for hit in hits]


def _shares(hits: Sequence[Recalled]) -> Sequence[float]:
    """Return scores between those of the last and of the first, as shares."""
    if not hits:
        return []
    last, first = hits[-1].score, hits[0].score
    return [(hit.score - last) / (first - last) if first > last else 1.0 for hit in hits]


def _fuse(
    words: Sequence[Recalled],
    vectors: Sequence[Recalled],
    worth: Callable[[Sequence[Recalled]], Sequence[float]],
) -> Ranking:
    total: dict[int, float] = {}
    for hits in (words, vectors):
        for place, value in zip(_places(hits), worth(hits), strict=True):
            total[place] = total.get(place, 0.0) + value
    return sorted(total, key=lambda place: -total[place])


def _score(ranking: Ranking, question: Question) -> Numbers:
    right = [place in question.answers for place in ranking]
    best = sum(1 / math.log2(i + 2) for i in range(min(10, len(question.answers))))
    gain = sum(hit / math.log2(i + 2) for i, hit in enumerate(right))
    count = len(question.answers)
    return np.array([sum(right[:5]) / count, sum(right) / count, gain / best])


def _with_spread(rows: Numbers) -> dict[str, dict[str, float]]:
    """Return means with the interval that 95 % of 1,000 draws of the questions lie in."""
    rng = np.random.default_rng(0)
    draws = np.stack([rows[rng.integers(0, len(rows), len(rows))].mean(0) for _ in range(1000)])
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return {
        metric: {"mean": float(round(mean, 4)), "low": float(round(a, 4)),
                 "high": float(round(b, 4)), "questions": len(rows)}
        for metric, mean, a, b in zip(METRICS, rows.mean(0), low, high, strict=True)
    }  # fmt: skip


def _judge(name: str, ways: Mapping[str, Any]) -> Iterator[Measure]:
    for metric in METRICS:
        ours = ways[DEFAULT][metric]
        yield Measure(name=f"{name}: {metric}", value=ours["mean"], lowest=ours["low"],
                      highest=ours["high"], target=TARGETS.get((name, metric)), least=True,
                      note=", ".join(f"{way} {ways[way][metric]['mean']:.3f}" for way in ways
                                     if way != DEFAULT))  # fmt: skip
        better = max(ways["words"][metric]["mean"], ways["vectors"][metric]["mean"])
        yield Measure(name=f"{name}: {metric}, hybrid / the better of words and vectors",
                      value=ours["mean"] / better if better else math.nan, target=0.98,
                      least=True)  # fmt: skip


def finding(options: argparse.Namespace) -> Iterator[Part]:
    """Measure what is found in the sets of questions."""
    data = os.environ.get("PGRECALL_EVAL_DATA")
    if data is None:
        console.print("quality: left out, PGRECALL_EVAL_DATA names no directory")
        return
    with stage(options.rows, DIMENSIONS) as ground:
        yield quality(ground.template.clone, Path(data), options.conversations)


def paying(options: argparse.Namespace) -> Iterator[Part]:
    """Measure planted tokens, and what words cost, among many episodes."""
    with stage(options.rows, DIMENSIONS) as ground:
        with ground.template.clone() as base:
            if {"planted", "cost"} & set(options.parts):
                yield planted(base, options.rows, options.tokens)
            if "cost" in options.parts:
                yield cost(base, options.rounds)
            if "writing" in options.parts:
                yield writing(base, options.rounds, embedded=True)
                yield writing(base, options.rounds, embedded=False)
        if "writing" in options.parts:
            with ground.template.clone() as empty:
                yield writing(empty, options.rounds, embedded=True)
                yield writing(empty, options.rounds, embedded=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--tokens", type=int, default=1000, help="how many are planted")
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--conversations", type=int, help="only so many, and no other sets")
    everything = ["quality", "planted", "cost", "writing"]
    parser.add_argument("--parts", nargs="+", choices=everything, default=everything)
    parser.add_argument("--save", action="store_true", help="write the results beside this file")
    options = parser.parse_args()
    options.dimensions = DIMENSIONS
    measures: list[Measure] = []
    if "quality" in options.parts:
        measures += measure_all("retrieval-quality", finding(options), options)
    if {"planted", "cost", "writing"} & set(options.parts):
        measures += measure_all("retrieval-cost", paying(options), options)
    show(measures)
    return 0 if all(measure.met is not False for measure in measures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
