"""pgrecall: agent memory you can operate, on the PostgreSQL you already run."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgrecall import errors
    from pgrecall._async.memory import AsyncMemory, AsyncProjectMemory
    from pgrecall._sync.memory import Memory, ProjectMemory
    from pgrecall.config import Settings
    from pgrecall.embedding.base import Embedder
    from pgrecall.errors import PgrecallError
    from pgrecall.models import (
        Account,
        Episode,
        EpisodeFilters,
        Hits,
        Item,
        Knowledge,
        Metric,
        NewEpisode,
        NewItem,
        OperationSummary,
        Page,
        Recalled,
        RecalledItem,
        RecalledKnowledge,
        RecordedMany,
        Session,
        Staleness,
        Terms,
    )

__version__ = "0.1.0"

# Loaded when first asked for: the command line answers `--help` without the driver.
_HOMES = {
    "AsyncMemory": "pgrecall._async.memory",
    "AsyncProjectMemory": "pgrecall._async.memory",
    "Memory": "pgrecall._sync.memory",
    "ProjectMemory": "pgrecall._sync.memory",
    "Settings": "pgrecall.config",
    "Embedder": "pgrecall.embedding.base",
    "PgrecallError": "pgrecall.errors",
    "Account": "pgrecall.models",
    "Episode": "pgrecall.models",
    "EpisodeFilters": "pgrecall.models",
    "Hits": "pgrecall.models",
    "Item": "pgrecall.models",
    "Knowledge": "pgrecall.models",
    "Metric": "pgrecall.models",
    "NewEpisode": "pgrecall.models",
    "NewItem": "pgrecall.models",
    "OperationSummary": "pgrecall.models",
    "Page": "pgrecall.models",
    "Recalled": "pgrecall.models",
    "RecalledItem": "pgrecall.models",
    "RecalledKnowledge": "pgrecall.models",
    "RecordedMany": "pgrecall.models",
    "Session": "pgrecall.models",
    "Staleness": "pgrecall.models",
    "Terms": "pgrecall.models",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("pgrecall.errors")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'pgrecall' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


__all__ = [
    "Account",
    "AsyncMemory",
    "AsyncProjectMemory",
    "Embedder",
    "Episode",
    "EpisodeFilters",
    "Hits",
    "Item",
    "Knowledge",
    "Memory",
    "Metric",
    "NewEpisode",
    "NewItem",
    "OperationSummary",
    "Page",
    "PgrecallError",
    "ProjectMemory",
    "Recalled",
    "RecalledItem",
    "RecalledKnowledge",
    "RecordedMany",
    "Session",
    "Settings",
    "Staleness",
    "Terms",
    "errors",
]
