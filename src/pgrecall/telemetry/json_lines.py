"""Log records as JSON, one object a line. Imported only if asked for."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.orjson import OrjsonFormatter

_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class JsonFormatter(OrjsonFormatter):
    """``timestamp`` (UTC, ISO 8601), ``level``, ``logger``, ``message``, and what else is there."""

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Collect a record's fields; the library's own way, for any choice of them, is slower."""
        log_data["timestamp"] = datetime.fromtimestamp(record.created, UTC)
        log_data["level"] = record.levelname
        log_data["logger"] = record.name
        log_data["message"] = record.message
        log_data.update(message_dict)
        log_data.update({k: v for k, v in vars(record).items() if k not in _STANDARD})
