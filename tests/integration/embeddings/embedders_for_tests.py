"""Embedders that workers and followers find by name: python:embedders_for_tests:NAME."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from pgrecall.embedding.base import Mode
from pgrecall.errors import EmbedderUnavailable, EmbeddingRefused
from pgrecall.testing import HashEmbedder


class Slow(HashEmbedder):
    """Takes a while for each text, and writes down what it embedded."""

    def embed(self, texts: Sequence[str], mode: Mode = "document") -> list[list[float]]:
        time.sleep(0.002 * len(texts))
        log = os.environ.get("EMBEDDED_LOG")
        if log:
            with Path(log).open("a") as file:
                file.write(f"{os.getpid()} {len(texts)}\n")
        return super().embed(texts, mode)


class Other(HashEmbedder):
    """The same length, another model."""

    def __init__(self) -> None:
        super().__init__(64)
        self.identity = "other:64"

    def embed(self, texts: Sequence[str], mode: Mode = "document") -> list[list[float]]:
        return [vector[::-1] for vector in super().embed(texts, mode)]


class Picky(HashEmbedder):
    """Refuses some texts, and is down while a file is there."""

    def embed(self, texts: Sequence[str], mode: Mode = "document") -> list[list[float]]:
        if Path(os.environ.get("EMBEDDER_DOWN", "/nonexistent")).exists():
            raise EmbedderUnavailable("the embedder is down", hint="wait")
        if any("forbidden" in text for text in texts):
            raise EmbeddingRefused("the text is forbidden", hint="say it differently")
        return super().embed(texts, mode)


class Revised(HashEmbedder):
    """Has the weights that an environment variable names, as a server's may change meanwhile."""

    def __init__(self) -> None:
        super().__init__(64)
        self.identity = "revised:64"

    @property
    def revision(self) -> str | None:
        return os.environ.get("EMBEDDER_REVISION")

    def embed(self, texts: Sequence[str], mode: Mode = "document") -> list[list[float]]:
        turn = len(self.revision or "")
        return [vector[turn:] + vector[:turn] for vector in super().embed(texts, mode)]


def hash_64() -> HashEmbedder:
    return HashEmbedder(64)


def hash_96() -> HashEmbedder:
    return HashEmbedder(96)


def slow() -> HashEmbedder:
    return Slow(64)


def picky() -> HashEmbedder:
    return Picky(64)


def revised() -> HashEmbedder:
    return Revised()


def wide() -> HashEmbedder:
    return HashEmbedder(2500)


def other() -> HashEmbedder:
    return Other()
