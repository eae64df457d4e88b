"""What a session holds in order: its thoughts, added and taken back at the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row, scalar_row

from pgrecall._async.scope import AsyncScope
from pgrecall.core.checks import check_limit, check_uuid
from pgrecall.core.documents import to_json
from pgrecall.core.filters import project_filter
from pgrecall.errors import InvalidInput, NotFound
from pgrecall.models import Json, Session
from pgrecall.sql import statement
from pgrecall.telemetry.operations import Operation

_UNCHANGED: Mapping[str, None] = {
    "context": None,
    "thoughts": None,
    "episode_id": None,
    "goal": None,
    "ttl": None,
}


class AsyncThoughtStore:
    """The thoughts of live sessions (column ``thought_history``), and how one session is found."""

    def __init__(self, scope: AsyncScope) -> None:
        self._scope = scope
        self._database = scope.database

    async def append_thought(
        self,
        session_id: UUID | str,
        thought: Json,
        *,
        project_id: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> Session:
        """Add a thought at the end of the session's history.

        Raises:
            NotFound: No such live session (in that project).
            InvalidInput: The thought is no JSON object that can be stored.
        """
        with self._scope.measure("update_session", project_id, connection) as measured:
            values = {"thoughts": [self._json(thought, "thought")]}
            return await self._one("update", session_id, values, project_id, connection, measured)

    async def append_thoughts(
        self,
        session_id: UUID | str,
        thoughts: Iterable[Json],
        *,
        project_id: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> Session:
        """Add thoughts at the end of the session's history, all or none, oldest first.

        Raises:
            NotFound: No such live session (in that project).
            InvalidInput: One of them is no JSON object that can be stored.
        """
        with self._scope.measure("update_session", project_id, connection) as measured:
            values = {"thoughts": self._documents(thoughts)}
            return await self._one("update", session_id, values, project_id, connection, measured)

    async def thoughts(
        self,
        session_id: UUID | str,
        *,
        limit: int | None = None,
        project_id: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> Sequence[Json]:
        """Return the thoughts of a live session, oldest first.

        Args:
            session_id: Whose.
            limit: Only so many, the last ones, 1 to 10,000; all unless given.
            project_id: Its project.
            connection: A connection of yours.

        Raises:
            NotFound: No such live session (in that project).
        """
        with self._scope.measure("get_session", project_id, connection) as measured:
            values = {"limit": None if limit is None else check_limit(limit)}
            rows = await self._of_live(
                "thoughts", session_id, values, project_id, connection, writing=False
            )
            found: Sequence[Json] = rows[0] or []
            measured.results = 1
        return found

    async def pop_thought(
        self,
        session_id: UUID | str,
        *,
        project_id: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> Json | None:
        """Remove the last thought and return it; None if there is none.

        Of two who pop at once, each gets another one.

        Raises:
            NotFound: No such live session (in that project).
        """
        with self._scope.measure("update_session", project_id, connection) as measured:
            rows = await self._of_live(
                "pop_thought", session_id, {}, project_id, connection, writing=True
            )
            found: Json | None = rows[0]
            measured.results = 1
        return found

    async def clear_thoughts(
        self,
        session_id: UUID | str,
        *,
        project_id: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> Session:
        """Remove all thoughts of a session; the rest of it stays.

        Raises:
            NotFound: No such live session (in that project).
        """
        with self._scope.measure("update_session", project_id, connection) as measured:
            return await self._one(
                "clear_thoughts", session_id, {}, project_id, connection, measured
            )

    async def _of_live(
        self,
        name: str,
        session_id: UUID | str,
        values: Mapping[str, Any],
        project_id: str | None,
        connection: AsyncConnection[Any] | None,
        *,
        writing: bool,
    ) -> Sequence[Any]:
        """Return the one value that a statement yields of a live session."""
        project_id = self._scope.project(project_id)
        filters, parameters = project_filter(project_id)
        wanted = check_uuid(session_id, "session_id")
        rows = await self._database.fetch(
            statement("sessions", name, filters),
            {**parameters, **values, "session_id": wanted},
            scalar_row,
            connection=connection,
            writing=writing,
        )
        if not rows:
            raise _missing(wanted, project_id, live=True)
        return rows

    async def _one(
        self,
        name: str,
        session_id: UUID | str,
        values: Mapping[str, Any],
        project_id: str | None,
        connection: AsyncConnection[Any] | None,
        measured: Operation,
    ) -> Session:
        project_id = self._scope.project(project_id)
        filters, parameters = project_filter(project_id)
        wanted = check_uuid(session_id, "session_id")
        if name == "update":
            parameters |= _UNCHANGED
        rows = await self._database.fetch(
            statement("sessions", name, filters),
            {**parameters, **values, "session_id": wanted},
            class_row(Session),
            connection=connection,
            writing=name != "get",
        )
        measured.results = len(rows)
        if not rows:
            raise _missing(wanted, project_id, live=name in ("update", "clear_thoughts"))
        return rows[0]

    def _documents(self, thoughts: Iterable[Json]) -> list[str]:
        if isinstance(thoughts, Mapping | str):
            raise InvalidInput(
                f"thoughts is a {type(thoughts).__name__}, not a list",
                hint='pass a list of dicts, such as [{"text": ...}]',
            )
        return [self._json(thought, f"thoughts[{i}]") for i, thought in enumerate(thoughts)]

    def _document(self, value: Json | None, name: str) -> str | None:
        return None if value is None else self._json(value, name)

    def _json(self, value: Json, name: str) -> str:
        max_bytes = self._database.settings.max_document_bytes
        return to_json(value, name=name, max_bytes=max_bytes)


def _missing(wanted: UUID, project_id: str | None, *, live: bool) -> NotFound:
    where = f" in project {project_id!r}" if project_id is not None else ""
    if not live:
        return NotFound(f"there is no session {wanted}{where}")
    return NotFound(
        f"there is no live session {wanted}{where}",
        hint="it was closed, its time is up, or it never was; open another",
    )
