"""pgrecall: agent memory you can operate, on the PostgreSQL you already run."""

from pgrecall import errors
from pgrecall._async.memory import AsyncMemory, AsyncProjectMemory
from pgrecall._sync.memory import Memory, ProjectMemory
from pgrecall.config import Settings
from pgrecall.embedding.base import Embedder
from pgrecall.errors import PgrecallError
from pgrecall.models import (
    Episode,
    Knowledge,
    Metric,
    NewEpisode,
    OperationSummary,
    Page,
    Recalled,
    RecalledKnowledge,
    RecordedMany,
    Session,
)

__version__ = "0.1.0"

__all__ = [
    "AsyncMemory",
    "AsyncProjectMemory",
    "Embedder",
    "Episode",
    "Knowledge",
    "Memory",
    "Metric",
    "NewEpisode",
    "OperationSummary",
    "Page",
    "PgrecallError",
    "ProjectMemory",
    "Recalled",
    "RecalledKnowledge",
    "RecordedMany",
    "Session",
    "Settings",
    "errors",
]
