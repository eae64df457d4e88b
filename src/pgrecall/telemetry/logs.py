"""Log records: one for each operation, and how processes of our own print theirs."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from pgrecall.telemetry.operations import CANCELLED

if TYPE_CHECKING:
    from pgrecall.config import Settings
    from pgrecall.telemetry.operations import Operation

logger = logging.getLogger("pgrecall.operations")
# Without it Python would print failures to stderr where an application has set nothing up; it
# gets them as exceptions anyway.
logger.addHandler(logging.NullHandler())

FIELDS = (
    "operation",
    "project_id",
    "results",
    "duration_ms",
    "embedding_ms",
    "error",
    "sqlstate",
)
"""What a record of an operation carries beside its message; the last only where it failed."""


def log_operation(operation: Operation) -> None:
    """Write the record of an operation: DEBUG, or WARNING where database or embedder failed.

    No value of a row and no message of an error is in it, since these may quote values.
    """
    failure = operation.failure
    quiet = failure is None or operation.refused or failure == CANCELLED
    level = logging.DEBUG if quiet else logging.WARNING
    if not logger.isEnabledFor(level):
        return
    extra: dict[str, object] = {
        "operation": operation.name,
        "project_id": operation.project_id,
        "results": operation.results,
        "duration_ms": round(operation.seconds * 1000, 3),
        "embedding_ms": round(operation.embedding_seconds * 1000, 3),
        "error": failure,
    }
    message: str = operation.name
    if failure is not None:
        message = f"{message} failed: {failure}"
        extra["sqlstate"] = operation.sqlstate
    # What Logger.log does, but for a search of the stack for the caller, which would be this file.
    make = logging.getLogRecordFactory()
    record = make(logger.name, level, __file__, 0, message, (), None, "log_operation")
    record.__dict__.update(extra)
    logger.handle(record)


class TextFormatter(logging.Formatter):
    """One line a record: UTC time, level, logger, message, and the fields of an operation."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a line break in it is written as backslash and letter."""
        text = super().format(record)
        fields = record.__dict__
        told = [f"{name}={fields[name]}" for name in FIELDS[1:] if fields.get(name) is not None]
        line = " ".join([text, *told]) if "operation" in fields else text
        return line.replace("\r", "\\r").replace("\n", "\\n")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802
        """Return the time of a record in UTC, ISO 8601."""
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def formatter(settings: Settings) -> logging.Formatter:
    """Return what makes a line of a record, as ``settings.log_format`` says."""
    if settings.log_format == "text":
        return TextFormatter()
    from pgrecall.telemetry.json_lines import JsonFormatter

    return JsonFormatter()


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Let this process print its log records; for long-running commands of our own.

    Ours are printed from ``settings.log_level`` on, those of other libraries from WARNING on.
    Calling it again replaces what it had set up.

    Args:
        settings: ``log_format`` (``text`` or ``json``) and ``log_level``.
        stream: Where to; stderr unless given.
    """
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(formatter(settings))
    root = logging.getLogger()
    for standing in [*root.handlers]:
        if isinstance(standing, _Handler):
            root.removeHandler(standing)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("pgrecall").setLevel(settings.log_level)


class _Handler(logging.StreamHandler[TextIO]):
    """The handler set up by ``configure``, known again by its class."""
