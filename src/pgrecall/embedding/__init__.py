"""Turning text into vectors: the ``Embedder`` protocol and the providers that come with it."""

from pgrecall.embedding.base import Embedder, Mode
from pgrecall.embedding.batches import embed_each
from pgrecall.embedding.registry import get_embedder

__all__ = ["Embedder", "Mode", "embed_each", "get_embedder"]
