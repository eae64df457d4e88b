"""Writes good lines in batches so that each decision stands in the database exactly once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from psycopg.rows import class_row, scalar_row

from pgrecall._sync.memory import ProjectMemory
from pgrecall.core.documents import same_json
from pgrecall.core.episode_rows import match_taken
from pgrecall.errors import (
    Conflict,
    DatabaseError,
    InvalidInput,
    OutcomeUnknown,
    PgrecallError,
    Unavailable,
)
from pgrecall.models import Embed, Episode
from pgrecall.ops.transfer.lines import Entry
from pgrecall.ops.transfer.reading import Line
from pgrecall.sql import statement

Found = tuple[Entry, Episode]
Outcome = tuple[Any, float | None]
Result = TypeVar("Result")

RETRY_SECONDS: Sequence[float] = (0.5, 1, 2, 4, 8)
"""How long to wait before each repetition of a call that the database did not finish."""

_IN_THE_WAY = ("40001", "40P01")  # serialization failure and deadlock: repeat


@dataclass(slots=True)
class Written:
    """What became of a batch."""

    created: int = 0
    existing: int = 0
    updated: int = 0
    rejected: list[tuple[Line, PgrecallError]] = field(default_factory=list)


class BatchWriter:
    """Writes batches of checked lines.

    Every line has an identifier, its own or one made of its content, so that whatever broke can
    be repeated. What stands already is looked up first, so that it isn't embedded again.
    """

    def __init__(self, memory: ProjectMemory, embed: Embed) -> None:
        self._memory = memory
        self._embed = embed
        # Looking up and filling in serve imports alone, so the client has no methods for them.
        self._database = memory._scope.database  # noqa: SLF001

    def write(self, entries: Sequence[Entry]) -> Written:
        """Write a batch and return what became of it.

        Raises:
            PgrecallError: The batch could not be written, also after some time. Parts of it may
                stand already; they are found again by the next run.
        """
        written = Written()
        if not entries:
            return written
        new, known = self._sort(entries, written)
        made: set[UUID] = set()
        for entry, episode in self._record(new, written):
            # A repeated write meets what it wrote itself: our identifier tells.
            if episode.episode_id == entry.row.episode_id and episode.episode_id not in made:
                made.add(episode.episode_id)
            else:
                known.append((entry, episode))
        written.created = len(made)
        self._complete(known, written)
        return written

    def _sort(self, entries: Sequence[Entry], written: Written) -> tuple[list[Entry], list[Found]]:
        """Tell the new lines from those whose episode stands already."""
        keyed = [entry.row for entry in entries if entry.row.external_id is not None]
        parameters = {
            "episode_ids": [entry.row.episode_id for entry in entries],
            "project_ids": [row.project_id for row in keyed],
            "external_ids": [row.external_id for row in keyed],
        }
        taken = _patiently(
            lambda: self._database.fetch(
                statement("episodes", "taken"), parameters, class_row(Episode)
            )
        )
        by_id = {episode.episode_id: episode for episode in taken}
        by_key = {(episode.project_id, episode.external_id): episode for episode in taken}
        new, known = [], []
        for entry in entries:
            row = entry.row
            candidates = [by_id.get(row.episode_id)]
            if row.external_id is not None:
                candidates.append(by_key.get((row.project_id, row.external_id)))
            try:
                found = match_taken([row], [item for item in candidates if item is not None])
            except Conflict as error:
                written.rejected.append((entry.line, error))
                continue
            if episode := found.get(row.episode_id):
                known.append((entry, episode))
            else:
                new.append(entry)
        return new, known

    def _record(self, entries: Sequence[Entry], written: Written) -> Iterable[Found]:
        """Record lines, halving what is refused until the culprits stand alone."""
        if not entries:
            return []
        try:
            recorded = _patiently(
                lambda: self._memory.episodes.record_many(
                    [entry.new for entry in entries], embed=self._embed
                )
            )
        except (InvalidInput, Conflict) as error:
            if len(entries) == 1:
                written.rejected.append((entries[0].line, error))
                return []
            half = len(entries) // 2
            return [
                *self._record(entries[:half], written),
                *self._record(entries[half:], written),
            ]
        return zip(entries, recorded.episodes, strict=True)

    def _complete(self, known: Sequence[Found], written: Written) -> None:
        """Record the outcomes that lines bring and their episodes lack."""
        current: dict[UUID, Outcome] = {}
        missing: dict[UUID, Outcome] = {}
        lacking: list[Found] = []
        for entry, episode in known:
            key = episode.episode_id
            stored = current.get(key, (episode.outcome, episode.outcome_quality))
            brought = (entry.new.outcome, entry.row.outcome_quality)
            if not all(map(_agree, stored, brought)):
                written.rejected.append((entry.line, _other_outcome(stored, brought)))
                continue
            merged = _filled(stored, brought)
            if merged == stored:
                written.existing += 1
                continue
            current[key] = merged
            given = (episode.outcome, episode.outcome_quality)
            missing[key] = (
                None if given[0] is not None else merged[0],
                None if given[1] is not None else merged[1],
            )
            lacking.append((entry, episode))
        if not lacking:
            return
        filled = self._fill(missing)
        for entry, episode in lacking:
            if episode.episode_id in filled:
                written.updated += 1
            else:
                error = Conflict("its episode got another outcome or was deleted meanwhile")
                written.rejected.append((entry.line, error))

    def _fill(self, outcomes: Mapping[UUID, Outcome]) -> set[UUID]:
        parameters = {
            "episode_ids": list(outcomes),
            "outcomes": [
                None if outcome is None else json.dumps(outcome, ensure_ascii=False)
                for outcome, _ in outcomes.values()
            ],
            "qualities": [quality for _, quality in outcomes.values()],
        }
        with self._memory.metrics.measure(
            "record_outcomes", self._memory.project_id, None
        ) as measured:
            filled = _patiently(
                lambda: self._database.fetch(
                    statement("transfer", "fill_outcomes"), parameters, scalar_row, writing=True
                )
            )
            measured.results = len(filled)
        return set(filled)


def _agree(stored: Any, brought: Any) -> bool:
    return stored is None or brought is None or same_json(stored, brought)


def _filled(stored: Outcome, brought: Outcome) -> Outcome:
    outcome, quality = (
        there if here is None else here for here, there in zip(stored, brought, strict=True)
    )
    return outcome, quality


def _other_outcome(stored: Outcome, brought: Outcome) -> Conflict:
    names = ("outcome", "outcome_quality")
    differing = [
        name
        for name, here, there in zip(names, stored, brought, strict=True)
        if not _agree(here, there)
    ]
    return Conflict(
        f"its episode stands already with another {' and '.join(differing)}",
        hint="nothing was changed; an outcome that is known is replaced by record_outcome only",
    )


def _patiently(call: Callable[[], Result]) -> Result:
    """Repeat what the database did not finish, a few times; only for calls that may be repeated."""
    for seconds in RETRY_SECONDS:
        try:
            return call()
        except (Unavailable, OutcomeUnknown):
            time.sleep(seconds)
        except DatabaseError as error:
            if error.sqlstate not in _IN_THE_WAY:
                raise
            time.sleep(seconds)
    return call()
