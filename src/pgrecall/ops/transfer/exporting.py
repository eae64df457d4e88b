"""Export of episodes as JSON Lines that an import elsewhere takes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from pgvector import Vector

from pgrecall._sync.memory import ProjectMemory
from pgrecall.errors import InvalidInput
from pgrecall.models import Episode
from pgrecall.ops.transfer.lines import KEYS
from pgrecall.ops.transfer.report import ExportProgress, ExportReport, OnExportProgress
from pgrecall.ops.transfer.target import Target, open_target

PAGE = 100
"""Episodes fetched at once."""

_NOT_FILTERS = ("limit", "cursor", "connection")


def export_episodes(
    memory: ProjectMemory,
    target: Target,
    *,
    with_embeddings: bool = False,
    on_progress: OnExportProgress | None = None,
    **filters: Any,
) -> ExportReport:
    """Write episodes as JSON Lines, newest first.

    The keys are those that an import takes, in a fixed order, without those that are null.
    Episodes recorded after the start are left out unless their ``timestamp`` lies in the past;
    outcomes are those that stand when the episode's page is read. ``outcome_recorded_at`` is
    not exported: an import sets it anew.

    Args:
        memory: Where from; a memory bound to a project exports that project.
        target: A file, which appears under its name only when it is whole, packed if the name
            ends in ``.gz``; or a stream of bytes, which stays open.
        with_embeddings: Whether to write the vectors too.
        on_progress: Called at the start and after every page.
        **filters: What ``memory.episodes.list`` takes: ``project_id``, ``since``, ``until``,
            ``sprint_id``, ``decision_source``, ``agent_version``, ``min_quality``,
            ``max_quality``, ``with_outcome``.

    Raises:
        InvalidInput: A filter is unknown or cannot be meant; nothing was written.
        TransferError: The target could not be written; no half of a file was left behind.
        DatabaseError: The database failed; no half of a file was left behind.
    """
    if wrong := [name for name in _NOT_FILTERS if name in filters]:
        raise InvalidInput(f"{', '.join(wrong)} cannot be given to an export")
    started = time.monotonic()
    total = memory.episodes.count(**filters)
    written = vectors = 0

    def tell() -> None:
        if on_progress is not None:
            seconds = time.monotonic() - started
            on_progress(ExportProgress(written=written, total=total, seconds=seconds))

    tell()
    with open_target(target) as file:
        for page in _pages(memory, filters):
            stored = _vectors(memory, page) if with_embeddings else {}
            file.write(b"".join(to_line(item, stored.get(item.episode_id)) for item in page))
            written += len(page)
            vectors += len(stored)
            tell()
    return ExportReport(
        written=written,
        total=total,
        seconds=time.monotonic() - started,
        vectors=vectors,
        path=Path(target) if isinstance(target, str | Path) else None,
    )


def _pages(memory: ProjectMemory, filters: dict[str, Any]) -> Iterator[list[Episode]]:
    cursor = None
    while True:
        page = memory.episodes.list(**filters, limit=PAGE, cursor=cursor)
        if page.items:
            yield list(page.items)
        cursor = page.next_cursor
        if cursor is None:
            return


def _vectors(memory: ProjectMemory, page: list[Episode]) -> dict[UUID, Vector]:
    embedded = [item.episode_id for item in page if item.embedded]
    return memory.episodes.embeddings(embedded) if embedded else {}


def to_line(episode: Episode, vector: Vector | None) -> bytes:
    """Return the line of an episode, with its vector if one is given."""
    values: dict[str, Any] = {}
    for name in KEYS:
        value = _numbers(vector) if name == "embedding" else getattr(episode, name)
        if value is not None:
            values[name] = value
    values["timestamp"] = episode.timestamp.isoformat()
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), default=str)
    return text.encode() + b"\n"


def _numbers(vector: Vector | None) -> list[float] | None:
    # Nine digits tell single-precision numbers apart; those of a double take twice the room.
    return None if vector is None else [float(f"{value:.9g}") for value in vector.to_list()]
