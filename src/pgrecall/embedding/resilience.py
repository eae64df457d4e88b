"""What becomes of calls over HTTP that fail: time-outs, repeats and the circuit breaker.

Both providers' own clients are told to try once only, so that this is the one policy:

- A request has ``Policy.timeout`` seconds in all, repeats and the waits between them included.
- What may pass (no connection, a time-out, 429, 5xx, an answer cut short) is tried again,
  ``Policy.attempts`` times at most, after a random wait that grows, or after the one that the
  server names. A wait that would end past the time-out is not begun.
- After ``Policy.failures`` requests in a row that failed so, none is sent for ``Policy.pause``
  seconds. Answers of any other kind, good or bad, show that the provider is there.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from traceback import format_exception
from typing import Any, Self, TypeVar

import tenacity
from circuitbreaker import CircuitBreaker  # type: ignore[import-untyped]

from pgrecall.config import Settings, load_settings
from pgrecall.errors import EmbedderUnavailable

T = TypeVar("T")

_log = logging.getLogger(__name__)

# Too early, time-out, locked, too many: the same request may succeed later.
_PASSING = (408, 409, 425, 429)
_REFUSING = (400, 413, 422)
# Ollama answers 500 where a text is the cause: the model gives NaN for it, or it is too long.
_ABOUT_TEXT = re.compile(r"unsupported value: NaN|context length|input length", re.IGNORECASE)

_MOST_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Policy:
    """How long to wait for a provider, and how often to try.

    Attributes:
        timeout: Seconds of one request in all.
        attempts: Times that it is tried.
        connect_timeout: Seconds to wait for a connection.
        first_wait: Most seconds between the first attempt and the second; doubles from there on.
        longest_wait: Most seconds between two attempts.
        failures: Failed requests in a row after which none is sent for a while.
        pause: Seconds of that while.
    """

    timeout: float = 30.0
    attempts: int = 3
    connect_timeout: float = 5.0
    first_wait: float = 0.5
    longest_wait: float = 8.0
    failures: int = 5
    pause: float = 30.0

    @classmethod
    def of(cls, settings: Settings | None = None) -> Self:
        """Return the policy that the settings ask for; None reads them from the environment.

        Raises:
            ConfigurationError: A variable holds a value that its setting does not take.
        """
        settings = load_settings() if settings is None else settings
        return cls(timeout=settings.embed_timeout, attempts=settings.embed_attempts)


class Passing(Exception):
    """An attempt failed in a way that may pass. Never leaves this package."""


class Refusal(Exception):
    """The provider gives these texts no vectors. Never leaves this package.

    Attributes:
        status: The HTTP status, or None where it came as an answer.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


def failure(status: int, message: str) -> Passing | Refusal | None:
    """Return what an HTTP status means, or None where only the operator can help."""
    if status in _REFUSING or (status >= 500 and _ABOUT_TEXT.search(message)):
        return Refusal(f"HTTP {status}: {message}", status)
    if status in _PASSING or status >= 500:
        return Passing(f"HTTP {status}: {message}")
    return None


@dataclass(slots=True)
class _Request:
    """One request with its repeats."""

    deadline: float
    retry_after: float | None = None


_current: ContextVar[_Request | None] = ContextVar("pgrecall_embedding_request", default=None)


class Guard:
    """Sends requests to one provider; safe to share between threads and after a fork.

    Args:
        name: The provider and model, for messages.
        policy: How long, how often.
    """

    def __init__(self, name: str, policy: Policy) -> None:
        self._name = name
        self._policy = policy
        # pybreaker, the better known, holds a lock while it calls: threads would queue.
        self._breaker: Any = CircuitBreaker(
            failure_threshold=policy.failures,
            recovery_timeout=policy.pause,
            expected_exception=EmbedderUnavailable,
        )

    def call(self, attempt: Callable[[], T]) -> T:
        """Return what ``attempt`` returns, which is called again when it raises ``Passing``.

        Raises:
            EmbedderUnavailable: It failed each time, or was not called as it failed before.
        """
        if self._breaker.opened:
            again = self._breaker.open_until
            raise EmbedderUnavailable(
                f"{self._name} failed {self._breaker.failure_count} times in a row and is not "
                f"asked again before {again:%H:%M:%S} UTC, in {self._breaker.open_remaining} s",
                hint="see what the earlier errors say of it",
            )
        with self._breaker:
            return self._repeat(attempt)

    def _repeat(self, attempt: Callable[[], T]) -> T:
        policy, started = self._policy, time.monotonic()
        request = _Request(deadline=started + policy.timeout)
        token = _current.set(request)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Passing),
            stop=tenacity.stop_after_attempt(policy.attempts)
            | tenacity.stop_before_delay(policy.timeout),
            wait=self._wait(request),
            before_sleep=self._tell,
            reraise=True,
        )
        try:
            return retrying(attempt)
        except Passing as error:
            asked = request.retry_after
            waits = f"; it asks for a pause of {asked:.0f} s" if asked is not None else ""
            tries = retrying.statistics["attempt_number"]
            raise EmbedderUnavailable(
                f"{self._name} is unavailable: {error}{waits} (attempt {tries} of "
                f"{policy.attempts}, {time.monotonic() - started:.1f} of {policy.timeout:g} s)",
                hint="check that it runs and can be reached; PGRECALL_EMBED_TIMEOUT and "
                "PGRECALL_EMBED_ATTEMPTS say how long and how often it is tried",
            ) from error.__cause__
        finally:
            _current.reset(token)

    def _wait(self, request: _Request) -> Callable[[tenacity.RetryCallState], float]:
        # Full jitter: clients that failed together must not come back together.
        jitter = tenacity.wait_random_exponential(
            multiplier=self._policy.first_wait, max=self._policy.longest_wait
        )

        def wait(state: tenacity.RetryCallState) -> float:
            asked = request.retry_after
            return jitter(state) if asked is None else asked

        return wait

    def _tell(self, state: tenacity.RetryCallState) -> None:
        failed = state.outcome.exception() if state.outcome else None
        _log.info("%s: %s; again in %.1f s", self._name, failed, state.upcoming_sleep)


def hooks(policy: Policy) -> dict[str, list[Callable[[Any], None]]]:
    """Return the event hooks by which an httpx client keeps to the time-out as a whole.

    httpx limits each wait for a connection or for bytes, but not their sum, and one limit is for
    all requests. Both clients are of httpx's kind, though not of the same package.
    """

    def limit(request: Any) -> None:
        if (current := _current.get()) is None:
            return
        current.retry_after = None
        left = max(current.deadline - time.monotonic(), 0.001)
        limits = dict.fromkeys(("read", "write", "pool"), left)
        request.extensions["timeout"] = {"connect": min(policy.connect_timeout, left), **limits}

    def watch(response: Any) -> None:
        if (current := _current.get()) is None:
            return
        if response.status_code >= 400:
            current.retry_after = seconds(response.headers.get("retry-after"))
        response.stream = _watched(response.stream, current.deadline)

    return {"request": [limit], "response": [watch]}


def _watched(stream: Any, deadline: float) -> Any:
    """Return ``stream`` in a form that ends when the time is up, however slowly bytes trickle."""

    def chunks(_: object) -> Iterator[bytes]:
        for chunk in stream:
            yield chunk
            if time.monotonic() > deadline:
                raise TimeoutError("the answer had not ended when the time was up")

    # httpx wants its own class here, and there are two packages of it.
    base = next(kind for kind in type(stream).__mro__ if kind.__name__ == "SyncByteStream")
    members = {"__iter__": chunks, "close": lambda _: stream.close()}
    return type("WatchedStream", (base,), members)()


def seconds(retry_after: str | None) -> float | None:
    """Read a ``Retry-After`` header: seconds or a date; None where it is neither."""
    if retry_after is None:
        return None
    try:
        return max(float(retry_after), 0.0)
    except ValueError:
        return _seconds_until(retry_after)


def _seconds_until(date: str) -> float | None:
    try:
        until = parsedate_to_datetime(date)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max((until - datetime.now(UTC)) / timedelta(seconds=1), 0.0)


def hide(text: str, secrets: tuple[str, ...]) -> str:
    """Return a server's words in short, without any secret: some echo what they refuse."""
    for secret in secrets:
        text = text.replace(secret, "***")
    text = " ".join(text.split())
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def harmless(error: BaseException, secrets: tuple[str, ...]) -> BaseException | None:
    """Return ``error`` to raise from, or None if its text or that of its causes has a secret."""
    text = "".join(format_exception(error))
    return None if any(secret in text for secret in secrets) else error
