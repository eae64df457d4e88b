"""What becomes of errors: the caller's are told to the model, ours stay in the log."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError, ToolError

from pgrecall.errors import (
    Conflict,
    EmbedderUnavailable,
    EmbeddingError,
    InvalidInput,
    NotFound,
    OutcomeUnknown,
    PgrecallError,
    TimedOut,
    Unavailable,
)
from pgrecall.serving.access import Forbidden
from pgrecall.serving.mcp.ending import cancelled_once

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)

_TOLD = (InvalidInput, NotFound, Conflict, Forbidden)
_LATER = (Unavailable, TimedOut, EmbedderUnavailable)


def public_text(error: PgrecallError) -> str:
    """Return what a caller may know: of the caller's own mistakes all, of ours what to do."""
    if isinstance(error, _TOLD):
        return f"{error.message}. What to do: {error.hint}" if error.hint else error.message
    if isinstance(error, _LATER):
        return "the memory cannot be reached at present. What to do: try again in a few seconds"
    if isinstance(error, OutcomeUnknown):
        return (
            "the connection broke, and it may or may not be stored. What to do: look, or repeat "
            "the call with the same external_id"
        )
    if isinstance(error, EmbeddingError):
        return "the text could not be embedded. What to do: say it otherwise, or go on without"
    return "the memory failed. What to do: go on without it; its log says why"


def as_tool(call: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Awaitable[T]]:
    """Let a tool's errors be results that a model reads.

    Raises:
        ToolError: What the call raised, as the caller may know it.
    """

    @wraps(call)
    async def told(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await cancelled_once(call(*args, **kwargs))
        except PgrecallError as error:
            _note(error)
            raise ToolError(public_text(error)) from error

    return told


def as_resource(call: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Awaitable[T]]:
    """Let a resource's errors be those of the protocol.

    Raises:
        ResourceNotFoundError: There is nothing at its address, or not for this caller.
        ResourceError: Anything else that the call raised, as the caller may know it.
    """

    @wraps(call)
    async def told(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await cancelled_once(call(*args, **kwargs))
        except (NotFound, InvalidInput) as error:
            raise ResourceNotFoundError(public_text(error)) from error
        except PgrecallError as error:
            _note(error)
            raise ResourceError(public_text(error)) from error

    return told


def _note(error: PgrecallError) -> None:
    if not isinstance(error, _TOLD):
        logger.warning("an operation failed: %s", error)
