"""Rare tokens among many episodes: whether they are found, and what words cost there.

Texts are drawn from a made-up language whose words are as frequent as those of real ones (Zipf).
Their vectors are the builtin embedder's for queries, and for episodes random ones around topics:
to embed 100,000 texts would take half an hour and tell nothing about words.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import Vector
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from benchmarks.comparing import LIMIT, Measure, Part, figures, middle, tail, take_turns, timed
from pgrecall import Memory
from pgrecall.testing import Database

VOCABULARY = 60_000
LENGTH = 90
MISSPELT = 0.1
_SYLLABLES = [
    "ka",
    "lo",
    "mi",
    "ren",
    "ta",
    "vo",
    "shi",
    "pel",
    "dor",
    "nu",
    "qua",
    "bri",
    "sto",
    "fen",
    "gu",
    "zar",
]
_COLUMNS = {
    "episode_id": "uuid", "project_id": "varchar", "timestamp": "timestamptz",
    "perception": "jsonb", "reasoning": "jsonb", "action": "jsonb", "embedding": "vector",
    "agent_version": "varchar", "sprint_id": "varchar",
}  # fmt: skip
_COPY = f"COPY agent_episodes ({', '.join(_COLUMNS)}) FROM STDIN (FORMAT BINARY)"
_INDEX = (
    "CREATE INDEX idx_episodes_embedding ON agent_episodes USING hnsw "
    "(embedding vector_cosine_ops) WITH (m = 16, ef_construction = 64)"
)


@dataclass(frozen=True)
class Language:
    """A made-up language: the rank of a word says how rare it is."""

    words: Sequence[str]
    chances: NDArray[np.float64]

    def texts(self, count: int, length: int, rng: np.random.Generator) -> list[str]:
        """Return texts of so many words."""
        drawn = rng.choice(len(self.words), (count, length), p=self.chances)
        return [" ".join(self.words[i] for i in row) for row in drawn]


def language() -> Language:
    """Return the language, always the same."""
    chance = random.Random(1)
    words = [
        "".join(chance.choices(_SYLLABLES, k=2 + i % 3)) + (str(i) if i % 7 == 0 else "")
        for i in range(VOCABULARY)
    ]
    weights = 1 / np.arange(1, VOCABULARY + 1) ** 1.05
    return Language(words, weights / weights.sum())


def tokens(count: int, chance: random.Random) -> list[str]:
    """Return identifiers of several kinds, as they stand in logs, orders and code."""

    def letters(n: int) -> str:
        return "".join(chance.choices(string.ascii_lowercase, k=n))

    kinds = (
        lambda: f"{letters(3).upper()}-{chance.randrange(1000, 99_999)}",
        lambda: f"{chance.getrandbits(40):010x}",
        lambda: f"{letters(5)}{letters(6).capitalize()}{letters(4).capitalize()}",
        lambda: f"src/{letters(6)}/{letters(8)}.py",
        lambda: f"{chance.randrange(10**9, 10**10)}",
        lambda: f"{letters(4)}_{letters(6)}_{chance.randrange(100)}",
    )
    found: dict[str, None] = {}
    while len(found) < count:
        found[kinds[len(found) % len(kinds)]()] = None
    return list(found)


def misspell(token: str, chance: random.Random) -> str:
    """Return a token with one edit: a character left out, doubled, replaced, or two swapped."""
    place = chance.randrange(1, len(token) - 1)
    other = chance.choice(string.ascii_lowercase + string.digits)
    wrong = chance.choice((
        token[:place] + token[place + 1 :],
        token[:place] + other + token[place:],
        token[:place] + other + token[place + 1 :],
        token[:place] + token[place + 1] + token[place] + token[place + 2 :],
    ))  # fmt: skip
    return wrong if wrong != token else misspell(token, chance)


def planted(base: Database, rows: int, count: int) -> Part:
    """Plant tokens, one in an episode, and look for each by a sentence that holds it."""
    rng, chance = np.random.default_rng(7), random.Random(7)
    speech = language()
    texts = speech.texts(rows, LENGTH, rng)
    hidden = tokens(count, chance)
    places = rng.choice(rows, count, replace=False)
    for token, place in zip(hidden, places, strict=True):
        said = texts[place].split()
        said.insert(int(rng.integers(len(said))), token)
        texts[place] = " ".join(said)
    ids = _load(base, texts, rng)
    # Common words, as in "what became of ...".
    around = Language(speech.words[:300], speech.chances[:300] / speech.chances[:300].sum())
    sentences = around.texts(count, 3, rng)
    right: dict[bool, list[bool]] = {True: [], False: []}
    with _client(base) as memory:
        for i, (token, place) in enumerate(zip(hidden, places, strict=True)):
            wrong = i % round(1 / MISSPELT) == 0
            asked = f"{sentences[i]} {misspell(token, chance) if wrong else token}"
            hits = memory.episodes.recall(asked, limit=LIMIT, outcome_weight=0.0)
            right[wrong].append(bool(hits) and hits[0].episode.episode_id == ids[place])
    share = {wrong: sum(found) / max(len(found), 1) for wrong, found in right.items()}
    return Part(
        name="planted",
        measures=[
            Measure(name="planted tokens found first", value=share[False], target=0.99, least=True,
                    note=f"{len(right[False])} among {rows:,} episodes"),
            Measure(name="planted tokens found first, misspelt by one edit", value=share[True],
                    target=0.90, least=True, note=f"{len(right[True])} among {rows:,} episodes"),
        ],
        facts={"exact": share[False], "misspelt": share[True]},
    )  # fmt: skip


def cost(base: Database, rounds: int) -> Part:
    """Compare hybrid with vector recall: whole, with the query's embedding, and in the database."""
    rng = np.random.default_rng(8)
    queries = language().texts(rounds, 6, rng)
    measures, facts = [], {}
    with _client(base) as one, _client(base) as other:
        vectors = [one.embed(query)[0] for query in queries]

        def recall(memory: Memory, mode: Any, embedded: bool, i: int) -> object:
            given = vectors[i % rounds] if embedded else None
            text = queries[i % rounds] if mode != "vector" or not embedded else None
            return memory.episodes.recall(
                text, embedding=given, mode=mode, limit=LIMIT, outcome_weight=0.0
            )

        for name, embedded, target in (
            ("hybrid / vector recall", False, 2.5),
            ("hybrid / vector recall, the vector given", True, None),
        ):
            calls = {
                mode: timed(partial(recall, memory, mode, embedded))
                for mode, memory in (("hybrid", one), ("vector", other))
            }
            taken = take_turns(calls, rounds, warm_up=min(rounds, 100))
            measures += [
                middle(f"{name}: p50", taken["hybrid"], taken["vector"], target),
                tail(f"{name}: p95", taken["hybrid"], taken["vector"]),
            ]
            facts[name] = {side: figures(times) for side, times in taken.items()}
        words = take_turns(
            {"words": timed(partial(recall, one, "words", False))}, rounds, warm_up=20
        )
        facts["words alone"] = {"words": figures(words["words"])}
    return Part(name="cost", measures=measures, facts=facts)


def writing(base: Database, rounds: int, *, embedded: bool) -> Part:
    """Compare ``record`` with and without the trigger that keeps words, block by block.

    Its vector is made of the text, or given.
    """
    rng = np.random.default_rng(9)
    texts = language().texts(4 * rounds, LENGTH, rng)
    times: dict[str, list[float]] = {"with": [], "without": []}
    with (
        _client(base) as memory,
        psycopg.connect(base.owner_dsn, autocommit=True) as owner,
    ):
        (there,) = owner.execute("SELECT count(*) FROM agent_episodes").fetchone() or (0,)

        def record(i: int) -> object:
            vector = None if embedded else rng.normal(size=384)
            return memory.episodes.record(
                project_id=f"p{i % 10}", agent_version="1", reasoning={}, action={"done": i},
                perception={"text": texts[i % len(texts)]}, embedding=vector,
            )  # fmt: skip

        block = max(rounds // 10, 5)
        for i in range(block):
            record(i)
        for number in range(20):
            which = ("with", "without")[number % 2]
            done = "ENABLE" if which == "with" else "DISABLE"
            owner.execute(f"ALTER TABLE agent_episodes {done} TRIGGER pgrecall_words".encode())
            times[which] += [timed(record)(i) for i in range(number * block, (number + 1) * block)]
        owner.execute("ALTER TABLE agent_episodes ENABLE TRIGGER pgrecall_words")
        # What was written meanwhile has no words; the next part begins with all of them.
        owner.execute("CALL pgrecall.text_all()")
    made = "" if embedded else ", the vector given"
    name = f"record with words / without{made}, {there:,} episodes"
    return Part(
        name=f"writing_{there}_{'embedded' if embedded else 'given'}",
        measures=[
            middle(f"{name}: p50", times["with"], times["without"], 1.25),
            tail(f"{name}: p95", times["with"], times["without"]),
        ],
        facts={which: figures(taken) for which, taken in times.items()},
    )


def _client(base: Database) -> Memory:
    return Memory.open(base.dsn, embedder="builtin", settings=base.settings)


def _load(base: Database, texts: Sequence[str], rng: np.random.Generator) -> list[UUID]:
    """Store texts as episodes of about 1 KB, in a hundred projects, and build the index."""
    ids = [UUID(bytes=rng.bytes(16), version=4) for _ in texts]
    topics = rng.normal(size=(200, 384))
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    with psycopg.connect(base.owner_dsn, autocommit=True) as owner:
        register_vector(owner)
        owner.execute("DROP INDEX IF EXISTS idx_episodes_embedding")
        with owner.cursor().copy(_COPY.encode()) as copy:
            copy.set_types(list(_COLUMNS.values()))
            for i, text in enumerate(texts):
                near = topics[i % 200] + rng.normal(size=384)
                vector = Vector((near / np.linalg.norm(near)).astype(np.float32))
                copy.write_row((ids[i], f"p{i % 100}", begun + timedelta(minutes=i),
                                Jsonb({"text": text}), Jsonb({"decision": "go"}),
                                Jsonb({"done": True}), vector, "1", f"s{i // 100}"))  # fmt: skip
        owner.execute("SELECT pgrecall.fold_words()")
        owner.execute("SET maintenance_work_mem = '1GB'")
        owner.execute(_INDEX)
        owner.execute("VACUUM (ANALYZE) agent_episodes, pgrecall.texts, pgrecall.episode_codes")
    return ids
