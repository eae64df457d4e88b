"""From an episode as the caller gives it to the row that is written, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, overload
from uuid import UUID, uuid4

from pgvector import Vector

from pgrecall.core.checks import check_control_mode, check_fraction, check_time, check_uuid
from pgrecall.core.documents import check_text, from_json, same_json, to_json
from pgrecall.core.filters import scope_text
from pgrecall.core.ranking import Weights, to_evidence
from pgrecall.core.vectors import to_vector
from pgrecall.errors import Conflict, InvalidInput
from pgrecall.models import Episode, NewEpisode, Recalled

EPISODE_FIELDS = tuple(field.name for field in fields(Episode))


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRow:
    """A checked episode in the form of its columns; JSON documents are serialised text."""

    episode_id: UUID
    project_id: str
    timestamp: datetime | None
    perception: str
    reasoning: str
    action: str
    outcome: str | None
    outcome_quality: float | None
    embedding: Vector | None
    agent_version: str
    control_mode: str
    decision_source: str | None
    sprint_id: str | None
    chronicle_note_id: UUID | None
    external_id: str | None


def new_episode(project_id: str | None, values: Mapping[str, Any]) -> NewEpisode:
    """Return an episode of a project.

    Raises:
        InvalidInput: There is no project, or a value is none of an episode.
    """
    if project_id is None:
        raise InvalidInput(
            "project_id is missing", hint="give project_id=, or use memory.project(...)"
        )
    try:
        return NewEpisode(**{**values, "project_id": project_id})
    except TypeError as error:
        raise InvalidInput(f"not an episode: {error}") from error


def to_row(new: NewEpisode, *, dimensions: int, max_bytes: int) -> EpisodeRow:
    """Check every value of an episode and return its row.

    Raises:
        InvalidInput: A value cannot be stored; the message names it.
        InvalidVector: The embedding is no vector of ``dimensions`` numbers.
    """
    if not isinstance(new, NewEpisode):
        raise InvalidInput(f"expected a NewEpisode, not {type(new).__name__}")

    return EpisodeRow(
        episode_id=uuid4() if new.episode_id is None else check_uuid(new.episode_id, "episode_id"),
        project_id=check_text(new.project_id, name="project_id", max_length=50),
        timestamp=check_time(new.timestamp, "timestamp"),
        perception=to_json(new.perception, name="perception", max_bytes=max_bytes),
        reasoning=to_json(new.reasoning, name="reasoning", max_bytes=max_bytes),
        action=to_json(new.action, name="action", max_bytes=max_bytes),
        outcome=None
        if new.outcome is None
        else to_json(new.outcome, name="outcome", max_bytes=max_bytes),
        outcome_quality=check_fraction(new.outcome_quality, "outcome_quality"),
        embedding=None if new.embedding is None else to_vector(new.embedding, dimensions),
        agent_version=check_text(new.agent_version, name="agent_version", max_length=20),
        control_mode=check_control_mode(new.control_mode),
        decision_source=scope_text(new.decision_source, "decision_source"),
        sprint_id=scope_text(new.sprint_id, "sprint_id"),
        chronicle_note_id=None
        if new.chronicle_note_id is None
        else check_uuid(new.chronicle_note_id, "chronicle_note_id"),
        external_id=scope_text(new.external_id, "external_id", 200),
    )


def to_parameters(rows: Sequence[EpisodeRow]) -> dict[str, list[Any]]:
    """Return the rows as one array a column, the parameters of the statement ``record``."""
    return {
        "episode_ids": [row.episode_id for row in rows],
        "project_ids": [row.project_id for row in rows],
        "timestamps": [row.timestamp for row in rows],
        "perceptions": [row.perception for row in rows],
        "reasonings": [row.reasoning for row in rows],
        "actions": [row.action for row in rows],
        "outcomes": [row.outcome for row in rows],
        "qualities": [row.outcome_quality for row in rows],
        "embeddings": [row.embedding for row in rows],
        "agent_versions": [row.agent_version for row in rows],
        "control_modes": [row.control_mode for row in rows],
        "decision_sources": [row.decision_source for row in rows],
        "sprint_ids": [row.sprint_id for row in rows],
        "chronicle_note_ids": [row.chronicle_note_id for row in rows],
        "external_ids": [row.external_id for row in rows],
    }


def to_keys(rows: Sequence[EpisodeRow]) -> dict[str, list[Any]]:
    """Return the keys of rows that others may have written, parameters of ``record_burst``."""
    return {
        "keyed_ids": [row.episode_id for row in rows],
        "keyed_projects": [row.project_id for row in rows],
        "keyed_external_ids": [row.external_id for row in rows],
    }


def to_episode(
    row: EpisodeRow, timestamp: datetime, outcome_recorded_at: datetime | None
) -> Episode:
    """Return the episode that stands in the database now that ``row`` was written."""
    return Episode(
        episode_id=row.episode_id,
        project_id=row.project_id,
        timestamp=timestamp,
        perception=from_json(row.perception),
        reasoning=from_json(row.reasoning),
        action=from_json(row.action),
        outcome=None if row.outcome is None else from_json(row.outcome),
        outcome_quality=row.outcome_quality,
        outcome_recorded_at=outcome_recorded_at,
        agent_version=row.agent_version,
        control_mode=row.control_mode,  # type: ignore[arg-type]  # checked by to_row
        decision_source=row.decision_source,
        sprint_id=row.sprint_id,
        chronicle_note_id=row.chronicle_note_id,
        external_id=row.external_id,
        embedded=row.embedding is not None,
    )


class WrittenEpisodes(Sequence[Episode]):
    """The episodes of a bulk write in their order, each built when it is looked at.

    Most callers of a bulk write never look, and building one costs as much as checking it.
    """

    def __init__(
        self,
        rows: Sequence[EpisodeRow],
        times: Mapping[UUID, Sequence[Any]],
        standing: Mapping[UUID, Episode],
    ) -> None:
        self._rows = rows
        self._times = times
        self._standing = standing

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Episode: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Episode]: ...

    def __getitem__(self, index: int | slice) -> Episode | Sequence[Episode]:
        if isinstance(index, slice):
            return WrittenEpisodes(self._rows[index], self._times, self._standing)
        row = self._rows[index]
        if row.episode_id in self._times:
            return to_episode(row, *self._times[row.episode_id])
        return self._standing[row.episode_id]


def match_taken(rows: Sequence[EpisodeRow], taken: Iterable[Episode]) -> dict[UUID, Episode]:
    """Return, by the identifier of each row that was not written, the episode that stands there.

    An episode is the same if what was perceived, reasoned and done is the same; its outcome may
    have been recorded since.

    Raises:
        Conflict: What stands there under the same identifier is something else.
    """
    by_id: dict[UUID, Episode] = {}
    by_external: dict[tuple[str, str], Episode] = {}
    for episode in taken:
        by_id[episode.episode_id] = episode
        if episode.external_id is not None:
            by_external[episode.project_id, episode.external_id] = episode
    found: dict[UUID, Episode] = {}
    for row in rows:
        standing = by_external.get((row.project_id, row.external_id or "")) or by_id.get(
            row.episode_id
        )
        if standing is None:
            continue
        _refuse_other_content(row, standing)
        found[row.episode_id] = standing
    return found


def _refuse_other_content(row: EpisodeRow, standing: Episode) -> None:
    differing = [
        name
        for name in ("perception", "reasoning", "action")
        if not same_json(getattr(standing, name), from_json(getattr(row, name)))
    ]
    if row.project_id != standing.project_id:
        differing.insert(0, "project_id")
    if differing:
        named = (
            f"external_id {row.external_id!r} of project {row.project_id!r}"
            if row.external_id is not None
            else f"episode_id {row.episode_id}"
        )
        raise Conflict(
            f"{named} already stands for another episode: {', '.join(differing)} differ",
            hint="nothing was changed; give another identifier, or record the same content",
        )


def beside(hits: Iterable[Recalled], rows: Iterable[Sequence[Any]]) -> Iterable[Recalled]:
    """Return hits with the episodes of rows: whose neighbour it is, then its columns."""
    near: dict[UUID, list[Episode]] = {}
    for of, *columns in rows:
        episode = Episode(**dict(zip(EPISODE_FIELDS, columns, strict=True)))
        near.setdefault(of, []).append(episode)
    return [replace(hit, neighbours=tuple(near.get(hit.episode.episode_id, ()))) for hit in hits]


def to_recalled(values: Sequence[Any], weights: Weights) -> Recalled:
    """Return a hit from a row of ``recall``: the columns, then the terms of its score."""
    (*columns, similarity, worth, recency, score, repeats,
     relevance, words, lent, evidence, account) = values  # fmt: skip
    return Recalled(
        episode=Episode(**dict(zip(EPISODE_FIELDS, columns, strict=True))),
        similarity=similarity,
        score=score,
        repeats=tuple(repeats),
        terms=None
        if account is None
        else weights.terms(relevance, worth, recency, to_evidence(words, lent, evidence)),
    )
