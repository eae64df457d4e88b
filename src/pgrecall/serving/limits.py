"""How much a request may ask for, and the reading of its body within that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from fastapi.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pgrecall.config import Settings
from pgrecall.embedding.base import Mode
from pgrecall.serving.problems import Problem, shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Texts that a client wants vectors of.

    Attributes:
        texts: The texts.
        field: The field that they came in.
        single: Whether the field is a text, and no list of them.
        mode: Whether they are documents or queries.
        dimensions: How long the client wants the vectors; None takes what comes.
    """

    texts: list[str]
    field: str
    single: bool = False
    mode: Mode = "document"
    dimensions: int | None = None

    def place(self, index: int) -> str:
        """Return the name of a text, for messages."""
        return self.field if self.single else f"{self.field}[{index}]"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for.

    Attributes:
        body_bytes: Bytes of a body.
        texts: Texts in a batch.
        characters: Characters of a text.
        concurrency: Requests that are embedded at once; the others wait.
        wait: Seconds that they wait.
        timeout: Seconds that a body may take to come, and its texts to be embedded.
    """

    body_bytes: int
    texts: int
    characters: int
    concurrency: int
    wait: float
    timeout: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the limits that the settings ask for."""
        return cls(
            body_bytes=settings.serve_max_body_bytes,
            texts=settings.serve_max_texts,
            characters=settings.serve_max_characters,
            concurrency=settings.serve_max_concurrency,
            wait=settings.serve_wait,
            timeout=settings.serve_timeout,
        )

    def check(self, wanted: Wanted) -> None:
        """Look at how many texts there are, and how long they are.

        Raises:
            Problem: There are none, or too many, or one is too long.
        """
        name, count = wanted.field, len(wanted.texts)
        if not count:
            raise Problem(422, "no-text", f"{name} is empty: send one text or more", name=name)
        if count > self.texts:
            detail = (
                f"{name} has {count} texts, {self.texts} are taken at once: send them in several "
                "requests (PGRECALL_SERVE_MAX_TEXTS)"
            )
            raise Problem(422, "too-many-texts", detail, name=name)
        for index, text in enumerate(wanted.texts):
            if len(text) > self.characters:
                name = wanted.place(index)
                detail = (
                    f"{name} has {len(text)} characters, {self.characters} are taken: shorten it "
                    "(PGRECALL_SERVE_MAX_CHARACTERS)"
                )
                raise Problem(422, "text-too-long", detail, name=name)


class BodyLimit:
    """Reads the bodies of requests before anything else does, and only to the limit.

    Args:
        app: What gets them.
        limits: How many bytes, in how many seconds.
        streamed: Paths whose bodies are read as they come, by what gets them.
    """

    def __init__(self, app: ASGIApp, limits: Limits, streamed: Sequence[str] = ()) -> None:
        self._app = app
        self._limits = limits
        self._streamed = frozenset(streamed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or scope["path"] in self._streamed:
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._limits.timeout):
                body = await self._read(Headers(scope=scope), receive)
        except (Problem, TimeoutError) as error:
            problem = error if isinstance(error, Problem) else self._late()
            # What is still under way would be taken for the next request.
            problem.headers = {**problem.headers, "Connection": "close"}
            await problem.response(scope["path"])(scope, receive, send)
            return
        if body is None:  # the client has gone
            return
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, replay, send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
        most = self._limits.body_bytes
        stated = headers.get("content-length", "")
        if stated.isdecimal() and int(stated) > most:
            raise self._too_large()
        chunks: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > most:
                raise self._too_large()
            chunks.append(chunk)
            more = message.get("more_body", False)
        if size:
            self._check_media_type(headers)
        return b"".join(chunks)

    def _too_large(self) -> Problem:
        detail = (
            f"the body has more than {self._limits.body_bytes} bytes: send it in several requests "
            "(PGRECALL_SERVE_MAX_BODY_BYTES)"
        )
        return Problem(413, "too-large", detail)

    def _late(self) -> Problem:
        detail = f"the body did not come within {self._limits.timeout:g} s: send it at once"
        return Problem(408, "too-slow", detail)

    @staticmethod
    def _check_media_type(headers: Headers) -> None:
        # A web page can make a browser send anything here without asking, but not JSON.
        given = headers.get("content-type", "")
        kind = given.partition(";")[0].strip().lower()
        if kind != "application/json":
            detail = f"the body's type is {shown(given)}: send Content-Type: application/json"
            raise Problem(415, "unsupported-media-type", detail)
