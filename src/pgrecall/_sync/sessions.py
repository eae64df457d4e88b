# Generated from pgrecall/_async/sessions.py by tools/unasync.py. Do not edit.
"""Working memory: what an agent holds in mind during a session, until it expires."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row

from pgrecall._sync.thoughts import ThoughtStore
from pgrecall.core.checks import check_limit, check_ttl, check_uuid
from pgrecall.core.documents import check_text
from pgrecall.core.filters import project_filter, recall_filter, scope_text, session_filters
from pgrecall.core.pages import to_page
from pgrecall.errors import Conflict, NotFound
from pgrecall.models import Json, Page, RecalledThought, Session
from pgrecall.sql import statement

DEFAULT_TTL = timedelta(hours=1)


class SessionStore(ThoughtStore):
    """Working sessions of agents (table ``agent_working_memory``).

    A session is live until it is closed or its time is up; only a live one can be changed.
    """

    def open(
        self,
        *,
        project_id: str | None = None,
        user_id: str | None = None,
        goal: str | None = None,
        context: Json | None = None,
        ttl: timedelta | float = DEFAULT_TTL,
        session_id: UUID | None = None,
        connection: Connection[Any] | None = None,
    ) -> Session:
        """Begin a session and return it.

        Args:
            project_id: The project it works on, up to 50 characters.
            user_id: Whom it works for, up to 100 characters.
            goal: What it is to reach.
            context: What the agent holds in mind at the start.
            ttl: How long it lives unless extended: a timedelta, or seconds.
            session_id: Its identifier, if it has one already.
            connection: A connection of yours, with which the write commits or rolls back.

        Raises:
            InvalidInput: A value cannot be stored.
        """
        with self._scope.measure("open_session", project_id, connection) as measured:
            values = {
                "session_id": None if session_id is None else check_uuid(session_id, "session_id"),
                **self._begun(project_id, user_id, goal, context, ttl),
            }
            rows = self._database.fetch(
                statement("sessions", "open"),
                values,
                class_row(Session),
                connection=connection,
                writing=True,
            )
            measured.results = len(rows)
        return rows[0]

    def resume(
        self,
        session_id: UUID | str,
        *,
        project_id: str | None = None,
        user_id: str | None = None,
        goal: str | None = None,
        context: Json | None = None,
        thoughts: Iterable[Json] = (),
        ttl: timedelta | float = DEFAULT_TTL,
        connection: Connection[Any] | None = None,
    ) -> Session:
        """Go on with a session, or begin it under this identifier if it is new or has ended.

        A live one lives for ``ttl`` from now on; thoughts are added at its end, keys merged into
        its context, and its goal replaced if another is given. One that has ended begins anew, with
        nothing of what was in it. Of two who resume at once, neither's thoughts are lost.

        Args:
            session_id: Which.
            project_id: The project it works on, up to 50 characters.
            user_id: Whom it works for, up to 100 characters; of a live one that says so, it stays.
            goal: What it is to reach.
            context: What the agent holds in mind.
            thoughts: What to add, oldest first.
            ttl: How long it lives unless extended: a timedelta, or seconds.
            connection: A connection of yours, with which the write commits or rolls back.

        Raises:
            Conflict: The session is of another project; it is left as it is.
            InvalidInput: A value cannot be stored.
        """
        with self._scope.measure("resume_session", project_id, connection) as measured:
            values = {
                "session_id": check_uuid(session_id, "session_id"),
                **self._begun(project_id, user_id, goal, context, ttl),
                "thoughts": self._documents(thoughts),
            }
            rows = self._database.fetch(
                statement("sessions", "resume"),
                values,
                class_row(Session),
                connection=connection,
                writing=True,
            )
            if not rows:
                raise Conflict(
                    f"the session {values['session_id']} is of another project than "
                    f"{values['project_id']!r}",
                    hint="take another session_id",
                )
            measured.results = len(rows)
        return rows[0]

    def get(
        self,
        session_id: UUID | str,
        *,
        project_id: str | None = None,
        connection: Connection[Any] | None = None,
    ) -> Session:
        """Return one session, live or not.

        Raises:
            NotFound: No such session (in that project).
        """
        with self._scope.measure("get_session", project_id, connection) as measured:
            return self._one("get", session_id, {}, project_id, connection, measured)

    def active(
        self,
        *,
        project_id: str | None = None,
        user_id: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
        connection: Connection[Any] | None = None,
    ) -> Page[Session]:
        """Return the live sessions, the last updated first, a page at a time."""
        return self.list(
            project_id=project_id,
            user_id=user_id,
            active=True,
            limit=limit,
            cursor=cursor,
            connection=connection,
        )

    def list(
        self,
        *,
        project_id: str | None = None,
        user_id: str | None = None,
        active: bool | None = None,
        limit: int = 50,
        cursor: str | None = None,
        connection: Connection[Any] | None = None,
    ) -> Page[Session]:
        """Return sessions, the last updated first, a page at a time.

        Args:
            project_id: Only of this project.
            user_id: Only for this user.
            active: Only live ones (True), or only ended ones (False).
            limit: Sessions a page, 1 to 10,000.
            cursor: ``next_cursor`` of the page before.
            connection: A connection of yours.

        Raises:
            InvalidInput: A filter cannot be meant.
        """
        with self._scope.measure("list_sessions", project_id, connection) as measured:
            project_id = self._scope.project(project_id)
            filters, parameters = session_filters(
                project_id=project_id, user_id=user_id, active=active, cursor=cursor
            )
            rows = self._database.fetch(
                statement("sessions", "list", filters),
                {**parameters, "limit": check_limit(limit) + 1},
                class_row(Session),
                connection=connection,
            )
            page = to_page(rows, limit, lambda row: (row.last_updated, row.session_id))
            measured.results = len(page)
        return page

    def recall(
        self,
        query: str | Json,
        *,
        project_id: str | None = None,
        user_id: str | None = None,
        active: bool | None = None,
        limit: int = 10,
        connection: Connection[Any] | None = None,
    ) -> Sequence[RecalledThought]:
        """Return the thoughts of sessions that fit the words of a query best, best first.

        Args:
            query: What to look for, in words or as a document.
            project_id: Only in sessions of this project.
            user_id: Only in sessions for this user.
            active: Only in live ones (True), or only in ended ones (False).
            limit: Most thoughts to return, 1 to 10,000.
            connection: A connection of yours.

        Raises:
            InvalidInput: A filter cannot be meant, or there are no words.
        """
        with self._scope.measure("recall_thoughts", project_id, connection) as measured:
            _, filters = session_filters(
                project_id=self._scope.project(project_id), user_id=user_id, active=active
            )
            asked = self._scope.query(query, None, "words", connection, measured)
            rows = self._database.fetch(
                statement("sessions", "recall"),
                {
                    "text": asked["text"],
                    "limit": check_limit(limit),
                    "filter": recall_filter(filters),
                },
                class_row(RecalledThought),
                connection=connection,
            )
            measured.results = len(rows)
        return rows

    def update_context(
        self,
        session_id: UUID | str,
        context: Json,
        *,
        project_id: str | None = None,
        connection: Connection[Any] | None = None,
    ) -> Session:
        """Merge keys into the context: given ones replace those of the same name, at the top level.

        Concurrent updates of different keys are all kept.

        Raises:
            NotFound: No such live session (in that project).
            InvalidInput: The context is no JSON object that can be stored.
        """
        with self._scope.measure("update_session", project_id, connection) as measured:
            values = {"context": self._document(context, "context")}
            return self._one("update", session_id, values, project_id, connection, measured)

    def set_goal(
        self,
        session_id: UUID | str,
        goal: str,
        *,
        project_id: str | None = None,
        connection: Connection[Any] | None = None,
    ) -> Session:
        """Replace the session's goal.

        Raises:
            NotFound: No such live session (in that project).
        """
        with self._scope.measure("update_session", project_id, connection) as measured:
            values = {"goal": self._goal(goal)}
            return self._one("update", session_id, values, project_id, connection, measured)

    def relate_episode(
        self,
        session_id: UUID | str,
        episode_id: UUID | str,
        *,
        project_id: str | None = None,
        connection: Connection[Any] | None = None,
    ) -> Session:
        """Note an episode as belonging to the session, once.

        Raises:
            NotFound: No such live session (in that project).
        """
        with self._scope.measure("update_session", project_id, connection) as measured:
            values = {"episode_id": check_uuid(episode_id, "episode_id")}
            return self._one("update", session_id, values, project_id, connection, measured)

    def extend(
        self,
        session_id: UUID | str,
        ttl: timedelta | float = DEFAULT_TTL,
        *,
        project_id: str | None = None,
        connection: Connection[Any] | None = None,
    ) -> Session:
        """Let the session live for ``ttl`` from now on.

        Raises:
            NotFound: No such live session (in that project).
        """
        with self._scope.measure("update_session", project_id, connection) as measured:
            values = {"ttl": check_ttl(ttl, "ttl")}
            return self._one("update", session_id, values, project_id, connection, measured)

    def close(
        self,
        session_id: UUID | str,
        *,
        project_id: str | None = None,
        connection: Connection[Any] | None = None,
    ) -> Session:
        """End a session; closing one that has ended changes nothing.

        Raises:
            NotFound: No such session (in that project).
        """
        with self._scope.measure("close_session", project_id, connection) as measured:
            return self._one("close", session_id, {}, project_id, connection, measured)

    def expire(self, *, connection: Connection[Any] | None = None) -> int:
        """End every session whose time is up, in all projects or the one bound; returns how many.

        The database function ``cleanup_expired_working_memory()`` does the same for all projects.
        """
        with self._scope.measure("expire_sessions", None, connection) as measured:
            filters, parameters = project_filter(self._scope.project_id)
            measured.results = self._database.execute(
                statement("sessions", "expire", filters), parameters, connection=connection
            )
        return measured.results

    def delete(
        self,
        session_id: UUID | str,
        *,
        project_id: str | None = None,
        connection: Connection[Any] | None = None,
    ) -> None:
        """Delete a session.

        Raises:
            NotFound: No such session (in that project).
        """
        with self._scope.measure("delete_session", project_id, connection) as measured:
            filters, parameters = project_filter(self._scope.project(project_id))
            wanted = check_uuid(session_id, "session_id")
            measured.results = self._database.execute(
                statement("sessions", "delete", filters),
                {**parameters, "session_id": wanted},
                connection=connection,
            )
            if not measured.results:
                raise NotFound(f"there is no session {wanted}")

    def _begun(
        self,
        project_id: str | None,
        user_id: str | None,
        goal: str | None,
        context: Json | None,
        ttl: timedelta | float,
    ) -> dict[str, Any]:
        """Return what a session begins with, checked."""
        return {
            "project_id": self._scope.needed_project(project_id),
            "user_id": scope_text(user_id, "user_id", 100),
            "goal": self._goal(goal),
            "context": self._document(context, "context"),
            "ttl": check_ttl(ttl, "ttl") or DEFAULT_TTL,
        }

    def _goal(self, goal: str | None) -> str | None:
        if goal is None:
            return None
        max_bytes = self._database.settings.max_document_bytes
        return check_text(goal, name="goal", max_length=max_bytes)
