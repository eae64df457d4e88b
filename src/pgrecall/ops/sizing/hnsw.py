"""How large an HNSW index of pgvector becomes.

From the layout of its pages (pgvector 0.8, ``src/hnsw.h``): an element and the list of its
neighbours stand on one page where both fit, and no element is split.
"""

from __future__ import annotations

_PAGE = 8192 - 24 - 8
"""Bytes of a page without its header and pgvector's own mark at its end."""
_POINTER = 4
_ELEMENT = 72
"""Of an element before its vector: kind, level, up to ten rows, where its neighbours are."""
_HEADER = 8
_NEIGHBOURS = 4
_NEIGHBOUR = 6
VALUE = {"vector": 4, "halfvec": 2}
"""Bytes of one value."""


def bytes_a_row(dimensions: int, storage: str, m: int = 16) -> float:
    """Return the bytes that each vector takes in an index.

    Args:
        dimensions: Length of the vectors.
        storage: ``vector`` or ``halfvec``.
        m: Links of an element; twice as many on the lowest level, on which all are.
    """
    element = _aligned(_ELEMENT + _HEADER + VALUE[storage] * dimensions)
    # One element of m has a level more, and one of those m another.
    levels = 2 + 1 / (m - 1)
    neighbours = _aligned(_NEIGHBOURS + round(levels * m * _NEIGHBOUR))
    on_a_page = max(int(_PAGE // (element + neighbours + 2 * _POINTER)), 1)
    return 8192 / on_a_page


def _aligned(size: int) -> int:
    return (size + 7) // 8 * 8
