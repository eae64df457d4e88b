"""Which embedder a client uses with a database."""

from __future__ import annotations

from pgrecall.embedding.base import Embedder
from pgrecall.embedding.registry import get_embedder
from pgrecall.errors import ConfigurationError

BUILTIN_DIMENSIONS = 384


def choose_embedder(wanted: Embedder | str | None, dimensions: int) -> Embedder:
    """Return the embedder that was asked for, or the one that fits the database.

    Raises:
        ConfigurationError: Its vectors have another length than the database's.
        MissingExtra: Its packages are not installed.
    """
    if wanted is None:
        wanted = "builtin" if dimensions == BUILTIN_DIMENSIONS else "none"
    embedder = get_embedder(wanted, dimensions=dimensions) if isinstance(wanted, str) else wanted
    if embedder.dimensions != dimensions:
        raise ConfigurationError(
            f"the embedder {embedder.identity} makes vectors of {embedder.dimensions} dimensions, "
            f"the database holds vectors of {dimensions}",
            hint="set PGRECALL_EMBEDDER to an embedder of that dimension, or to `none` and bring "
            "the vectors yourself",
        )
    return embedder
