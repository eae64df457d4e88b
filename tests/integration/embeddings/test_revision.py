"""The same name with other weights: told, refused, and made anew by a change of model."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from tests.integration.embeddings.conftest import open_memory, record

from pgrecall.errors import ConfigurationError
from pgrecall.ops.doctor import doctor
from pgrecall.ops.embeddings import Backfill, Switch, backfill, status
from pgrecall.testing import Database, HashEmbedder

Rows = psycopg.Connection[dict[str, Any]]
REVISED = "python:embedders_for_tests:revised"


def vectors_check(database: Database) -> Any:
    checks = doctor(database.admin_dsn, settings=database.settings, embedder_dimensions=None)
    return next(check for check in checks if check.id == "vectors")


def test_newer_weights_are_refused_until_the_vectors_are_made_anew(
    pgrecall_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = Switch(dsn=pgrecall_database.owner_dsn, settings=pgrecall_database.settings)
    monkeypatch.setenv("EMBEDDER_REVISION", "a")
    with open_memory(pgrecall_database, "revised") as memory:
        record(memory, "a red fox")
        assert status(pgrecall_database.dsn).models[0].revision == "a"
        assert vectors_check(pgrecall_database).status == "passed"
        record(memory, "made later", embed="later")

        monkeypatch.setenv("EMBEDDER_REVISION", "bb")
        for attempt in (
            lambda: memory.episodes.recall("a red fox"),
            lambda: record(memory, "a blue fox"),
            lambda: backfill(pgrecall_database.dsn, Backfill(settings=pgrecall_database.settings)),
        ):
            with pytest.raises(ConfigurationError, match="revision a, and.*revision bb") as refused:
                attempt()
            assert f"switch --to {REVISED}" in str(refused.value.hint)
        found = vectors_check(pgrecall_database)
        assert (found.status, "revision bb" in found.evidence) == ("failed", True)
        assert memory.episodes.count() == 2
        # By its words it is found meanwhile.
        assert memory.episodes.recall("red fox", mode="words")

        assert switch.prepare(REVISED, queries=2).beside == "revised:64 at bb"
        assert switch.change_over().serving == "revised:64 at bb"
        hit = memory.episodes.recall("a red fox", mode="vector", limit=1)[0]
        assert hit.similarity == pytest.approx(1, abs=0.2)
        assert record(memory, "a blue fox").embedded
        # What nobody can make any more is left to words after a change back.
        assert switch.back().serving == "revised:64 at a"
        assert switch.change_over().serving == "revised:64 at bb"
        switch.finish()
    (model,) = status(pgrecall_database.dsn).models
    assert (model.revision, model.waiting) == ("bb", 0)
    assert vectors_check(pgrecall_database).status == "passed"


def test_a_revision_that_was_not_known_is_told_later(
    pgrecall_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMBEDDER_REVISION", raising=False)
    with open_memory(pgrecall_database, "revised") as memory:
        record(memory, "one")
    assert status(pgrecall_database.dsn).models[0].revision is None
    monkeypatch.setenv("EMBEDDER_REVISION", "")
    with open_memory(pgrecall_database, None) as memory:
        record(memory, "two", embed="later")
    assert (
        backfill(pgrecall_database.dsn, Backfill(settings=pgrecall_database.settings)).stored == 1
    )
    assert status(pgrecall_database.dsn).models[0].revision == ""


def test_vectors_that_callers_brought_of_another_model_are_found(
    pgrecall_database: Database, owner: Rows
) -> None:
    with open_memory(pgrecall_database) as memory:
        record(memory, "as it should be")
        assert vectors_check(pgrecall_database).status == "passed"
        wrong = record(memory, "brought", embedding=HashEmbedder(64).embed(["another"])[0])
        found = vectors_check(pgrecall_database)
        assert found.status == "warning"
        assert str(wrong.episode_id) in found.evidence
        # Its remedy, as it stands there.
        owner.execute("UPDATE public.agent_episodes SET embedding = NULL WHERE episode_id = %s",
                      [wrong.episode_id])  # fmt: skip
        backfill(pgrecall_database.dsn, Backfill(settings=pgrecall_database.settings))
        assert vectors_check(pgrecall_database).status == "passed"


def test_it_is_said_why_vectors_were_not_compared(pgrecall_database: Database) -> None:
    found = vectors_check(pgrecall_database)
    assert (found.status, "no name" in found.evidence) == ("not configured", True)
