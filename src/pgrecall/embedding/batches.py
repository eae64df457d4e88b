"""Embedding many texts, some of which may be bad."""

from __future__ import annotations

from collections.abc import Sequence

from pgrecall.embedding.base import Embedder, Mode
from pgrecall.errors import EmbeddingRefused
from pgrecall.models import VectorLike

# So that little is embedded anew for a text that is refused.
MOST_TEXTS = 64


def embed_each(
    embedder: Embedder, texts: Sequence[str], mode: Mode = "document"
) -> list[VectorLike | EmbeddingRefused]:
    """Return for each text its vector, or the reason why it gets none.

    A text that is refused takes no other with it: where the provider does not say which it is, it
    is found by halving. For other failures nothing is halved, as they would hit all texts alike.

    Args:
        embedder: What makes the vectors.
        texts: In any number.
        mode: Whether they are documents or queries.

    Raises:
        EmbedderUnavailable: The provider is down, slow or refuses for now.
        EmbeddingError: The provider cannot be used.
    """
    found: dict[int, VectorLike | EmbeddingRefused] = {}
    left = [
        list(range(start, min(start + MOST_TEXTS, len(texts))))
        for start in range(0, len(texts), MOST_TEXTS)
    ]
    while left:
        places = left.pop()
        try:
            vectors = embedder.embed([texts[place] for place in places], mode)
        except EmbeddingRefused as refused:
            if len(places) == 1:
                refused.index = places[0]
                found[places[0]] = refused
                continue
            if refused.index is not None and 0 <= refused.index < len(places):
                # Once more by itself, so that its message does not tell its place in a batch.
                bad = places.pop(refused.index)
                left += [[bad], places]
            else:
                half = len(places) // 2
                left += [places[:half], places[half:]]
        else:
            found.update(zip(places, vectors, strict=True))
    return [found[place] for place in range(len(texts))]
