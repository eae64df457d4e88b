"""What serving asks of the database beside what the client does: keys, and answers to repeats."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row, scalar_row

from pgrecall._async.memory import AsyncMemory
from pgrecall.core.keys import Token, fits, state
from pgrecall.migrations import HEAD
from pgrecall.serving.access import Access, Scope
from pgrecall.sql import load

KEY_SECONDS = 5.0
"""How long a key that was looked up is trusted: a key that is revoked works so long at most."""

ANSWER_HOURS = 24
"""How long an answer is kept for a request that is sent again."""

_MOST_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as it stands in the database."""

    key_id: str
    digest: bytes
    scopes: Sequence[Scope]
    projects: Sequence[str] | None
    expires_at: datetime | None
    revoked_at: datetime | None

    def is_valid(self, token: Token) -> bool:
        """Whether the token is this key's, and the key neither revoked nor over."""
        good = state(self.revoked_at, self.expires_at, datetime.now(UTC)) == "valid"
        return fits(token, self.digest) and good

    def access(self) -> Access:
        """Return what it allows."""
        projects = None if self.projects is None else frozenset(self.projects)
        return Access(name=self.key_id, scopes=frozenset(self.scopes), projects=projects)


@dataclass(frozen=True, slots=True)
class Standing:
    """An answer that was given before: to what, and which."""

    request: bytes
    status: int
    body: bytes


class Store:
    """The database of a memory that is served.

    Args:
        memory: The memory.
    """

    def __init__(self, memory: AsyncMemory) -> None:
        # The client has no methods for what only this server asks.
        self._database = memory._database  # noqa: SLF001
        self._statements = load("serving")
        self._keys: dict[str, tuple[float, StoredKey | None]] = {}
        self._any_key = (0.0, True)

    async def needs_keys(self) -> bool:
        """Whether there is any key, and so everybody needs one.

        Raises:
            DatabaseError: It cannot be seen now.
        """
        until, found = self._any_key
        if time.monotonic() < until:
            return found
        (found,) = await self._database.fetch(self._statements["any_key"], {}, scalar_row)
        self._any_key = (time.monotonic() + KEY_SECONDS, bool(found))
        return bool(found)

    async def access(self, token: Token) -> Access | None:
        """Return what a token allows; None if it is no valid one.

        Raises:
            DatabaseError: It cannot be seen now.
        """
        until, key = self._keys.get(token.key_id, (0.0, None))
        if time.monotonic() >= until:
            rows = await self._database.fetch(
                self._statements["key"], {"key_id": token.key_id}, class_row(StoredKey)
            )
            key = rows[0] if rows else None
            if len(self._keys) >= _MOST_KEYS:  # somebody tries tokens out
                self._keys.clear()
            self._keys[token.key_id] = (time.monotonic() + KEY_SECONDS, key)
        return key.access() if key is not None and key.is_valid(token) else None

    async def is_ready(self) -> bool:
        """Whether the database answers and its schema is the one that this client needs.

        Raises:
            DatabaseError: It does not answer.
        """
        rows = await self._database.fetch(self._statements["revision"], {}, scalar_row)
        return [*rows] == [HEAD]

    async def foreign_episodes(
        self, episode_ids: Sequence[UUID], projects: frozenset[str]
    ) -> set[UUID]:
        """Return those that are no episodes of these projects."""
        rows = await self._database.fetch(
            self._statements["foreign_episodes"],
            {"episode_ids": [*episode_ids], "project_ids": sorted(projects)},
            scalar_row,
        )
        return set(rows)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection[Any]]:
        """Lend a connection inside a transaction."""
        async with self._database.transaction() as lent:
            yield lent

    async def lock_session(self, session_id: UUID, lent: AsyncConnection[Any]) -> None:
        """Let nobody else change a session until the transaction ends."""
        await self._database.run(
            lent, self._statements["lock_session"], {"session_id": session_id}, scalar_row
        )

    async def claim(
        self, lent: AsyncConnection[Any], caller: str, key: str, request: bytes
    ) -> bool:
        """Take a request's key, whose answer is kept when the transaction commits.

        Returns:
            False if it was taken before.
        """
        values = {"caller": caller, "request_key": key, "request": request}
        return bool(await self._database.run(lent, self._statements["claim"], values, scalar_row))

    async def keep(
        self, lent: AsyncConnection[Any], caller: str, key: str, answer: tuple[int, bytes]
    ) -> None:
        """Keep the answer to a request whose key was claimed."""
        status, body = answer
        await self._database.execute(
            self._statements["keep"],
            {"caller": caller, "request_key": key, "status": status, "body": body},
            connection=lent,
        )

    async def standing(
        self, caller: str, key: str, lent: AsyncConnection[Any] | None = None
    ) -> Standing | None:
        """Return the answer that was given to a request's key; None if it is new."""
        rows = await self._database.fetch(
            self._statements["standing"],
            {"caller": caller, "request_key": key},
            class_row(Standing),
            connection=lent,
        )
        return rows[0] if rows else None

    async def forget(self) -> int:
        """Delete answers that are too old; returns how many."""
        return await self._database.execute(self._statements["forget"], {"hours": ANSWER_HOURS})
