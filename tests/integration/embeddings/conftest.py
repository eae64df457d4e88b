"""What the tests of late and changing embeddings share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from pgrecall import Memory
from pgrecall.testing import Database

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let embedders of the tests be found by name, here and in processes that are started."""
    monkeypatch.syspath_prepend(str(HERE))
    path = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{path}" if path else str(HERE))
    monkeypatch.delenv("PGRECALL_EMBEDDER", raising=False)


def open_memory(database: Database, name: str | None = "hash_64", **options: Any) -> Memory:
    """Open the memory with one of the tests' embedders, or with the database's own."""
    embedder = name and f"python:embedders_for_tests:{name}"
    return Memory.open(database.dsn, embedder=embedder, settings=database.settings, **options)


def record(memory: Memory, text: str, **options: Any) -> Any:
    """Record an episode that says a text."""
    return memory.episodes.record(
        project_id="p", agent_version="1", perception={"text": text}, reasoning={}, action={},
        **options,
    )  # fmt: skip


@pytest.fixture
def owner(pgrecall_database: Database) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """A connection of the owner, in autocommit."""
    with psycopg.connect(
        pgrecall_database.owner_dsn, autocommit=True, row_factory=dict_row
    ) as connection:
        yield connection
