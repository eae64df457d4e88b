"""``Session`` of the OpenAI Agents SDK on pgrecall: ``pip install 'pgrecall[openai-agents]'``.

A conversation is a session of working memory, and its items are that session's thoughts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import timedelta
from typing import Any, TypeVar, cast
from uuid import UUID, uuid5

from pgrecall._async.memory import AsyncMemory, AsyncProjectMemory
from pgrecall._sync.memory import Memory, ProjectMemory
from pgrecall.core.checks import MAX_LIMIT, check_ttl
from pgrecall.core.documents import check_text
from pgrecall.core.filters import scope_text
from pgrecall.errors import InvalidInput, MissingExtra, NotFound

try:
    from agents.items import TResponseInputItem
    from agents.memory.session_settings import (
        SessionSettings,
        coerce_session_settings,
        resolve_session_limit,
    )
except ImportError as error:
    raise MissingExtra("pgrecall.integrations.openai_agents", "openai-agents") from error

T = TypeVar("T")

DEFAULT_TTL = timedelta(days=1)
_NAMESPACE = UUID("6f1d0b1e-3f0e-5d0c-9a52-8d9f7c1f4b6a")
_LONGEST_ID = 500
_CONTEXT_KEY = "openai_agents_session_id"


class PgrecallSession:
    """A conversation that is kept in a project of a memory, until its time is up.

    With a ``Memory`` it may be used by several event loops and threads at once, since each call
    runs in a thread; with an ``AsyncMemory`` by the tasks of that memory's loop.

    Attributes:
        session_id: What the conversation is called.
        session_settings: The SDK's settings: how many items are read unless a call says so.
        key: Identifier of the row in ``agent_working_memory``, for calls of ``memory.sessions``.
    """

    def __init__(
        self,
        session_id: str,
        memory: Memory | ProjectMemory | AsyncMemory | AsyncProjectMemory,
        *,
        project_id: str | None = None,
        user_id: str | None = None,
        ttl: timedelta | float = DEFAULT_TTL,
        session_settings: SessionSettings | dict[str, Any] | None = None,
    ) -> None:
        """Name a conversation; nothing is read or written yet.

        Args:
            session_id: Any text. One that is a UUID is the row's identifier; of others it is made,
                the same for the same text in the same project.
            memory: Where it is kept.
            project_id: The project, unless the memory is bound to one.
            user_id: Whom the agent works for, up to 100 characters.
            ttl: How long the conversation is kept after items were last added: a timedelta, or
                seconds.
            session_settings: The SDK's settings, or a dictionary of them.

        Raises:
            InvalidInput: A value cannot be stored, or there is no project, or another than the
                memory is bound to.
        """
        bound = memory.project_id
        if project_id is not None and bound is not None and project_id != bound:
            raise InvalidInput(
                f"project_id is {project_id!r}, but this memory is bound to project {bound!r}",
                hint="leave project_id out, or give the memory that is not bound",
            )
        project = scope_text(project_id if bound is None else bound, "project_id")
        if project is None:
            raise InvalidInput(
                "project_id is missing", hint='give project_id=, or memory.project("apollo")'
            )
        self.session_id = check_text(session_id, name="session_id", max_length=_LONGEST_ID)
        self.session_settings: SessionSettings | None = (
            SessionSettings()
            if session_settings is None
            else coerce_session_settings(session_settings)
        )
        self.key = _key(project, self.session_id)
        self._sessions = memory.sessions
        self._blocking = isinstance(memory, ProjectMemory)
        self._project_id = project
        self._user_id = scope_text(user_id, "user_id", 100)
        self._ttl = check_ttl(ttl, "ttl") or DEFAULT_TTL

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Return the items, oldest first; none if the conversation has ended.

        Args:
            limit: Only so many, the last ones; what ``session_settings`` says unless given.
        """
        limit = resolve_session_limit(limit, self.session_settings)
        if limit is not None and limit <= 0:
            return []
        most = None if limit is None or limit > MAX_LIMIT else limit
        try:
            found: Sequence[Any] = await self._ask("thoughts", limit=most)
        except NotFound:
            return []
        return list(found if limit is None else found[-limit:])

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add items at the end, all or none; the conversation lives its whole time again.

        Raises:
            Conflict: The session is of another project.
            InvalidInput: An item is no JSON object that can be stored.
        """
        if items:
            await _settled(
                self._ask(
                    "resume",
                    user_id=self._user_id,
                    context={_CONTEXT_KEY: self.session_id},
                    thoughts=items,
                    ttl=self._ttl,
                )
            )

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove the last item and return it; None if there is none."""
        try:
            return cast("TResponseInputItem | None", await _settled(self._ask("pop_thought")))
        except NotFound:
            return None

    async def clear_session(self) -> None:
        """Remove all items."""
        try:
            await _settled(self._ask("clear_thoughts"))
        except NotFound:
            return

    async def _ask(self, name: str, **values: Any) -> Any:
        call = getattr(self._sessions, name)
        values["project_id"] = self._project_id
        if self._blocking:
            return await asyncio.to_thread(call, self.key, **values)
        return await call(self.key, **values)


def _key(project_id: str, session_id: str) -> UUID:
    try:
        key = UUID(session_id)
    except ValueError:
        key = None
    # Other spellings of a UUID are texts like any: two of them are two conversations.
    if key is not None and str(key) == session_id:
        return key
    return uuid5(_NAMESPACE, f"{project_id}\0{session_id}")


async def _settled(change: Awaitable[T]) -> T:
    """Wait until a change is made or refused, even if the caller is cancelled meanwhile.

    A thread cannot be cancelled: whoever goes on would not see yet what it is about to write.
    """
    task = asyncio.ensure_future(change)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        # Read, so that a failure is not reported as one that nobody asked for.
        task.exception()
        raise cancelled
    return task.result()
