"""No embedder: callers bring their own vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pgrecall.embedding.base import Mode
from pgrecall.errors import ConfigurationError, EmbeddingError
from pgrecall.models import VectorLike

DEFAULT_DIMENSIONS = 1536
# pgvector builds no HNSW index with more: 2000 in single precision, 4000 in half.
MAX_DIMENSIONS = 4000


@dataclass(frozen=True, slots=True)
class NoEmbedder:
    """Stands where an embedder would, and only knows the length of the vectors.

    Attributes:
        dimensions: Length of every vector that callers bring.

    Raises:
        ConfigurationError: ``dimensions`` is not a whole number from 1 to 4000.
    """

    dimensions: int = DEFAULT_DIMENSIONS

    def __post_init__(self) -> None:
        given = self.dimensions
        if type(given) is not int or not 1 <= given <= MAX_DIMENSIONS:
            raise ConfigurationError(
                f"vectors cannot have {given!r} dimensions",
                hint=f"choose a whole number from 1 to {MAX_DIMENSIONS}",
            )

    @property
    def identity(self) -> str:
        """Always ``"none"``."""
        return "none"

    @property
    def max_tokens(self) -> int:
        """0: it reads no text."""
        return 0

    @property
    def available(self) -> bool:
        """False: it makes no vectors."""
        return False

    def embed(self, texts: Sequence[str], mode: Mode = "document") -> Sequence[VectorLike]:  # noqa: ARG002
        """Refuse, as there is nothing to embed with.

        Raises:
            EmbeddingError: Always.
        """
        raise EmbeddingError(
            "no embedder is configured, so text cannot be turned into a vector",
            hint="pass embedding=, or configure an embedder such as PGRECALL_EMBEDDER=builtin",
        )
