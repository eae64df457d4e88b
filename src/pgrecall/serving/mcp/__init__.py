"""The memory as tools and resources of the Model Context Protocol, over stdio and HTTP."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from pgrecall.errors import MissingExtra

_PACKAGES = ("mcp", "mcp_types", "pydantic", "starlette")


def load_stdio() -> ModuleType:
    """Return ``pgrecall.serving.mcp.stdio``, whose packages may not be installed.

    Raises:
        MissingExtra: They are not.
    """
    try:
        return import_module("pgrecall.serving.mcp.stdio")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _PACKAGES:
            raise
        raise MissingExtra("pgrecall mcp", "mcp") from error
