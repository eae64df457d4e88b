"""How many tokens a text takes, estimated without a tokenizer."""

from __future__ import annotations

import re

# Words of Latin letters, numbers, and every other character by itself: word-piece vocabularies
# hold other scripts letter by letter.
_PIECE = re.compile("[A-Za-z\u00c0-\u024f]+|[0-9]+|[^\\s]")

# Up to this length most words are one token; beyond it, one more for every few letters.
_WHOLE_WORD = 7
_LETTERS_PER_TOKEN = 4
_DIGITS_PER_TOKEN = 2


def _cost(piece: str) -> int:
    """Tokens of one piece."""
    if piece[0].isdigit():
        return -(-len(piece) // _DIGITS_PER_TOKEN)
    if len(piece) <= _WHOLE_WORD:
        return 1
    return 1 - (_WHOLE_WORD - len(piece)) // _LETTERS_PER_TOKEN


def estimate_tokens(text: str) -> int:
    """Estimate the word-piece tokens of a text, without start and end marks; rather too many."""
    return sum(map(_cost, _PIECE.findall(text)))


def cut(text: str, tokens: int) -> str:
    """Return the beginning of a text that takes at most ``tokens``, whole words if it has any."""
    left = tokens
    for match in _PIECE.finditer(text):
        left -= _cost(match.group())
        if left < 0:
            end = match.start()
            break
    else:
        return text
    kept = text[:end]
    if end and not text[end - 1].isspace():
        # In mid-word, such as between "HAT" and "136": back to the last space.
        space = kept.rfind(" ")
        kept = kept[:space] if space > 0 else kept
    return kept.rstrip(" ,;:.-([{")
