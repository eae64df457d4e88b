"""Serving over HTTP, for `pgrecall serve`: one FastAPI application, made of routers."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from pgrecall.errors import MissingExtra

_PACKAGES = ("fastapi", "starlette", "uvicorn", "prometheus_client")


def load_server() -> ModuleType:
    """Return ``pgrecall.serving.server``, whose packages may not be installed.

    Raises:
        MissingExtra: They are not.
    """
    try:
        return import_module("pgrecall.serving.server")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _PACKAGES:
            raise
        raise MissingExtra("pgrecall serve", "http") from error
