"""A memory that is served: how answers are written, and requests that may be sent again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, cast
from uuid import UUID

import orjson
from fastapi import Depends, Header, Request, Response
from psycopg import AsyncConnection

from pgrecall._async.memory import AsyncMemory
from pgrecall.config import Settings
from pgrecall.serving.access import current
from pgrecall.serving.problems import Problem
from pgrecall.serving.store import Standing, Store

Connection: TypeAlias = AsyncConnection[Any]
Work: TypeAlias = Callable[[Connection | None], Awaitable[Any]]
"""Does what a request asks for, on a connection whose transaction others look at, or on none."""

IdempotencyKey: TypeAlias = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Makes the request repeatable: within a day, the same request with the same "
        "key is done once, and gets the same answer.",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        examples=["8e03978e-40d5-43e8-bc93-6894a57f9324"],
    ),
]

REPLAYED = {"Idempotency-Replayed": "true"}


@dataclass(frozen=True, slots=True)
class Served:
    """What the endpoints of a memory work with. Used from one event loop.

    Attributes:
        memory: The memory.
        store: What they ask of its database beside.
        settings: Limits, and where the memory is.
        dsn: Connection string of the memory, for imports.
    """

    memory: AsyncMemory
    store: Store
    settings: Settings
    dsn: str

    async def once(
        self,
        request: Request,
        key: str | None,
        work: Work,
        *,
        status: int = 200,
        ready: Callable[[], Awaitable[None]] | None = None,
        atomic: bool = False,
    ) -> Response:
        """Do what a request asks for, once for each key of a caller, and answer it.

        With a key, work and answer are written in one transaction: after a crash either both
        stand there or nothing does, and of two at once one waits for the other's answer. What
        fails is not kept, as nothing was written.

        Args:
            request: The request.
            key: Its ``Idempotency-Key``.
            work: Does it; what it returns is the answer.
            status: The answer's status.
            ready: Called before the transaction, to embed texts.
            atomic: Whether the work needs a transaction even without a key.

        Raises:
            Problem: The key was used for another request.
        """
        if key is None and not atomic:
            return answer(await work(None), status)
        caller, asked = current().name, await _asked(request)
        if key is not None and (stood := await self.store.standing(caller, key)) is not None:
            return _again(stood, asked)
        if ready is not None:
            await ready()
        async with self.store.transaction() as lent:
            if key is not None and not await self.store.claim(lent, caller, key, asked):
                stood = await self.store.standing(caller, key, lent)
                return _again(stood, asked)
            body = encoded(await work(lent))
            if key is not None:
                await self.store.keep(lent, caller, key, (status, body))
        return written(body, status)


def _served(request: Request) -> Served:
    return cast("Served", request.app.state.served)


Service: TypeAlias = Annotated[Served, Depends(_served)]
"""A parameter of an endpoint of the memory."""


def encoded(value: Any) -> bytes:
    """Return records, or what holds some, as JSON."""
    try:
        return orjson.dumps(value, default=_plain)
    except TypeError:  # an integer of more than 64 bits in a document
        return json.dumps(_deep(value), ensure_ascii=False, separators=(",", ":")).encode()


def written(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a response of JSON."""
    return Response(body, status, headers, media_type="application/json")


def answer(value: Any, status: int = 200) -> Response:
    """Return records, or what holds some, as a response."""
    return written(encoded(value), status)


def etag(body: bytes) -> str:
    """Return what tells this body from any other."""
    return f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def tagged(request: Request, value: Any) -> Response:
    """Return a row with its ETag, or 304 if the caller has it."""
    body = encoded(value)
    tag = etag(body)
    if matches(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers={"ETag": tag})
    return written(body, headers={"ETag": tag})


def matches(header: str | None, tag: str) -> bool:
    """Whether a header with ETags names this one; weak ones count, as bodies are all there is."""
    named = [item.strip().removeprefix("W/") for item in (header or "").split(",")]
    return tag in named or "*" in named


async def _asked(request: Request) -> bytes:
    """Return what tells this request from any other."""
    line = f"{request.method} {request.url.path}?{request.url.query}\n"
    return hashlib.sha256(line.encode() + await request.body()).digest()


def _again(stood: Standing | None, asked: bytes) -> Response:
    if stood is None:  # deleted meanwhile, for its age
        detail = "the answer to this Idempotency-Key was just forgotten: send it again"
        raise Problem(503, "in-the-way", detail, headers={"Retry-After": "1"})
    if stood.request != asked:
        detail = (
            "this Idempotency-Key was used for another request, and nothing was done: give "
            "each request a key of its own"
        )
        raise Problem(422, "idempotency-key-reused", detail, name="Idempotency-Key")
    return written(stood.body, stood.status, REPLAYED)


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [*value]
    if hasattr(value, "to_list"):  # a vector
        return value.to_list()
    raise TypeError(type(value).__name__)


def _deep(value: Any) -> Any:
    """Return what Python's own encoder knows."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: _deep(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {name: _deep(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_deep(item) for item in value]
    if isinstance(value, UUID):
        return str(value)
    return value.isoformat() if hasattr(value, "isoformat") else value
