# Generated from pgrecall/_async/recorder.py by tools/unasync.py. Do not edit.
"""Recording: from episodes as callers give them to rows with vectors, each written once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.errors import UniqueViolation
from psycopg.rows import class_row, tuple_row

from pgrecall._sync.scope import Scope
from pgrecall.core.checks import check_embed
from pgrecall.core.episode_rows import (
    EpisodeRow,
    WrittenEpisodes,
    match_taken,
    to_keys,
    to_parameters,
    to_row,
)
from pgrecall.embedding.choice import Chosen
from pgrecall.errors import Conflict, InvalidInput, ModelChanged
from pgrecall.models import Embed, Episode, NewEpisode, RecordedMany
from pgrecall.sql import statement
from pgrecall.telemetry.operations import Operation


class Recorder:
    """Writes episodes; the part of the episode store behind ``record`` and ``record_many``."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._database = scope.database

    def embedded(self, episodes: Sequence[NewEpisode]) -> Sequence[NewEpisode]:
        """Return checked episodes with their vectors.

        Raises:
            InvalidInput: A value cannot be stored.
            EmbeddingError: The text could not be embedded.
        """
        rows = self._rows(episodes)
        made = self._embedded(episodes, rows, self._scope.model.now, "now", None)
        return [
            replace(episode, embedding=row.embedding)
            for episode, row in zip(episodes, made, strict=True)
        ]

    def write(
        self,
        episodes: Sequence[NewEpisode],
        embed: Embed | None,
        burst: bool,
        connection: Connection[Any] | None,
        operation: Operation,
    ) -> RecordedMany:
        """Write episodes in one statement, and tell new ones from those that stood already.

        In a burst they are written beside the vector index, and enter it later.

        Raises:
            InvalidInput: A value cannot be stored; the message names its episode.
            Conflict: An identifier stands for something else; nothing was written.
            OutcomeUnknown: The connection broke while they were written.
        """
        embed = self._scope.embed_when if embed is None else check_embed(embed)
        raced = False
        while True:
            rows = self._rows(episodes)
            operation.project_id = rows[0].project_id
            for row in rows:
                self._scope.project(row.project_id)
            if connection is not None:
                self._refuse_embedding(rows, embed)
            # Keys that are made here are new; under one of the caller's a row may stand already.
            given = [e.episode_id is not None or e.external_id is not None for e in episodes]
            chosen = self._scope.model.now
            try:
                embedded = self._embedded(episodes, rows, chosen, embed, operation)
                # Only vectors that were made here are known to be of this model.
                number = None if embedded is rows else chosen.served.number
                recorded = self._insert(
                    embedded, number, connection, given if burst else None
                )
                break
            except Conflict as error:
                # A burst brought the same key while this waited for it; now it can be seen.
                if raced or not isinstance(error.__cause__, UniqueViolation):
                    raise
                raced = True
            except ModelChanged:
                if not self._scope.model.follow(chosen.served.number):
                    raise
        operation.results = recorded.created
        return recorded

    def _refuse_embedding(self, rows: Sequence[EpisodeRow], embed: Embed) -> None:
        waiting = embed == "now" and self._scope.embedder.available
        if waiting and any(row.embedding is None for row in rows):
            raise InvalidInput(
                "no text can be embedded while your transaction waits",
                hint="make the episode with prepare() before, or give embedding= or embed='later'",
            )

    def _rows(self, episodes: Sequence[NewEpisode]) -> Sequence[EpisodeRow]:
        rows = []
        max_bytes = self._database.settings.max_document_bytes
        for position, episode in enumerate(episodes):
            try:
                rows.append(to_row(episode, dimensions=self._scope.dimensions, max_bytes=max_bytes))
            except InvalidInput as error:
                if len(episodes) == 1:
                    raise
                raise type(error)(
                    f"episode {position}: {error.message}", hint=error.hint
                ) from error
        return rows

    def _embedded(
        self,
        episodes: Sequence[NewEpisode],
        rows: Sequence[EpisodeRow],
        chosen: Chosen,
        embed: Embed,
        operation: Operation | None,
    ) -> Sequence[EpisodeRow]:
        """Return the rows with the vectors that were not given, or the rows if all were."""
        embedder = chosen.embedder
        missing = [i for i, row in enumerate(rows) if row.embedding is None]
        if embed == "later" or not embedder.available or not missing:
            return rows
        texts = {
            i: chosen.renderer.render(
                episodes[i].perception,
                episodes[i].reasoning,
                episodes[i].action,
                max_tokens=embedder.max_tokens,
            )
            for i in missing
        }
        # An episode of which nothing can be said has no vector: no query is like it.
        said = [i for i in missing if texts[i].strip()]
        if not said:
            return rows
        embedded = [*rows]
        vectors = self._scope.embed([texts[i] for i in said], "document", operation, chosen)
        for i, vector in zip(said, vectors, strict=True):
            embedded[i] = replace(rows[i], embedding=vector)
        return embedded

    def _insert(
        self,
        rows: Sequence[EpisodeRow],
        model: int | None,
        connection: Connection[Any] | None,
        given: Sequence[bool] | None,
    ) -> RecordedMany:
        insert = statement("episodes", "record" if given is None else "record_burst")
        values = {**to_parameters(rows), "model": model}
        if given is not None:
            values |= to_keys([row for row, is_given in zip(rows, given, strict=True) if is_given])
        if len(rows) == 1:
            written = self._database.fetch(
                insert, values, tuple_row, connection=connection, writing=True
            )
            standing = self._standing(rows, written, connection)
        else:
            with self._database.transaction(connection) as lent:
                written = self._database.run(lent, insert, values, tuple_row)
                standing = self._standing(rows, written, lent)
        times = {episode_id: rest for episode_id, *rest in written}
        return RecordedMany(
            episodes=WrittenEpisodes(rows, times, standing),
            created=len(written),
            existing=len(rows) - len(written),
        )

    def _standing(
        self,
        rows: Sequence[EpisodeRow],
        written: Sequence[tuple[Any, ...]],
        connection: Connection[Any] | None,
    ) -> Mapping[UUID, Episode]:
        """Return the episodes that stand where rows could not be written."""
        if len(written) == len(rows):
            return {}
        new = {values[0] for values in written}
        refused = [row for row in rows if row.episode_id not in new]
        keyed = [row for row in refused if row.external_id is not None]
        taken = self._database.fetch(
            statement("episodes", "taken"),
            {
                "episode_ids": [row.episode_id for row in refused],
                "project_ids": [row.project_id for row in keyed],
                "external_ids": [row.external_id for row in keyed],
            },
            class_row(Episode),
            connection=connection,
        )
        standing = match_taken(refused, taken)
        for row in refused:
            if row.episode_id not in standing:
                raise Conflict(
                    f"external_id {row.external_id!r} was taken and has just been deleted",
                    hint="nothing was written; repeat the call",
                )
        return standing
