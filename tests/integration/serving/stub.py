"""An embedder whose faults are caused by files; runs in the server's process.

``python:stub:make``, with this directory on PYTHONPATH and ``STUB_DIR`` naming where the files are.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from pgrecall.embedding.base import Mode
from pgrecall.errors import EmbedderUnavailable, EmbeddingError, EmbeddingRefused

SECRET = "sk-secret-0123456789"
PRIVATE_PATH = "/srv/private/weights.bin"


class Stub:
    """Vectors of 8 dimensions that depend on text and mode."""

    identity = "stub:/srv/private/models/tiny"
    dimensions = 8
    max_tokens = 128
    available = True

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def embed(self, texts: Sequence[str], mode: Mode = "document") -> list[list[float]]:
        self._fail()
        if any("HOLD" in text for text in texts):
            self._hold()
        for index, text in enumerate(texts):
            if "REFUSE" in text:
                place = None if "SOMEWHERE" in text else index
                raise EmbeddingRefused(f"no: {SECRET} {PRIVATE_PATH}", index=place)
        rows = [vector(text, mode) for text in texts]
        if any("SHORT" in text for text in texts):
            rows[0].pop()
        if any("FEW" in text for text in texts):
            rows.pop()
        return rows

    def _fail(self) -> None:
        for name, kind in (
            ("down", EmbedderUnavailable),
            ("wrong", EmbeddingError),
            ("bug", RuntimeError),
        ):
            if (self._directory / name).exists():
                raise kind(f"{name}: {SECRET} {PRIVATE_PATH}")

    def _hold(self) -> None:
        """Tell that it began, and wait until it may go on."""
        began = self._directory / f"began-{time.monotonic_ns()}"
        began.touch()
        while not (self._directory / "go").exists():
            time.sleep(0.01)


def vector(text: str, mode: Mode = "document") -> list[float]:
    digest = hashlib.sha256(f"{mode}:{text}".encode()).digest()
    return [(byte + 1) / 256 for byte in digest[:8]]


def make() -> Stub:
    return Stub(Path(os.environ["STUB_DIR"]))


class _Silent(Stub):
    available = False


def silent() -> Stub:
    return _Silent(Path())
