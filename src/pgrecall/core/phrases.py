"""From a JSON document to a tree of short phrases, most telling first, of bounded size."""

from __future__ import annotations

import heapq
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pgrecall.core.tokens import estimate_tokens

MAX_DEPTH = 12  # levels read; what lies deeper says little about a decision
MAX_PHRASES = 400  # of one document; far more than any budget shows
MAX_KEYS = 64  # of one object
MAX_ITEMS = 8  # of one list; the rest is counted
MAX_CHARACTERS = 8_000  # of one text
MAX_EMBEDDED_JSON = 20_000  # characters of a text that is read as JSON
_LIST_ITEM = 40  # characters; a list of shorter texts becomes one phrase
_LATE_VALUE = 40  # characters; longer identifiers say nothing
_REPEATED = 24  # characters; a text as long is not said twice, whatever its key
_LEAST_TEXT = 4  # tokens; less of a long text says nothing
_EXACT = 1e15  # integers from here on differ between int and float

# Keys under which agents put the gist.
_TELLING = frozenset(
    {"action", "choice", "chosen", "conclusion", "decision", "error", "goal", "intent", "issue"}
    | {"message", "objective", "plan", "problem", "question", "reason", "request", "situation"}
    | {"strategy", "summary", "task", "thought", "title"}
)
# Last words of keys whose values name something or date it, and tell nothing about it.
_LATE = frozenset(
    {"checksum", "cursor", "etag", "guid", "hash", "id", "ids", "md5", "nonce", "sha", "sha256"}
    | {"signature", "timestamp", "ts", "uuid"}
)

_WORD_BREAK = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^\w]+|_+", re.UNICODE)
_CODE_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*\Z")
_CAMEL = re.compile(r"[a-z]{2,}(?:[A-Z][a-z0-9]+)+\Z")
_UUID = "[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
# UUIDs, hashes in hexadecimal, and long random words such as keys and tokens.
_NOISE = re.compile(rf"\b(?:{_UUID}|(?=[a-fA-F]*[0-9])[0-9a-fA-F]{{16,}}\b|\w{{40,}})")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?\Z")


@dataclass(frozen=True, slots=True)
class Phrase:
    """A label with a text, or with phrases below it.

    Attributes:
        cost: Estimated tokens of the whole, with its separators.
        label_cost: Those of the label.
        text_cost: Those of the text.
        least: Tokens below which it is rather left out than cut.
    """

    label: str
    text: str = ""
    children: tuple[Phrase, ...] = ()
    separator: str = ", "
    cost: int = 0
    label_cost: int = 0
    text_cost: int = 0
    least: int = 0

    def __str__(self) -> str:
        return f"{self.label}: {self.text}" if self.label else self.text


def leaf(label: str, text: str) -> Phrase:
    """A phrase that says one thing."""
    label_cost = estimate_tokens(label) + 1 if label else 0
    text_cost = estimate_tokens(text)
    return Phrase(
        label,
        text,
        cost=label_cost + text_cost + 1,
        label_cost=label_cost,
        text_cost=text_cost,
        least=label_cost + min(text_cost + 1, _LEAST_TEXT),
    )


def branch(label: str, children: list[Phrase], separator: str = ", ") -> Phrase:
    """A phrase made of others."""
    label_cost = estimate_tokens(label) + 1 if label else 0
    return Phrase(
        label,
        children=tuple(children),
        separator=separator,
        cost=label_cost + sum(child.cost for child in children),
        label_cost=label_cost,
        least=label_cost + (children[0].least if children else 0),
    )


def phrases_of(document: Mapping[str, Any], seen: set[str], late: list[Phrase]) -> Phrase:
    """Return the phrases of one document.

    Args:
        document: A JSON object.
        seen: What has been said; what is said here is added.
        late: Gets the phrases about identifiers and times, which belong at the end.
    """
    return branch("", _Reader(seen, late).mapping(document, "", 0, MAX_PHRASES), "; ")


def words_of(key: str) -> str:
    """Split a key into lower-case words: ``"velocityTrend"`` and ``"velocity_trend"`` alike."""
    words = [word for word in _WORD_BREAK.split(_NOISE.sub(_without_noise, key[:200])) if word]
    return " ".join(words[:6]).lower()[:60]


def _without_noise(match: re.Match[str]) -> str:
    """Drop a random word; keep one that is merely long."""
    word = match.group()
    kinds = (str.isdigit, str.isupper, str.islower)
    is_long_word = "-" not in word and not all(any(map(kind, word)) for kind in kinds)
    is_hash = len(word) < 40 or set(word.lower()) <= set("0123456789abcdef")
    return word if is_long_word and not is_hash else " "


@dataclass(slots=True)
class _Reader:
    """Walks one document. Recursion ends at ``MAX_DEPTH``."""

    seen: set[str]
    late: list[Phrase] = field(default_factory=list)

    def mapping(
        self, value: Mapping[Any, Any], parent: str, depth: int, limit: int
    ) -> list[Phrase]:
        """Phrases of an object's members, at most ``limit``."""
        keys = value if len(value) <= MAX_KEYS else heapq.nsmallest(MAX_KEYS, value, key=str)
        members = [(str(key), _opened(value[key])) for key in keys]
        # Bare items after scalars: one long list must not hide the plain facts beside it.
        members.sort(key=lambda member: (_rank(*member), member[0]))
        return self._all([(words_of(key), item) for key, item in members], parent, depth, limit)

    def sequence(self, value: list[Any], label: str, depth: int, limit: int) -> list[Phrase]:
        """Phrases of a list that is no mere enumeration, its first items and their number."""
        items = [("", _opened(item)) for item in value[:MAX_ITEMS]]
        phrases = self._all(items, label, depth, limit)
        if len(value) > MAX_ITEMS and phrases:
            phrases.append(leaf("", f"and {len(value) - MAX_ITEMS} more"))
        return phrases

    def _all(
        self, members: list[tuple[str, Any]], parent: str, depth: int, limit: int
    ) -> list[Phrase]:
        """Phrases of members in order. Each container may use an equal part of what is left."""
        phrases: list[Phrase] = []
        deeper = sum(isinstance(item, Mapping | list) for _, item in members)
        for label, item in members:
            if limit <= 0:
                break
            if isinstance(item, Mapping | list):
                phrase = self._container(label, item, parent, depth, max(1, limit // deeper))
                deeper -= 1
            else:
                phrase = self._scalar(label, item, parent)
            if phrase is not None:
                phrases.append(phrase)
                limit -= max(1, len(phrase.children))
        return phrases

    def _container(
        self, label: str, item: Any, parent: str, depth: int, limit: int
    ) -> Phrase | None:
        """Phrase of an object or list, or None when it says nothing."""
        if depth >= MAX_DEPTH:
            return None
        if isinstance(item, Mapping):
            children = self.mapping(item, label or parent, depth + 1, limit)
        else:
            text = _enumeration(item)
            if text is not None:
                return self._scalar(label, text, parent)
            children = self.sequence(item, label or parent, depth + 1, limit)
        return branch(label, children) if children else None

    def _scalar(self, label: str, item: Any, parent: str) -> Phrase | None:
        """Phrase of a plain value, or None when it is empty, late or said already."""
        text = _said(item)
        if not text:
            return None
        is_late = _is_late(label, item)
        if is_late and (len(text) > _LATE_VALUE or not any(map(str.isalpha, text + label))):
            return None
        mark = text if len(text) >= _REPEATED else f"{parent} {label}".strip() + f": {text}"
        if mark in self.seen:
            return None
        self.seen.add(mark)
        if is_late:
            full = f"{parent} {label}".strip()
            self.late.append(leaf(full, text))
            return None
        return leaf(label, text)


def _rank(key: str, item: Any) -> int:
    """Where a member stands among its siblings: gist, plain facts, containers."""
    words = words_of(key).split()
    telling = bool(_TELLING.intersection(words))
    if isinstance(item, Mapping | list):
        return 2 if telling else 3
    return 0 if telling else 1


def _is_late(label: str, item: Any) -> bool:
    """Whether a value names or dates something rather than telling about it."""
    last = label.rpartition(" ")[2]
    if last in _LATE or label.endswith(" at"):
        return True
    return isinstance(item, str) and bool(_TIMESTAMP.match(item))


def _opened(value: Any) -> Any:
    """A value as it is read: tuples as lists, and JSON within a text as what it holds."""
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, str) and value[:1] in ("{", "[") and len(value) <= MAX_EMBEDDED_JSON:
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            return value
        return parsed if isinstance(parsed, dict | list) else value
    return value


def _said(value: Any) -> str:
    """A plain value in words; ``""`` for what says nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _number(value)
    text = value if isinstance(value, str) else str(value)
    text = " ".join(_NOISE.sub(_without_noise, text.lstrip()[:MAX_CHARACTERS]).split())
    if _CODE_WORD.match(text) and ("_" in text or _CAMEL.match(text)):
        return words_of(text)
    return text if any(map(str.isalnum, text)) or len(text) < _LATE_VALUE else ""


def _number(value: float) -> str:
    """A number to four significant digits, whole ones exactly; the same for 2 and 2.0."""
    try:
        number = float(value)
    except OverflowError:
        return ""
    if not math.isfinite(number):
        return ""
    if number == int(number) and abs(number) < _EXACT:
        return str(int(number))
    if 1000 <= abs(number) < _EXACT:
        return str(round(number))
    return format(number, ".4g")


def _enumeration(items: list[Any]) -> str | None:
    """A list of numbers or short texts as one text; None for any other list."""
    if not items:
        return ""
    if all(isinstance(item, int | float) and not isinstance(item, bool) for item in items):
        numbers = [text for text in map(_number, items) if text]
        if not numbers:
            return ""
        if len(numbers) <= MAX_ITEMS:
            return ", ".join(numbers)
        return (
            f"{len(items)} numbers from {_number(min(items))} to {_number(max(items))},"
            f" last {numbers[-1]}"
        )
    if any(isinstance(item, Mapping | list | tuple) for item in items):
        return None
    if any(isinstance(item, str) and len(item) > _LIST_ITEM for item in items):
        return None
    distinct = list(dict.fromkeys(text for text in map(_said, items) if text))
    more = len(distinct) - MAX_ITEMS
    return ", ".join(distinct[:MAX_ITEMS]) + (f" and {more} more" if more > 0 else "")
