"""One adapter for each interface: it does an operation and gives back its result, by names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias
from uuid import UUID

import httpx
import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from tests.integration.congruence.operations import Operation

from pgrecall import AsyncMemory
from pgrecall.errors import PgrecallError

Rows: TypeAlias = list[dict[str, Any]]

STATES = ("22023", "P0002", "23505", "23001")
"""What functions of the database refuse with, always with a hint."""

NOBODY = UUID("00000000-0000-4000-8000-000000000000")


class Lacks(Exception):
    """The interface has no such operation."""


class Refused(Exception):
    """The operation was refused, as it should be."""


class Adapter(Protocol):
    """Does operations through an interface.

    ``do`` returns rows: an identifier under ``id`` and values that must be the same everywhere.
    """

    async def do(self, operation: Operation, ids: Mapping[str, UUID]) -> Rows: ...


def points(values: Mapping[str, Any], ids: Mapping[str, UUID]) -> dict[str, Any]:
    """Return values with the identifiers of the names in them."""
    found = dict(values)
    for name in ("episode", "strategy", "session"):
        if found.get(name) is not None:
            found[name] = ids.get(found[name], NOBODY)
    for name in ("supporting", "contradicting"):
        if name in found:
            found[name] = [ids.get(one, NOBODY) for one in found[name]]
    return found


class PythonAdapter:
    """The client."""

    def __init__(self, memory: AsyncMemory) -> None:
        self._memory = memory

    async def do(self, operation: Operation, ids: Mapping[str, UUID]) -> Rows:
        values = points(operation.values, ids)
        try:
            found: Rows = await getattr(self, operation.kind)(**values)
        except PgrecallError as error:
            raise Refused(str(error)) from error
        return found

    async def record(self, **values: Any) -> Rows:
        return [{"id": (await self._memory.episodes.record(**values)).episode_id}]

    async def record_outcome(self, episode: UUID, **values: Any) -> Rows:
        stored = await self._memory.episodes.record_outcome(episode, **values)
        return [{"id": stored.episode_id, "quality": stored.outcome_quality}]

    async def recall(self, query: Any, **values: Any) -> Rows:
        return [
            {"id": h.episode.episode_id, "similarity": h.similarity, "score": h.score}
            for h in await self._memory.episodes.recall(query, **values)
        ]

    async def list(self, **values: Any) -> Rows:
        return [{"id": one.episode_id} for one in await self._memory.episodes.list(**values)]

    async def add_strategy(
        self, description: str, content: Any, supporting: Any, contradicting: Any, **values: Any
    ) -> Rows:
        known = await self._memory.knowledge.add(
            "strategy", description, content, supporting_episodes=supporting,
            contradicting_episodes=contradicting, created_by="test", **values,
        )  # fmt: skip
        return [{"id": known.knowledge_id}]

    async def apply_strategy(self, strategy: UUID, success: bool, episode: Any) -> Any:
        known = await self._memory.knowledge.record_application(
            strategy, success=success, episode_id=episode
        )
        return [{"id": known.knowledge_id, "rate": known.success_rate}]

    async def recall_strategies(self, query: Any, **values: Any) -> Rows:
        return [
            {"id": h.knowledge.knowledge_id, "similarity": h.similarity, "score": h.score}
            for h in await self._memory.knowledge.recall(query, **values)
        ]

    async def open_session(self, **values: Any) -> Rows:
        return [{"id": (await self._memory.sessions.open(**values)).session_id}]

    async def update_session(self, session: UUID, **change: Any) -> Rows:
        ((name, value),) = change.items()
        calls: dict[str, Any] = {
            "context": self._memory.sessions.update_context,
            "thought": self._memory.sessions.append_thought,
            "goal": self._memory.sessions.set_goal,
            "episode": self._memory.sessions.relate_episode,
        }
        return [{"id": (await calls[name](session, value)).session_id}]

    async def close_session(self, session: UUID) -> Rows:
        return [{"id": (await self._memory.sessions.close(session)).session_id}]

    async def delete_episode(self, episode: UUID) -> Rows:
        return [{"count": await self._memory.episodes.delete(episode)}]

    async def stats(self, project_id: str | None) -> Rows:
        totals = await self._memory.metrics.totals(project_id=project_id)
        return [{"episodes": totals.episodes, "quality": totals.mean_quality}]


class SqlAdapter:
    """Nothing but functions of the database."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def do(self, operation: Operation, ids: Mapping[str, UUID]) -> Rows:
        function, arguments = self._call(operation.kind, points(operation.values, ids))
        given = {f"p_{name}": value for name, value in arguments.items() if value is not None}
        written = ", ".join(
            f"{name} => %({name})s{'::vector' if name == 'p_embedding' else ''}" for name in given
        )
        parameters = {
            name: Jsonb(value) if isinstance(value, dict)
            else str(value) if name == "p_embedding" else value
            for name, value in given.items()
        }  # fmt: skip
        try:
            async with self._connection.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(f"SELECT * FROM pgrecall.{function}({written})", parameters)
                rows = await cursor.fetchall()
        except psycopg.Error as error:
            if not error.diag.message_hint or error.sqlstate not in STATES:
                raise
            raise Refused(str(error)) from error
        return [self._result(operation.kind, row) for row in rows]

    @staticmethod
    def _call(kind: str, values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        if "episode" in values:
            values["episode_id"] = values.pop("episode")
        if "strategy" in values:
            values["knowledge_id"] = values.pop("strategy")
        if "session" in values:
            values["session_id"] = values.pop("session")
        if kind == "recall":
            values["filter"] = {"with_outcome": values.pop("with_outcome")}
        if kind == "add_strategy":
            values["supporting_episodes"] = values.pop("supporting")
            values["contradicting_episodes"] = values.pop("contradicting")
            values["created_by"] = "test"
        if kind == "delete_episode":
            return "delete_episodes", {"episode_ids": [values["episode_id"]]}
        named = {"record": "record_episode", "list": "list_episodes", "stats": "memory_stats"}
        return named.get(kind, kind), values

    @staticmethod
    def _result(kind: str, row: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in ("episode_id", "knowledge_id", "session_id"):
            if name in row:
                found["id"] = row[name]
        for name in ("similarity", "score"):
            if name in row:
                found[name] = row[name]
        if kind == "record_outcome":
            found["quality"] = row["outcome_quality"]
        elif kind == "apply_strategy":
            found["rate"] = row["success_rate"]
        elif kind == "delete_episode":
            found["count"] = row["delete_episodes"]
        elif kind == "stats":
            found = {"episodes": row["episodes"], "quality": row["mean_quality"]}
        return found


class RestAdapter:
    """Requests to the HTTP interface. It counts no totals; the client does that instead."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def do(self, operation: Operation, ids: Mapping[str, UUID]) -> Rows:
        kind, values = operation.kind, points(operation.values, ids)
        if kind == "stats":
            raise Lacks(kind)
        given = {name: _plain(value) for name, value in values.items() if value is not None}
        method, path, body = self._request(kind, given)
        options: dict[str, Any] = {}
        if method != "DELETE":
            options["params" if method == "GET" else "json"] = body
        answer = await self._client.request(method, f"/api/v1{path}", **options)
        if answer.status_code in (404, 409, 422):
            assert answer.headers["content-type"] == "application/problem+json"
            raise Refused(answer.text)
        assert answer.is_success, answer.text
        return self._rows(kind, answer.json() if answer.content else {})

    @staticmethod
    def _request(kind: str, given: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
        episode, strategy, session = (
            given.get("episode"), given.get("strategy"), given.get("session"),
        )  # fmt: skip
        if kind == "update_session":
            ((name, value),) = [item for item in given.items() if item[0] != "session"]
            method, path, field = {
                "context": ("PATCH", "context", "context"),
                "thought": ("POST", "thoughts", "thought"),
                "goal": ("PUT", "goal", "goal"),
                "episode": ("POST", "episodes", "episode_id"),
            }[name]
            return method, f"/sessions/{session}/{path}", {field: value}
        if kind == "add_strategy":
            given["supporting_episodes"] = given.pop("supporting")
            given["contradicting_episodes"] = given.pop("contradicting")
            given |= {"knowledge_type": "strategy", "created_by": "test"}
        pointers = ("episode", "strategy", "session")
        rest = {name: value for name, value in given.items() if name not in pointers}
        if kind == "apply_strategy" and episode is not None:
            rest["episode_id"] = episode
        method, path = {
            "record": ("POST", "/episodes"),
            "record_outcome": ("POST", f"/episodes/{episode}/outcome"),
            "recall": ("POST", "/episodes/recall"),
            "list": ("GET", "/episodes"),
            "delete_episode": ("DELETE", f"/episodes/{episode}"),
            "add_strategy": ("POST", "/knowledge"),
            "apply_strategy": ("POST", f"/knowledge/{strategy}/applications"),
            "recall_strategies": ("POST", "/knowledge/recall"),
            "open_session": ("POST", "/sessions"),
            "close_session": ("POST", f"/sessions/{session}/close"),
        }[kind]
        return method, path, rest

    @staticmethod
    def _rows(kind: str, found: dict[str, Any]) -> Rows:
        if kind == "delete_episode":
            return [{"count": 1}]
        if kind == "list":
            return [{"id": UUID(one["episode_id"])} for one in found["items"]]
        if kind in ("recall", "recall_strategies"):
            part, key = {"recall": ("episode", "episode_id")}.get(
                kind, ("knowledge", "knowledge_id")
            )
            return [
                {"id": UUID(hit[part][key]), "similarity": hit["similarity"], "score": hit["score"]}
                for hit in found["hits"]
            ]
        key = next(name for name in ("episode_id", "knowledge_id", "session_id") if name in found)
        row: dict[str, Any] = {"id": UUID(found[key])}
        if kind == "record_outcome":
            row["quality"] = found["outcome_quality"]
        if kind == "apply_strategy":
            row["rate"] = found["success_rate"]
        return [row]


class McpAdapter:
    """The tools of the MCP server, called with the SDK's client.

    A model is not given what lists or deletes, so these are done by the client instead; nor does it
    make identifiers.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    async def do(self, operation: Operation, ids: Mapping[str, UUID]) -> Rows:
        kind, values = operation.kind, points(operation.values, ids)
        if kind in ("list", "delete_episode"):
            raise Lacks(kind)
        renamed = {
            "perception": "situation", "timestamp": "decided_at", "episode": "episode_id",
            "strategy": "knowledge_id", "session": "session_id",
            "supporting": "supporting_episodes", "contradicting": "contradicting_episodes",
        }  # fmt: skip
        arguments = {
            renamed.get(name, name): _plain(value)
            for name, value in values.items() if value is not None
        }  # fmt: skip
        if kind == "record":
            arguments.pop("episode_id", None)
        if kind == "record" and "outcome_quality" in arguments:
            arguments["quality"] = arguments.pop("outcome_quality")
        answer = await self._client.call_tool(f"memory_{kind}", arguments)
        if answer.is_error:
            text = answer.content[0].text
            assert "SELECT" not in text, text
            raise Refused(text)
        found = answer.structured_content
        if kind in ("recall", "recall_strategies"):
            (hits,) = found.values()
            return [
                {
                    "id": UUID(hit.get("episode_id") or hit["knowledge_id"]),
                    "similarity": hit["similarity"],
                    "score": hit["score"],
                }
                for hit in hits
            ]
        if kind == "stats":
            return [{"episodes": found["episodes"], "quality": found["mean_quality"]}]
        key = {"add_strategy": "knowledge_id", "apply_strategy": "knowledge_id"}.get(
            kind, "session_id" if "session" in kind else "episode_id"
        )
        result: dict[str, Any] = {"id": UUID(found[key])}
        if kind == "record_outcome":
            result["quality"] = found["quality"]
        if kind == "apply_strategy":
            result["rate"] = found["success_rate"]
        return [result]


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, UUID):
        return str(value)
    return value.isoformat() if hasattr(value, "isoformat") else value
