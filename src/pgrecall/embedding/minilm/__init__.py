"""The builtin embedder: all-MiniLM-L6-v2 with int8 weights, offline, on the CPU."""

from pgrecall.embedding.minilm.embedder import MiniLM

__all__ = ["MiniLM"]
