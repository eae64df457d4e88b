"""Checking what goes to a provider and what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pgrecall.errors import EmbeddingError, EmbeddingRefused

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def check_string(text: object, index: int, count: int, most: int | None = None) -> str:
    """Return a text, its first ``most`` characters, if it is one.

    Raises:
        EmbeddingRefused: It is no string, or no valid Unicode as far as it is returned.
    """
    where = f"text {index + 1} of {count}"
    if not isinstance(text, str):
        raise EmbeddingRefused(
            f"{where} is of type {type(text).__name__}", hint="give strings only", index=index
        )
    text = text[:most]
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise EmbeddingRefused(
            f"{where} holds a lone surrogate, U+{ord(text[error.start]):04X},"
            f" at character {error.start}",
            hint="decode the text correctly, or replace such characters",
            index=index,
        ) from error
    return text


def check_text(text: object, index: int, count: int) -> str:
    """Return a text that can be embedded.

    Raises:
        EmbeddingRefused: It is no string, no valid Unicode, or holds nothing to read.
    """
    text = check_string(text, index, count)
    # All blank texts would get one vector, and find each other as perfect matches.
    if not any(character.isprintable() and not character.isspace() for character in text):
        raise EmbeddingRefused(
            f"text {index + 1} of {count} holds no word",
            hint="give a text, or store the row without a vector",
            index=index,
        )
    return text


def unit_vectors(
    rows: Any, count: int, width: int | None, name: str, hint: str
) -> tuple[NDArray[np.float32], list[int]]:
    """Return rows of unit length, and the places of those that have no direction.

    Args:
        rows: What came back.
        count: How many vectors were expected.
        width: How long each should be; None if that is not known yet.
        name: The provider and model, for messages.
        hint: What to do about vectors of another length.

    Raises:
        EmbeddingError: Too many or few, of another length, or no numbers.
    """
    import numpy as np

    if not isinstance(rows, Sequence | np.ndarray) or len(rows) != count:
        came = len(rows) if hasattr(rows, "__len__") else type(rows).__name__
        raise EmbeddingError(
            f"{name} gave {came} vectors for {count} texts",
            hint="the server does not keep to its protocol: look for a newer version",
        )
    for row in rows:
        wanted = len(rows[0]) if width is None else width
        if len(row) != wanted or wanted == 0:
            raise EmbeddingError(
                f"{name} gave a vector of {len(row)} dimensions, {wanted} were expected", hint=hint
            )
    try:
        # In double precision first: a square may be too large for single.
        found = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise EmbeddingError(
            f"{name} gave vectors that are not made of numbers",
            hint="the server does not keep to its protocol: look for a newer version",
        ) from error
    with np.errstate(all="ignore"):  # the next lines find what went wrong
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        good = np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)
        unit = (found / lengths).astype(np.float32)
    return unit, np.flatnonzero(~good).tolist()
