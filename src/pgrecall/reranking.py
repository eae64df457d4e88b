"""Re-ranking: what reads query and text together looks at the best hits once more."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pgrecall.errors import InvalidInput, MissingExtra


class Reranker(Protocol):
    """Tells how well texts answer a query. Any function of this form is one; it may block."""

    def __call__(self, query: str, texts: Sequence[str], /) -> Sequence[float]:
        """Return one number for each text, the higher the better."""
        ...


class CrossEncoder:
    """A cross-encoder in ONNX form, such as an export of ``ms-marco-MiniLM-L6-v2``.

    Safe to share between threads. Nothing is downloaded.

    Args:
        directory: Where ``model.onnx`` (or ``onnx/model.onnx``) and ``tokenizer.json`` are.
        max_tokens: Tokens read of query and text together.
        threads: Cores that a call may use; None for all.

    Raises:
        MissingExtra: onnxruntime or tokenizers is not installed.
        InvalidInput: A file is missing.
    """

    def __init__(
        self, directory: str | Path, *, max_tokens: int = 512, threads: int | None = None
    ) -> None:
        if any(find_spec(package) is None for package in ("onnxruntime", "tokenizers")):
            raise MissingExtra("a cross-encoder", "minilm")
        places = [Path(directory) / "model.onnx", Path(directory) / "onnx" / "model.onnx"]
        self._model = next((place for place in places if place.is_file()), places[0])
        self._tokenizer = Path(directory) / "tokenizer.json"
        for file in (self._model, self._tokenizer):
            if not file.is_file():
                raise InvalidInput(
                    f"there is no file {file}",
                    hint="export the model to ONNX, and put its tokenizer.json beside it",
                )
        self._max_tokens = max_tokens
        self._threads = threads
        self._loading = threading.Lock()
        self._loaded: tuple[Any, Any] | None = None

    def __repr__(self) -> str:
        return f"<CrossEncoder {self._model}>"

    def __call__(self, query: str, texts: Sequence[str], /) -> list[float]:
        """Return the model's first output for each pair of query and text."""
        if not texts:
            return []
        session, tokenizer = self._load()
        pairs = tokenizer.encode_batch([(query, text) for text in texts])
        columns = {
            "input_ids": [pair.ids for pair in pairs],
            "attention_mask": [pair.attention_mask for pair in pairs],
            "token_type_ids": [pair.type_ids for pair in pairs],
        }
        wanted = [one.name for one in session.get_inputs()]
        feed = {name: np.asarray(columns[name], dtype=np.int64) for name in wanted}
        scores = np.asarray(session.run(None, feed)[0], dtype=np.float64)
        return [float(score) for score in scores.reshape(len(texts), -1)[:, 0]]

    def _load(self) -> tuple[Any, Any]:
        with self._loading:
            if self._loaded is None:
                import onnxruntime
                from tokenizers import Tokenizer

                options = onnxruntime.SessionOptions()
                if self._threads is not None:
                    options.intra_op_num_threads = self._threads
                tokenizer = Tokenizer.from_file(str(self._tokenizer))
                tokenizer.enable_truncation(self._max_tokens, strategy="only_second")
                tokenizer.enable_padding()
                session = onnxruntime.InferenceSession(
                    str(self._model), options, providers=["CPUExecutionProvider"]
                )
                self._loaded = session, tokenizer
            return self._loaded
