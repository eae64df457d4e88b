"""Errors of the memory as problems of requests.

What the caller gave is named, and what a row of the caller's says. What the database, a driver or
a provider said is not: it may hold a statement, an address or a path, and goes to the log.
"""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request, Response

from pgrecall.errors import (
    Conflict,
    DatabaseError,
    EmbedderUnavailable,
    EmbeddingError,
    EmbeddingRefused,
    InvalidInput,
    NotFound,
    OutcomeUnknown,
    OutOfSpace,
    PgrecallError,
    ReadOnlyServer,
    SchemaMismatch,
    TimedOut,
    TransferError,
    Unavailable,
)
from pgrecall.serving.access import Forbidden, current
from pgrecall.serving.problems import Problem

logger = logging.getLogger(__name__)

_SOON = {"Retry-After": "1"}
_LATER = {"Retry-After": "5"}
_IN_THE_WAY = ("40001", "40P01")

# The first that fits says it.
_TOLD: tuple[tuple[type[PgrecallError], int, str], ...] = (
    (Unavailable, 503, "unavailable"),
    (OutcomeUnknown, 503, "outcome-unknown"),
    (ReadOnlyServer, 503, "read-only"),
    (OutOfSpace, 507, "out-of-space"),
    (TimedOut, 504, "timed-out"),
    (SchemaMismatch, 503, "schema"),
    (EmbedderUnavailable, 503, "embedder-unavailable"),
    (EmbeddingError, 500, "embedder-failed"),
    (TransferError, 503, "transfer-stopped"),
)
_DETAILS = {
    "unavailable": "the database cannot be reached, and nothing was written",
    "outcome-unknown": "the connection to the database broke amid a write: send the same again, "
    "with the same external_id or Idempotency-Key",
    "read-only": "the database takes no writes now: it is a standby",
    "out-of-space": "the database is out of space, and nothing was written",
    "timed-out": "the database took too long, and nothing was written",
    "schema": "the database's schema is not the one that this server needs",
    "embedder-unavailable": "the embedder is down, slow or refuses for now; nothing was written",
    "embedder-failed": "the embedder fails; the server's log says why",
    "transfer-stopped": "the import stopped, and what was written before stands: send the same "
    "again, it continues",
}


def install(app: FastAPI) -> None:
    """Let errors of the memory become problems."""
    app.add_exception_handler(PgrecallError, _of_memory)


def _of_memory(request: Request, error: Exception) -> Response:
    assert isinstance(error, PgrecallError)  # noqa: S101 - registered for it alone
    return problem_of(error).response(request.url.path)


def problem_of(error: PgrecallError) -> Problem:
    """Return what a caller is told of an error."""
    if isinstance(error, Forbidden):
        return Problem(403, "forbidden", str(error))
    if isinstance(error, NotFound):
        return Problem(404, "no-such-row", str(error))
    if isinstance(error, EmbeddingRefused):
        return Problem(422, "text-refused", "the embedder gives this text no vector: change it")
    if isinstance(error, Conflict):
        return Problem(409, "conflict", _conflict(error))
    if isinstance(error, InvalidInput):
        return Problem(422, "invalid", _invalid(error))
    if isinstance(error, DatabaseError) and error.sqlstate in _IN_THE_WAY:
        detail = "another request was in the way, and nothing was written: send this one again"
        return Problem(503, "in-the-way", detail, headers=_SOON)
    for kind, status, code in _TOLD:
        if isinstance(error, kind):
            logger.warning("%s", error)
            headers = _LATER if status == 503 else {}
            return Problem(status, code, _DETAILS[code], headers=headers)
    logger.error("%s: %s", type(error).__name__, error)
    return Problem(500, "internal", "the server failed on this request; its log says why")


def of_driver(error: PgrecallError) -> bool:
    """Whether the words of an error are partly those of the database."""
    return type(error.__cause__).__module__.partition(".")[0] == "psycopg"


def _conflict(error: PgrecallError) -> str:
    # What it says of rows in the way may be of projects that are not the caller's.
    if of_driver(error) or current().projects is not None:
        return (
            "the identifier stands for something else, or knowledge rests on the row; "
            "nothing was changed"
        )
    return str(error)


def _invalid(error: PgrecallError) -> str:
    if of_driver(error):
        logger.info("refused by the database: %s", error)
        return "a value cannot be stored in the database; nothing was changed"
    return str(error)
