"""Texts whose words are as rare as those of real ones, by the million.

The k-th most common word has a share of about 1 / k (Zipf's law; G. K. Zipf, 1935). The first
hundred are left out: in real texts they are stop words, which no search keeps. The words are
English ones, of the builtin embedder's vocabulary as common as there, and pairs of them.
"""

from __future__ import annotations

import json
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import pgrecall.embedding.minilm as minilm

WORDS = 50_000
STOPPED = 100
OF_A_TEXT = 60


def text(rng: np.random.Generator, number: int) -> str:
    """Return a text of 60 words with an identifier of its own, ``ERR-number``."""
    return f"ERR-{number} {question(rng, OF_A_TEXT)}"


def question(rng: np.random.Generator, length: int) -> str:
    """Return so many words, each as often as texts have it."""
    words, shares = _vocabulary()
    return " ".join(words[i] for i in np.searchsorted(shares, rng.random(length)))


@cache
def _vocabulary() -> tuple[list[str], NDArray[np.float64]]:
    file = Path(minilm.__file__).with_name("tokenizer.json")
    known = json.loads(file.read_text())["model"]["vocab"]
    words = [word for word in known if len(word) > 3 and word.isascii() and word.isalpha()]
    rare = words[-250:]
    words += [first + second for first, second in product(rare, rare)]
    shares = 1.0 / np.arange(STOPPED, STOPPED + WORDS)
    return words[:WORDS], np.cumsum(shares / shares.sum())
