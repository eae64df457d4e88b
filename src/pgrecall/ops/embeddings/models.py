"""The models of a database, and what makes their vectors here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, TypeAlias

from pgrecall.config import Settings
from pgrecall.driver import Statements
from pgrecall.driver.facts import Served
from pgrecall.embedding.base import revision_of
from pgrecall.embedding.choice import Chosen, choose_embedder
from pgrecall.embedding.rendering import Renderer
from pgrecall.errors import ConfigurationError
from pgrecall.sql import load

Storage: TypeAlias = Literal["vector", "halfvec"]
"""How the values of vectors are stored: in single precision, or in half."""

MOST_DIMENSIONS: dict[Storage, int] = {"vector": 2000, "halfvec": 4000}
"""What an HNSW index of pgvector holds at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model of the database: that which serves, or that which stands beside it.

    Attributes:
        number: Its number.
        dimensions: Length of its vectors.
        storage: How their values are stored.
        identity: Provider and model; None where nobody said so far.
        revision: Of its weights; None where nobody could tell so far.
        embedder: By which name the embedder is had; None if only as an object.
        renderer: What makes the texts that are embedded.
        serving: Whether recalls search its vectors.
        queued: Whether all rows were queued for it, as a change of model does.
        coded: Whether every vector has its code.
        copied: Whether the vectors of this model and of the one beside it are copies of each other,
            in another storage.
        served_at: When it took over; None for the first.
    """

    number: int
    dimensions: int
    storage: Storage
    identity: str | None
    revision: str | None
    embedder: str | None
    renderer: str | None
    serving: bool
    queued: bool
    coded: bool
    copied: bool
    served_at: datetime | None

    @property
    def title(self) -> str:
        """What tells it from others."""
        return title_of(self.identity, self.revision, self.storage)

    @property
    def served(self) -> Served:
        """The same as clients know it."""
        return Served(
            number=self.number,
            dimensions=self.dimensions,
            identity=self.identity,
            revision=self.revision,
            embedder=self.embedder,
            renderer=self.renderer,
        )


def title_of(identity: str | None, revision: str | None, storage: Storage) -> str:
    """Return a model's name for people: with revision and storage where they say something."""
    name = identity or "vectors that callers bring"
    if revision is not None:
        name += f" at {revision}"
    return name if storage == "vector" else f"{name} in {storage}"


def all_models(run: Statements) -> list[Model]:
    """Return the models of a database, first that which serves; a sound one has one or two."""
    return [Model(**row) for row in run.rows("models")]


def models(run: Statements) -> tuple[Model, Model | None]:
    """Return the model that serves, and the one beside it."""
    found = all_models(run)
    return found[0], found[1] if len(found) > 1 else None


def maker(run: Statements, model: Model, settings: Settings) -> Chosen:
    """Return what makes the vectors of a model; says what it is where nobody did so far.

    Raises:
        ConfigurationError: It cannot be had by a name, or not here.
        MissingExtra: Its packages are not installed.
    """
    if model.identity is not None:
        if model.embedder is None:
            wanted = settings.embedder
            if wanted is None:
                raise ConfigurationError(
                    f"the vectors of {model.identity} are made by an object of the clients' own",
                    hint="name it: --embedder python:MODULE:FACTORY",
                )
        else:
            wanted = model.embedder
        renderer = Renderer.named(model.renderer)
        embedder, _ = choose_embedder(wanted, model.served, renderer.name, settings)
    elif not model.serving:
        raise ConfigurationError(
            "what made the vectors that served before is not known, so no more can be made",
            hint="open the memory with the embedder that made them, before it is changed",
        )
    else:
        renderer = Renderer.of(settings.renderer)
        embedder, name = choose_embedder(settings.embedder, model.served, renderer.name, settings)
        if embedder.available:
            _name(run, Chosen(embedder, renderer, model.served), name)
    if not embedder.available:
        raise ConfigurationError(
            "this memory has no embedder, so there is nothing that could make vectors",
            hint="name one, such as --embedder builtin",
        )
    return Chosen(embedder, renderer, model.served)


def tell_revision(run: Statements, chosen: Chosen) -> Chosen:
    """Say of which revision the weights are that have embedded, if nobody did so far."""
    if chosen.served.revision is not None or revision_of(chosen.embedder) is None:
        return chosen
    _name(run, chosen, None)
    return replace(chosen, served=replace(chosen.served, revision=revision_of(chosen.embedder)))


def _name(run: Statements, chosen: Chosen, embedder: str | None) -> None:
    values = chosen.naming(embedder, revision_of(chosen.embedder))
    run.connection.execute(load("connection")["name_model"], values)
