"""Watching the memory: its metrics, what is promised of them, and the alerts that follow."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from pgrecall.errors import MissingExtra


def load_service() -> ModuleType:
    """Return ``pgrecall.ops.monitor.service``, whose packages may not be installed.

    Raises:
        MissingExtra: They are not.
    """
    try:
        return import_module("pgrecall.ops.monitor.service")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("prometheus_client", "psutil"):
            raise
        raise MissingExtra("pgrecall monitor", "monitor") from error
