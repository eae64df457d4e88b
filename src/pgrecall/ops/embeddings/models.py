"""The models of a database, and what makes their vectors here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pgrecall.config import Settings
from pgrecall.driver import Statements
from pgrecall.driver.facts import Served
from pgrecall.embedding.choice import Chosen, choose_embedder
from pgrecall.embedding.rendering import Renderer
from pgrecall.errors import ConfigurationError
from pgrecall.sql import load


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model of the database: that which serves, or that which stands beside it.

    Attributes:
        number: Its number.
        dimensions: Length of its vectors.
        identity: Provider, model and revision; None where nobody said so far.
        embedder: By which name the embedder is had; None if only as an object.
        renderer: What makes the texts that are embedded.
        serving: Whether recalls search its vectors.
        queued: Whether all rows were queued for it, as a change of model does.
        coded: Whether every vector has its code.
        served_at: When it took over; None for the first.
    """

    number: int
    dimensions: int
    identity: str | None
    embedder: str | None
    renderer: str | None
    serving: bool
    queued: bool
    coded: bool
    served_at: datetime | None

    @property
    def served(self) -> Served:
        """The same as clients know it."""
        return Served(
            number=self.number,
            dimensions=self.dimensions,
            identity=self.identity,
            embedder=self.embedder,
            renderer=self.renderer,
        )


def models(run: Statements) -> tuple[Model, Model | None]:
    """Return the model that serves, and the one beside it."""
    found = [Model(**row) for row in run.rows("models")]
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
            values = {"identity": embedder.identity, "embedder": name, "renderer": renderer.name}
            run.connection.execute(load("connection")["name_model"], values)
    if not embedder.available:
        raise ConfigurationError(
            "this memory has no embedder, so there is nothing that could make vectors",
            hint="name one, such as --embedder builtin",
        )
    return Chosen(embedder, renderer, model.served)
