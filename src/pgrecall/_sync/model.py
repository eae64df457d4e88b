# Generated from pgrecall/_async/model.py by tools/unasync.py. Do not edit.
"""The model of a client: what turns its texts into vectors, and which of the database's that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Self

from psycopg.rows import class_row, scalar_row

from pgrecall._sync.database import Database
from pgrecall._sync.runtime import Lock, call_blocking
from pgrecall.config import Settings
from pgrecall.driver.facts import Served
from pgrecall.embedding.base import Embedder, revision_of
from pgrecall.embedding.choice import Chosen, choose_embedder
from pgrecall.embedding.rendering import Renderer
from pgrecall.errors import (
    ConfigurationError,
    PermissionDenied,
    PgrecallError,
    ReadOnlyServer,
)
from pgrecall.sql import load


class Model:
    """Embedder and renderer of a client, which follow the database when its model is changed.

    Attributes:
        now: What they are at present, as one value, since it may change during a call.
    """

    def __init__(self, database: Database, chosen: Chosen) -> None:
        self.now = chosen
        self._database = database
        self._lock = Lock()
        self._told: int | None = None  # of which model the revision was looked at

    @classmethod
    def open(
        cls, database: Database, wanted: Embedder | str | None, renderer: Renderer
    ) -> Self:
        """Choose the embedder, and say in the database what its vectors are of if nobody did.

        Raises:
            ConfigurationError: The embedder or the renderer is not the database's.
            MissingExtra: Its packages are not installed.
        """
        served = database.facts.served
        embedder, name = call_blocking(
            choose_embedder, wanted, served, renderer.name, database.settings
        )
        model = cls(database, Chosen(embedder, renderer, served))
        unsaid = served.identity is None or (served.embedder is None and name is not None)
        if embedder.available and unsaid and not database.facts.in_recovery:
            model._say(name)
        return model

    def _say(self, name: str | None) -> None:
        embedder, renderer = self.now.embedder, self.now.renderer
        try:
            served = self._say_apart(self.now.naming(name, None))
        except (PermissionDenied, ReadOnlyServer):
            return  # who may only read leaves it to those who write
        # Another may have been faster.
        call_blocking(choose_embedder, embedder, served, renderer.name)
        self.now = Chosen(embedder, renderer, served)

    def tell_revision(self, chosen: Chosen) -> None:
        """Say of which revision the weights are, once they have embedded, if nobody did so far.

        Raises:
            ConfigurationError: Another was faster, and its weights are others.
        """
        if chosen.served.revision is not None or self._told == chosen.served.number:
            return
        self._told = chosen.served.number
        revision = call_blocking(revision_of, chosen.embedder)
        if revision is None or self._database.facts.in_recovery:
            return
        try:
            served = self._say_apart(chosen.naming(None, revision))
        except (PermissionDenied, ReadOnlyServer):
            return  # who may only read leaves it to those who write
        if self.now is chosen and served.number == chosen.served.number:
            self.now = replace(chosen, served=served)
            call_blocking(self.now.check_revision)

    def _say_apart(self, values: Mapping[str, str | None]) -> Served:
        """Say it once in the life of a database, past the pool, which is for the agent's calls."""
        apart = self._database.aside(always=True)
        try:
            statements = load("connection")
            apart.fetch(statements["name_model"], values, scalar_row, writing=True)
            rows = apart.fetch(statements["model"], {}, class_row(Served))
        finally:
            apart.close()
        return rows[0]

    def _look(self) -> Served:
        rows = self._database.fetch(load("connection")["model"], {}, class_row(Served))
        return rows[0]

    def follow(self, number: int) -> bool:
        """Take the database's model if it is another than that of the number; says whether it is.

        Raises:
            ConfigurationError: It is, and its embedder or renderer cannot be had here.
        """
        with self._lock:
            if self.now.served.number == number:
                served = self._look()
                if served.number == number:
                    return False
                self.now = call_blocking(_follower, self.now, served, self._database.settings)
        return True


def _follower(before: Chosen, served: Served, settings: Settings) -> Chosen:
    """Return what makes vectors of another model."""
    if not before.embedder.available:
        return Chosen(before.embedder, before.renderer, served)
    try:
        renderer = Renderer.named(served.renderer)
        embedder, _ = choose_embedder(served.embedder, served, renderer.name, settings)
    except PgrecallError as error:
        raise ConfigurationError(
            f"the database has changed to the embedding model {served.identity}, which cannot be "
            f"had here: {error.message}",
            hint=error.hint or "open the memory anew, with that embedder",
        ) from error
    if not embedder.available:
        raise ConfigurationError(
            f"the database has changed to the embedding model {served.identity}",
            hint="open the memory anew, with that embedder",
        )
    return Chosen(embedder, renderer, served)
