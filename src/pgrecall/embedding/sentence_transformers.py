"""Models on this machine, by sentence-transformers."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sentence_transformers import (  # type: ignore[import-not-found,unused-ignore]
    SentenceTransformer,
)

from pgrecall.embedding.answers import check_text, unit_vectors
from pgrecall.embedding.base import Mode
from pgrecall.embedding.known import DEFAULT_TOKENS, known
from pgrecall.embedding.perprocess import PerProcess
from pgrecall.errors import EmbeddingError, EmbeddingRefused
from pgrecall.models import VectorLike

# The tokenizer would read megabytes to the end before it cuts them.
_CHARACTERS_PER_TOKEN = 16

# Processes that have loaded a model: this one, and those it was forked from.
_loaded_by: set[int] = set()


@dataclass(slots=True)
class _Loaded:
    model: Any
    # Its tokenizer cannot be used by two threads at once.
    lock: threading.Lock = field(default_factory=threading.Lock)


class SentenceTransformerEmbedder:
    """Embeds text with a model of sentence-transformers. Safe to share between threads and forks.

    It is loaded with the first text, once a process (after a fork with one thread, as torch's own
    don't survive that), from the path or the cache of the Hugging
    Face hub, or else from there; ``HF_HUB_OFFLINE=1`` keeps it from asking.

    Args:
        model: Its name on the hub, or the path of its directory.
        expected: The length of its vectors if nothing else tells; None loads the model to see.
    """

    def __init__(self, model: str, *, expected: int | None = None) -> None:
        self.model = model
        self._known = known(model)
        self._width = self._known.dimensions or expected
        self._loaded = PerProcess(lambda: _Loaded(_load(model)))

    def __repr__(self) -> str:
        return f"<SentenceTransformerEmbedder {self.identity}>"

    @property
    def identity(self) -> str:
        """Provider and model."""
        return f"sentence-transformers:{self.model}"

    @property
    def revision(self) -> str | None:
        """The hub's commit that the model is of; None for a directory."""
        config = getattr(self._loaded.get().model[0], "auto_model", None)
        commit = getattr(getattr(config, "config", None), "_commit_hash", None)
        return None if commit is None else str(commit)

    @property
    def dimensions(self) -> int:
        """Length of every vector; a model that is not known is loaded to see.

        Raises:
            EmbeddingError: It cannot be loaded.
        """
        if self._width is None:
            self._width = len(self.embed(["hello"])[0])  # type: ignore[arg-type]
        return self._width

    @property
    def max_tokens(self) -> int:
        """Tokens read of each text, which the model's own files say.

        Raises:
            EmbeddingError: It cannot be loaded.
        """
        return int(self._loaded.get().model.max_seq_length or DEFAULT_TOKENS)

    @property
    def available(self) -> bool:
        """True: it makes vectors."""
        return True

    def embed(self, texts: Sequence[str], mode: Mode = "document") -> Sequence[VectorLike]:
        """Return one unit vector (``numpy.ndarray``, float32) for each text, in order.

        Raises:
            EmbeddingRefused: A text is empty, no string or no valid Unicode, or the model gives it
                no direction.
            EmbeddingError: The model cannot be loaded, or failed.
        """
        if not texts:
            return []
        most = self.max_tokens * _CHARACTERS_PER_TOKEN
        given = [check_text(text, i, len(texts))[:most] for i, text in enumerate(texts)]
        loaded = self._loaded.get()
        encode = loaded.model.encode_query if mode == "query" else loaded.model.encode_document
        options: dict[str, Any] = {"show_progress_bar": False, "convert_to_numpy": True}
        if not any((loaded.model.prompts or {}).values()) and (prompt := self._known.prompt(mode)):
            # Some models were published without the prompts they were trained with.
            options["prompt"] = prompt
        name = f"the model {self.model}"
        try:
            with loaded.lock:
                rows = encode(given, **options)
        except Exception as error:  # torch, tokenizers and the model's own code share no base
            raise EmbeddingError(
                f"{name} failed on {len(texts)} texts: {error}",
                hint="check the memory that is free",
            ) from error
        hint = "the name stands for another model than is known: give the path of the one meant"
        found, bad = unit_vectors(rows, len(texts), self._width, name, hint)
        if bad:
            raise EmbeddingRefused(
                f"{name} gave text {bad[0] + 1} of {len(texts)} a vector that is all zero or has "
                "values that are NaN or infinite",
                hint="change the text, or store the row without a vector",
                index=bad[0],
            )
        return list(found)


def _load(model: str) -> SentenceTransformer:
    import torch  # type: ignore[import-not-found,unused-ignore]

    if _loaded_by - {os.getpid()}:
        # A fork leaves the threads of torch behind, and more than one would be waited for for ever.
        torch.set_num_threads(1)
    _loaded_by.add(os.getpid())
    try:
        return SentenceTransformer(model)
    except Exception as error:  # of the hub, its client, the file system, torch, the model
        raise EmbeddingError(
            f"the model {model} cannot be loaded: {error}",
            hint="check the name or path; where the hub cannot be reached, give the path of a "
            "directory with the model",
        ) from error
