"""Which parts of telemetry a memory gets, by its settings."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pgrecall.config import Settings
from pgrecall.errors import MissingExtra
from pgrecall.telemetry.logs import log_operation
from pgrecall.telemetry.operations import Telemetry

_NEEDED = {
    "pgrecall.telemetry.prometheus": ("prometheus_client", "PGRECALL_PROMETHEUS", "monitor"),
    "pgrecall.telemetry.tracing": ("opentelemetry", "PGRECALL_TRACES", "otel"),
}


def choose_telemetry(settings: Settings, database: tuple[str, str, int] | None) -> Telemetry:
    """Return who is to be told of a memory's operations.

    Args:
        settings: What is switched on.
        database: Name, host and port of the database, for traces.

    Raises:
        MissingExtra: A part is switched on and its package is not installed.
        ConfigurationError: Metrics cannot be served at the port given.
    """
    instruments = spans = None
    if settings.prometheus or settings.prometheus_port is not None:
        prometheus = _load("pgrecall.telemetry.prometheus")
        instruments = prometheus.expose(settings)
    if settings.traces and database is not None:
        spans = _load("pgrecall.telemetry.tracing").Spans(*database)
    return Telemetry(
        ended=(log_operation,) if instruments is None else (log_operation, instruments.ended),
        embedded=() if instruments is None else (instruments.embedded,),
        spans=spans,
        memories=None if instruments is None else instruments.memories,
    )


def _load(module: str) -> Any:
    package, what, extra = _NEEDED[module]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != package:
            raise
        raise MissingExtra(what, extra) from error
