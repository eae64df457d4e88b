"""Embedding for requests: in threads, only so many at once, only so long; and whether it works."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from pgvector import Vector

from pgrecall.core.vectors import to_vector
from pgrecall.embedding.answers import check_text
from pgrecall.embedding.base import Embedder
from pgrecall.errors import (
    EmbedderUnavailable,
    EmbeddingError,
    EmbeddingRefused,
    InvalidVector,
    PgrecallError,
)
from pgrecall.serving.limits import Limits, Wanted
from pgrecall.serving.problems import Problem

T = TypeVar("T")

logger = logging.getLogger(__name__)

# A text that every model takes.
_PROBE = "hello"
# What was seen of the embedder holds so long; then it is asked, which may cost money.
_HOLDS = 2.0
# Whoever asks for the health does not wait long either.
_PATIENCE = 5.0
_RETRY_AFTER = {"Retry-After": "5"}


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of texts.

    Attributes:
        vectors: One for each text, in single precision.
        dimensions: Their length.
        milliseconds: How long the embedder took.
    """

    vectors: list[Vector]
    dimensions: int
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Health:
    """What was last seen of the embedder.

    Attributes:
        fault: Why it cannot embed; None if it can.
        dimensions: Length of its vectors; None before the first.
        seen: When, on the clock of ``time.monotonic``.
    """

    fault: str | None
    dimensions: int | None
    seen: float


class Embedding:
    """What all requests embed with. Used from one event loop.

    Args:
        embedder: What makes the vectors.
        limits: How many requests at once, how long each waits and may take.
        spec: How the embedder was configured, which names it too.
    """

    def __init__(self, embedder: Embedder, limits: Limits, spec: str = "") -> None:
        self.limits = limits
        self.model = public_name(embedder.identity)
        self.names = {"", spec, self.model, self.model.partition(":")[2]}
        self._embedder = embedder
        self._slots = asyncio.Semaphore(limits.concurrency)
        # Threads that stay: some libraries set up much for every thread that calls them.
        self._threads = ThreadPoolExecutor(limits.concurrency, thread_name_prefix="embed")
        # One for itself, so that health tells of the embedder and not of how much there is to do.
        self._prober = ThreadPoolExecutor(1, thread_name_prefix="health")
        self._probe: Future[None] | None = None
        self._running: set[Future[bytes]] = set()
        self._health: Health | None = None

    async def embed(self, wanted: Wanted, render: Callable[[Embedded], bytes]) -> bytes:
        """Return what ``render`` makes of the vectors; it runs in the thread, too.

        Raises:
            Problem: It cannot be done, not now, or not in time.
        """
        self.limits.check(wanted)
        try:
            async with asyncio.timeout(self.limits.wait):
                await self._slots.acquire()
        except TimeoutError:
            detail = (
                f"{self.limits.concurrency} requests are being embedded and none ended within "
                f"{self.limits.wait:g} s: send this one again later"
            )
            raise Problem(503, "busy", detail, headers=_RETRY_AFTER) from None
        done = self._start(wanted, render)
        try:
            async with asyncio.timeout(self.limits.timeout):
                return await asyncio.shield(done)
        except TimeoutError:
            detail = (
                f"the texts were not embedded within {self.limits.timeout:g} s: send fewer at once "
                "(PGRECALL_SERVE_TIMEOUT)"
            )
            raise Problem(504, "timed-out", detail) from None

    def _start(self, wanted: Wanted, render: Callable[[Embedded], bytes]) -> asyncio.Future[bytes]:
        work = self._threads.submit(self._work, wanted, render)
        self._running.add(work)
        done = asyncio.wrap_future(work)

        def free(ended: asyncio.Future[bytes]) -> None:
            # Not earlier: a thread cannot be ended, and one whose client has left still works.
            self._running.discard(work)
            self._slots.release()
            if not ended.cancelled():
                ended.exception()  # asyncio complains of one that nobody has looked at

        done.add_done_callback(free)
        return done

    def _work(self, wanted: Wanted, render: Callable[[Embedded], bytes]) -> bytes:
        """Embed texts; runs in a thread."""
        count = len(wanted.texts)
        try:
            for index, text in enumerate(wanted.texts):
                check_text(text, index, count)
        except EmbeddingRefused as refused:
            index = refused.index or 0
            name = wanted.place(index)
            # Our own words, not a provider's, but with another name for the text.
            reason = refused.message.removeprefix(f"text {index + 1} of {count} ")
            detail = f"{name} {reason}: send a text that can be read"
            raise Problem(422, "text-refused", detail, name=name) from refused
        try:
            return render(self._embed(wanted))
        except Problem:
            raise
        except EmbeddingRefused as refused:
            self._raise_refused(wanted, refused)
        except Exception as error:
            self._note(_fault(error))
            if isinstance(error, PgrecallError):
                logger.warning("%d texts were not embedded: %s", count, error)
            else:  # of an embedder of the user's own
                logger.exception("%d texts were not embedded", count)
            raise _problem(error) from error

    def _embed(self, wanted: Wanted) -> Embedded:
        texts = wanted.texts
        if wanted.dimensions not in (None, self._embedder.dimensions):
            detail = (
                f"{self.model} makes vectors of {self._embedder.dimensions} dimensions, not "
                f"{wanted.dimensions}: leave dimensions out"
            )
            raise Problem(400, "wrong-dimensions", detail, name="dimensions")
        started = time.perf_counter()
        rows = self._embedder.embed(texts, wanted.mode)
        seconds = time.perf_counter() - started
        dimensions = self._embedder.dimensions
        if len(rows) != len(texts):
            raise EmbeddingError(f"{self.model} gave {len(rows)} vectors for {len(texts)} texts")
        try:
            vectors = [to_vector(row, dimensions) for row in rows]
        except InvalidVector as error:
            raise EmbeddingError(f"{self.model} gave no usable vector: {error}") from error
        self._note(None, dimensions)
        return Embedded(vectors, dimensions, round(seconds * 1000, 3))

    def _raise_refused(self, wanted: Wanted, refused: EmbeddingRefused) -> NoReturn:
        logger.info("the embedder refused a text: %s", refused)
        index = 0 if len(wanted.texts) == 1 else refused.index
        name = wanted.field if index is None else wanted.place(index)
        which = f"one of {len(wanted.texts)} texts in {name}" if index is None else name
        detail = f"{self.model} gives {which} no vector: change the text, or leave it out"
        raise Problem(422, "text-refused", detail, name=name) from refused

    async def health(self) -> Health:
        """Return what is known of the embedder, which is asked if that is old."""
        known = self._health
        if known is not None and time.monotonic() - known.seen < _HOLDS:
            return known
        if self._probe is None or self._probe.done():
            self._probe = self._prober.submit(self._ask)
        done, _ = await asyncio.wait({asyncio.wrap_future(self._probe)}, timeout=_PATIENCE)
        if not done or self._health is None:
            dimensions = None if known is None else known.dimensions
            fault = f"the embedder did not answer within {_PATIENCE:g} s"
            return Health(fault, dimensions, time.monotonic())
        return self._health

    def _ask(self) -> None:
        """Embed a text, to see whether it can be done; runs in a thread."""
        before = self._health
        try:
            self._embed(Wanted(texts=[_PROBE], field="probe", single=True))
        except Exception as error:  # noqa: BLE001 - a probe looks for whatever may happen
            self._note(_fault(error))
            if before is None or before.fault is None:
                logger.warning("the embedder fails: %s", error)
        else:
            if before is not None and before.fault is not None:
                logger.info("the embedder works again")

    def _note(self, fault: str | None, dimensions: int | None = None) -> None:
        if dimensions is None and self._health is not None:
            dimensions = self._health.dimensions
        self._health = Health(fault, dimensions, time.monotonic())

    def close(self) -> bool:
        """Take nothing more on, and return whether everything has ended.

        A thread that still works would be waited for at the end of the process, however long.
        """
        for pool in (self._threads, self._prober):
            pool.shutdown(wait=False, cancel_futures=True)
        probing = self._probe is not None and not self._probe.done()
        return not probing and all(work.done() for work in [*self._running])


def public_name(identity: str) -> str:
    """Return an embedder's identity without the directory, if its model is a path."""
    provider, colon, model = identity.partition(":")
    if not model.startswith(("/", "~", ".")):
        return identity
    return f"{provider}{colon}{model.rstrip('/').rpartition('/')[2]}"


def _fault(error: Exception) -> str:
    if isinstance(error, EmbedderUnavailable):
        return "the embedder is down, slow or refuses for now; the server's log says more"
    return "the embedder fails; the server's log says why"


def _problem(error: Exception) -> Problem:
    if isinstance(error, EmbedderUnavailable):
        detail = f"{_fault(error)}: send this request again later"
        return Problem(503, "embedder-unavailable", detail, headers=_RETRY_AFTER)
    return Problem(500, "embedder-failed", _fault(error))
