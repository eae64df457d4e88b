"""Import and export of episodes as streams of JSON Lines; neither is ever held in memory whole."""

from __future__ import annotations

import asyncio
import io
import json
import queue
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, BinaryIO, cast

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from pgrecall import Memory
from pgrecall.models import Episode, Page
from pgrecall.ops.transfer import ImportReport, import_episodes
from pgrecall.ops.transfer.exporting import PAGE, to_line
from pgrecall.serving import answers, asked, examples, reach
from pgrecall.serving.describing import PREFIX, Described, endpoint
from pgrecall.serving.kinds import given
from pgrecall.serving.problems import Problem, shown
from pgrecall.serving.served import Served, Service, answer

IMPORT = f"{PREFIX}/episodes/import"
EXPORT = f"{PREFIX}/episodes/export"
NDJSON = "application/x-ndjson"

_TYPES = (NDJSON, "application/jsonl", "application/jsonlines")
_AT_ONCE = asyncio.Semaphore(2)
_CHUNKS = 16
_MOST_ERRORS = 1000

router = APIRouter(tags=["episodes"])


@router.post(
    IMPORT,
    response_model=answers.Imported,
    **endpoint(
        "write",
        "episodes_import",
        examples.IMPORTED,
        also=(408, 415),
        openapi_extra={
            "requestBody": {
                "required": True,
                "description": "One episode a line, in the form of `pgrecall episodes import`; "
                "packed with gzip or not.",
                "content": {NDJSON: {"schema": {"type": "string"}, "example": examples.LINE}},
            }
        },
    ),
)
async def import_lines(
    query: Annotated[asked.ImportQuery, Query()], request: Request, service: Service
) -> Response:
    """Record the episodes of a stream; sending it again continues, and changes nothing else.

    Lines are written in batches while they come; a bad line never touches the others.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _TYPES:
        detail = f"the body's type is {shown(kind)}: send Content-Type: {NDJSON}"
        raise Problem(415, "unsupported-media-type", detail)
    project_id = reach.one_project(query.project_id)
    if _AT_ONCE.locked():
        detail = "two imports are under way: send this one again later"
        raise Problem(503, "busy", detail, headers={"Retry-After": "5", "Connection": "close"})
    async with _AT_ONCE:
        pipe = _Pipe()
        work = asyncio.create_task(
            asyncio.to_thread(_import, service, pipe, project_id, query.embed)
        )
        try:
            await _feed(pipe, request, work, service.settings.serve_timeout)
            report = await asyncio.shield(work)
        except BaseException:
            pipe.abort()
            with suppress(Exception):  # what is raised says more
                await asyncio.shield(work)
            raise
    return answer(report)


class _Pipe(io.RawIOBase):
    """What comes in on one side, read by a thread on the other."""

    def __init__(self) -> None:
        self._chunks: queue.Queue[bytes | None] = queue.Queue(_CHUNKS)
        self._rest = b""
        self._ended = False
        self._aborted = threading.Event()

    def readable(self) -> bool:
        return True

    def full(self) -> bool:
        """Whether the thread has enough to do."""
        return self._chunks.full()

    def put(self, chunk: bytes | None) -> None:
        """Give what came; None is the end. The pipe is not full."""
        self._chunks.put_nowait(chunk)

    def abort(self) -> None:
        """Let reading fail: no more will come."""
        self._aborted.set()

    def readinto(self, buffer: Any) -> int:
        while not self._rest and not self._ended:
            chunk = self._next()
            self._ended = chunk is None
            self._rest = chunk or b""
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def _next(self) -> bytes | None:
        while not self._aborted.is_set():
            with suppress(queue.Empty):  # looks whether it was given up, and waits on
                return self._chunks.get(timeout=0.5)
        raise OSError("the request was broken off")


async def _feed(pipe: _Pipe, request: Request, work: asyncio.Task[Any], seconds: float) -> None:
    """Pass a request's body on as it comes, and no faster than it is read."""
    stream = request.stream().__aiter__()
    while not work.done():
        try:
            async with asyncio.timeout(seconds):
                chunk = await anext(stream)
        except StopAsyncIteration:
            await _room(pipe, work)
            if not work.done():
                pipe.put(None)
            return
        except TimeoutError as error:
            detail = f"nothing came for {seconds:g} s: send the same again, it continues"
            close = {"Connection": "close"}
            raise Problem(408, "too-slow", detail, headers=close) from error
        except ClientDisconnect as error:
            detail = "the request was broken off"
            raise Problem(400, "broken-off", detail) from error
        if chunk:
            await _room(pipe, work)
            if not work.done():
                pipe.put(chunk)


async def _room(pipe: _Pipe, work: asyncio.Task[Any]) -> None:
    # The thread takes a chunk in milliseconds; an event would have to come from there.
    while pipe.full() and not work.done():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


def _import(service: Served, pipe: _Pipe, project_id: str | None, embed: Any) -> dict[str, Any]:
    """Import what comes through the pipe; runs in a thread, with a client of its own."""
    settings = service.settings.model_copy(
        update={"pool_min_size": 0, "pool_max_size": 2, "prometheus_port": None}
    )
    with (
        TemporaryDirectory(prefix="pgrecall-import-") as directory,
        Memory.open(service.dsn, embedder=service.memory.embedder, settings=settings) as memory,
    ):
        rejects = Path(directory) / "rejects.jsonl"
        report = import_episodes(
            memory,
            cast("BinaryIO", io.BufferedReader(pipe, 1 << 16)),
            project_id=project_id,
            rejects=rejects,
            embed=embed,
            index="keep",
            connections=1,
        )
        return _told(report, rejects)


def _told(report: ImportReport, rejects: Path) -> dict[str, Any]:
    errors: list[Mapping[str, Any]] = []
    if report.rejects is not None:
        with rejects.open(encoding="utf-8") as lines:
            for line in islice(lines, _MOST_ERRORS):
                entry = json.loads(line)
                errors.append({"line": entry["line"], "reason": entry["reason"]})
    return {
        "read": report.read,
        "created": report.created,
        "existing": report.existing,
        "updated": report.updated,
        "rejected": report.rejected,
        "errors": errors,
        "errors_left_out": report.rejected - len(errors),
    }


_EXPORTED = Described(
    {
        "description": "One episode a line, newest first. A stream that breaks off is not whole.",
        "content": {NDJSON: {"schema": {"type": "string"}, "example": examples.LINE}},
    }
)


@router.get(
    EXPORT,
    **endpoint("read", "episodes_export", _EXPORTED, response_class=StreamingResponse),
)
async def export_lines(
    query: Annotated[asked.ExportQuery, Query()], service: Service
) -> StreamingResponse:
    """Return episodes as lines that an import takes, newest first."""
    filters = reach.episode_filters(given(query, "with_embeddings"))
    # Asked for before the answer begins, so that what is wrong with the request is still said.
    first = await service.memory.episodes.list(**filters, limit=PAGE)
    lines = _lines(service, filters, first, with_embeddings=query.with_embeddings)
    return StreamingResponse(lines, media_type=NDJSON)


async def _lines(
    service: Served, filters: Mapping[str, Any], page: Page[Episode], *, with_embeddings: bool
) -> AsyncIterator[bytes]:
    episodes = service.memory.episodes
    while True:
        vectors = {}
        if with_embeddings:
            vectors = await episodes.embeddings([e.episode_id for e in page if e.embedded])
        if page.items:
            yield b"".join(to_line(item, vectors.get(item.episode_id)) for item in page)
        if page.next_cursor is None:
            return
        page = await episodes.list(**filters, limit=PAGE, cursor=page.next_cursor)
