"""A plugin of pytest: puts our sessions in the places of the SDK's own, in the SDK's own tests."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from uuid import uuid4, uuid5

import agents
import pytest
import sqlalchemy.ext.asyncio
from agents.extensions.memory import encrypt_session, sqlalchemy_session

from pgrecall import Memory
from pgrecall.integrations.openai_agents import _NAMESPACE, PgrecallSession

_opened: list[Memory] = []
_used_in: set[str] = set()


def _memory() -> Memory:
    _used_in.add(os.environ["PYTEST_CURRENT_TEST"].rsplit(" ", 1)[0])
    if not _opened:
        _opened.append(Memory.open(os.environ["PGRECALL_SUITE_DSN"], embedder="none"))
    return _opened[0]


def _project_of(place: str) -> str:
    """Return a project for a file, the same for the same one; another for each memory."""
    in_memory = not place or ":memory:" in place
    return str(uuid4() if in_memory else uuid5(_NAMESPACE, place))


class Engine:
    """Says where sessions are kept, as an engine of SQLAlchemy does."""

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self.project_id = _project_of(url)

    async def dispose(self) -> None:
        """There is nothing to let go of."""


class InPlaceOfSqlite(PgrecallSession):
    """``SQLiteSession``: each file is a project."""

    def __init__(
        self,
        session_id: str,
        db_path: str | Path = ":memory:",
        *_: str,
        session_settings: Any = None,
    ) -> None:
        project_id = _project_of(str(db_path))
        super().__init__(
            session_id, _memory(), project_id=project_id, session_settings=session_settings
        )

    def close(self) -> None:
        """There is nothing to let go of."""


class InPlaceOfSqlalchemy(PgrecallSession):
    """``SQLAlchemySession``: each engine is a project."""

    def __init__(
        self, session_id: str, *, engine: Engine, session_settings: Any = None, **_: Any
    ) -> None:
        self.engine = engine
        super().__init__(
            session_id, _memory(), project_id=engine.project_id, session_settings=session_settings
        )

    @classmethod
    def from_url(cls, session_id: str, *, url: str, **options: Any) -> Self:
        """Open an engine of its own."""
        return cls(session_id, engine=Engine(url), **options)


# Before the tests are imported, which take the names from these modules. The SDK itself has taken
# its own already, so that it treats ours as it would anywhere.
assert vars(encrypt_session)["SQLiteSession"] is agents.SQLiteSession
agents.SQLiteSession = InPlaceOfSqlite  # type: ignore[misc, assignment]
sqlalchemy_session.SQLAlchemySession = InPlaceOfSqlalchemy  # type: ignore[misc, assignment]
sqlalchemy.ext.asyncio.create_async_engine = Engine  # type: ignore[assignment]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the page lists; a name that is no test is an error."""
    left_out = set(json.loads(os.environ["PGRECALL_SUITE_LEFT_OUT"]))

    def name(item: pytest.Item) -> str:
        return item.nodeid.split("[")[0]

    if unknown := left_out - {name(item) for item in items}:
        raise pytest.UsageError(f"listed as left out, but no test: {sorted(unknown)}")
    config.hook.pytest_deselected(items=[item for item in items if name(item) in left_out])
    items[:] = [item for item in items if name(item) not in left_out]


@pytest.fixture(autouse=True, scope="session")
def _closed() -> Iterator[None]:
    """Close the memory at the end, and say in how many tests it was used."""
    yield
    for memory in _opened:
        memory.close()
    Path(os.environ["PGRECALL_SUITE_USES"]).write_text(str(len(_used_in)))
