"""What the memory needs of an embedder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from pgrecall.models import Json, VectorLike

Mode: TypeAlias = Literal["document", "query"]


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors. Calls may block; the async client runs them in a thread.

    Where the same name can come to stand for other weights, an embedder has an attribute
    ``revision`` as well: a string that tells one from the other, or None while it cannot tell. It
    is read after texts were embedded.

    Attributes:
        identity: Provider and model in one stable string, such as
            ``"builtin:all-MiniLM-L6-v2-int8"``.
        dimensions: Length of every vector it returns.
        max_tokens: How much of a text it reads; the rest has no influence.
        available: False for ``none``, which makes no vectors: callers bring them.
    """

    @property
    def identity(self) -> str:
        """Provider and model."""
        ...

    @property
    def dimensions(self) -> int:
        """Length of every vector."""
        ...

    @property
    def max_tokens(self) -> int:
        """Tokens read of each text."""
        ...

    @property
    def available(self) -> bool:
        """Whether it can make vectors at all."""
        ...

    def embed(self, texts: Sequence[str], mode: Mode = "document") -> Sequence[VectorLike]:
        """Return one vector of ``dimensions`` floats (unit length) for each text, in order.

        Raises:
            EmbeddingError: The texts could not be embedded.
        """
        ...


def revision_of(embedder: Embedder) -> str | None:
    """Return of which revision an embedder's weights are; None where it does not tell."""
    return getattr(embedder, "revision", None)


class RenderEpisode(Protocol):
    """Makes the text of an episode that is embedded; ``core.text.render_episode`` is the usual one.

    It must depend on its arguments alone, and never on the outcome, which is unknown at recall.
    """

    def __call__(
        self, perception: Json, reasoning: Json, action: Json, *, max_tokens: int = 256
    ) -> str:
        """Return a text of at most about ``max_tokens`` tokens."""
        ...
