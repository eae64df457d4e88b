"""The model that a change is to lead to."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pgrecall.config import Settings
from pgrecall.core.vectors import to_vector
from pgrecall.embedding.base import revision_of
from pgrecall.embedding.choice import Chosen
from pgrecall.embedding.registry import get_embedder
from pgrecall.embedding.rendering import Renderer
from pgrecall.errors import OperationRefused
from pgrecall.ops.embeddings.models import MOST_DIMENSIONS, Model, Storage, title_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What makes the new vectors, and how they are stored.

    Attributes:
        embedder: By which name it is had.
        copied: Whether they are those that serve, in another storage.
        chosen: What makes them; None where they are copied.
    """

    identity: str | None
    revision: str | None
    embedder: str | None
    renderer: str | None
    dimensions: int
    storage: Storage
    copied: bool
    chosen: Chosen | None

    @property
    def title(self) -> str:
        """What tells it from others."""
        return title_of(self.identity, self.revision, self.storage)

    def is_of(self, model: Model) -> bool:
        """Return whether it is a model of the database."""
        return self.made_like(model) and model.storage == self.storage

    def made_like(self, model: Model) -> bool:
        """Return whether a model's vectors are made by the same."""
        return (
            self.identity == model.identity
            and (model.renderer or self.renderer) == self.renderer
            and (self.revision is None or model.revision in (None, self.revision))
        )

    def maker_of(self, model: Model) -> Chosen | None:
        """Return what makes the vectors of the model that was begun for it."""
        if self.chosen is None or self.copied:
            return None
        return Chosen(self.chosen.embedder, self.chosen.renderer, model.served)

    def values(self) -> dict[str, object]:
        """Return what the database is to know of it."""
        return {
            "identity": self.identity,
            "revision": self.revision,
            "embedder": self.embedder,
            "renderer": self.renderer,
            "dimensions": self.dimensions,
            "storage": self.storage,
            "copied": self.copied,
        }


def want(
    serving: Model,
    to: str | None,
    renderer: str | None,
    storage: Storage | None,
    settings: Settings,
) -> Wanted:
    """Return what is wanted, from what was said.

    Args:
        serving: The model that serves, of which what was not said is taken.
        to: The embedder's name.
        renderer: What makes the texts.
        storage: How values are stored.
        settings: How long to wait for a provider.

    Raises:
        OperationRefused: It makes no vectors, or too long ones.
        ConfigurationError: It cannot be had.
        EmbeddingError: It cannot embed.
    """
    stored = storage or serving.storage
    if to is None and renderer is None:
        wanted = Wanted(
            identity=serving.identity,
            revision=serving.revision,
            embedder=serving.embedder,
            renderer=serving.renderer,
            dimensions=serving.dimensions,
            storage=stored,
            copied=True,
            chosen=None,
        )
    else:
        wanted = _made(serving, to or serving.embedder, renderer, stored, settings)
    most = MOST_DIMENSIONS[stored]
    if wanted.dimensions > most:
        raise OperationRefused(
            f"{wanted.identity} makes vectors of {wanted.dimensions} dimensions, and an index of "
            f"{stored} holds {most} at most",
            hint="add --storage halfvec"
            if wanted.dimensions <= MOST_DIMENSIONS["halfvec"]
            else "ask for fewer, as in openai:text-embedding-3-large@1536",
        )
    return wanted


def _made(
    serving: Model, to: str | None, renderer: str | None, storage: Storage, settings: Settings
) -> Wanted:
    if to is None:
        raise OperationRefused(
            "the embedder of this memory has no name", hint="name it with --to EMBEDDER"
        )
    embedder = get_embedder(to, settings=settings)
    if not embedder.available:
        raise OperationRefused(f"{to!r} makes no vectors", hint="name an embedder, such as builtin")
    made = Renderer.named(renderer or serving.renderer)
    # One text now, rather than a failure after the columns were made.
    (vector,) = embedder.embed(["a first text"], "document")
    to_vector(vector, embedder.dimensions)
    wanted = Wanted(
        identity=embedder.identity,
        revision=revision_of(embedder),
        embedder=to,
        renderer=made.name,
        dimensions=embedder.dimensions,
        storage=storage,
        copied=False,
        chosen=Chosen(embedder, made, serving.served),
    )
    return replace(wanted, copied=wanted.made_like(serving))
