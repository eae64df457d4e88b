"""Which embedder a client uses with a database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pgrecall.config import Settings
from pgrecall.driver.facts import Served
from pgrecall.embedding.base import Embedder, Mode, revision_of
from pgrecall.embedding.registry import get_embedder
from pgrecall.embedding.rendering import Renderer
from pgrecall.errors import ConfigurationError, RevisionMismatch
from pgrecall.models import VectorLike

BUILTIN_DIMENSIONS = 384


@dataclass(frozen=True, slots=True)
class Chosen:
    """What makes a client's vectors, and the model of the database that they are of."""

    embedder: Embedder
    renderer: Renderer
    served: Served

    def embed(self, texts: Sequence[str], mode: Mode) -> Sequence[VectorLike]:
        """Return the vectors of texts.

        Raises:
            EmbeddingError: The embedder failed.
            RevisionMismatch: Its weights are not those that made the database's vectors.
        """
        vectors = self.embedder.embed(texts, mode)
        self.check_revision()
        return vectors

    def naming(self, embedder: str | None, revision: str | None) -> dict[str, str | None]:
        """Return what the statement ``name_model`` takes: what makes the database's vectors."""
        return {
            "identity": self.embedder.identity,
            "embedder": embedder,
            "renderer": self.renderer.name,
            "revision": revision,
        }

    def check_revision(self) -> None:
        """Refuse weights that are not those of the database, though they bear the same name.

        Raises:
            RevisionMismatch: They are others.
        """
        found, wanted = revision_of(self.embedder), self.served.revision
        if found is not None and wanted is not None and found != wanted:
            raise RevisionMismatch(
                f"the database's vectors are of {self.served.identity} at revision {wanted}, and "
                f"what bears that name here is revision {found}; the two don't compare",
                hint="get the old weights back, or make the vectors anew with "
                f"`pgrecall embeddings switch --to {self.served.embedder or 'EMBEDDER'}`",
            )


def choose_embedder(
    wanted: Embedder | str | None,
    served: Served,
    renderer: str,
    settings: Settings | None = None,
) -> tuple[Embedder, str | None]:
    """Return the embedder that was asked for, or the database's, and by which name it is had.

    Args:
        wanted: A provider's name or an object; None takes what the database names.
        served: The database's model.
        renderer: What makes the texts here.
        settings: How long to wait for a provider; None reads the environment.

    Raises:
        ConfigurationError: It is not the one that the database's vectors are of.
        MissingExtra: Its packages are not installed.
    """
    if wanted is None:
        wanted = served.embedder or _usual(served)
    name = wanted if isinstance(wanted, str) else None
    dimensions = served.dimensions
    embedder = _named(wanted, dimensions, settings) if isinstance(wanted, str) else wanted
    if embedder.available and served.identity is not None:
        _check_same(embedder, renderer, served)
    if embedder.dimensions != dimensions:
        raise ConfigurationError(
            f"the embedder {embedder.identity} makes vectors of {embedder.dimensions} dimensions, "
            f"the database holds vectors of {dimensions}",
            hint="set PGRECALL_EMBEDDER to an embedder of that dimension, or to `none` and bring "
            "the vectors yourself; `pgrecall embeddings switch` changes the database's",
        )
    return embedder, name


def _named(name: str, dimensions: int, settings: Settings | None) -> Embedder:
    return get_embedder(name, dimensions=dimensions, settings=settings)


def _usual(served: Served) -> str:
    """Return the embedder of a database that names none."""
    unnamed = served.identity is None or served.identity.startswith("builtin:")
    return "builtin" if unnamed and served.dimensions == BUILTIN_DIMENSIONS else "none"


def _check_same(embedder: Embedder, renderer: str, served: Served) -> None:
    if embedder.identity != served.identity:
        remedy = (
            f"unset PGRECALL_EMBEDDER or set it to {served.embedder}"
            if served.embedder
            else "open it with that embedder"
        )
        raise ConfigurationError(
            f"the database's vectors are of {served.identity}, this client's would be of "
            f"{embedder.identity}, and the two don't compare",
            hint=f"{remedy}; or change the database's with `pgrecall embeddings switch`",
        )
    if renderer != served.renderer:
        raise ConfigurationError(
            f"the database's vectors are of texts made by {served.renderer}, this client's would "
            f"be made by {renderer}",
            hint="open it with that renderer (PGRECALL_RENDERER, render=); or change the "
            "database's with `pgrecall embeddings switch`",
        )
