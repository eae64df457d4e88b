"""What items are kept under, found by and filtered by, in the form that the database takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson
from pgvector import Vector

from pgrecall.core.checks import check_ttl
from pgrecall.core.documents import check_text, to_json
from pgrecall.core.vectors import to_vector
from pgrecall.errors import InvalidInput
from pgrecall.models import Json, Namespace, NewItem

OPERATORS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte")
LONGEST_LABEL = 500
"""Most characters of a label or a key: an entry of a btree index takes 2,704 bytes."""
MOST_LABELS = 32
WILDCARD = "*"
"""In a pattern of namespaces: any one label."""
_LEAST = "\x01"


def check_namespace(labels: Sequence[str], *, allow_empty: bool = False) -> list[str]:
    """Return the labels of a namespace.

    Args:
        labels: From the widest to the narrowest.
        allow_empty: Whether none, which is above all others, will do.

    Raises:
        InvalidInput: There is none, too many, or one that is no text that can be stored.
    """
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        raise InvalidInput(
            f"namespace is {labels!r}", hint='give a tuple of labels, such as ("users", "ada")'
        )
    if not labels and not allow_empty:
        raise InvalidInput("namespace is empty", hint="give one label or more")
    if len(labels) > MOST_LABELS:
        raise InvalidInput(
            f"namespace has {len(labels)} labels, at most {MOST_LABELS} are accepted",
            hint="join some of them",
        )
    return [
        check_text(label, name=f"namespace[{i}]", max_length=LONGEST_LABEL)
        for i, label in enumerate(labels)
    ]


def key_values(keys: Iterable[tuple[Namespace, str]]) -> dict[str, Any]:
    """Return the parameters of a statement on items by namespace and key.

    Raises:
        InvalidInput: A namespace or key cannot be one.
    """
    wanted = list(keys)
    return {
        "namespaces": [_json(check_namespace(namespace)) for namespace, _ in wanted],
        "keys": [check_text(key, name="key", max_length=LONGEST_LABEL) for _, key in wanted],
    }


def last_of_each(items: Iterable[NewItem]) -> list[NewItem]:
    """Return the items, of several for one key the last.

    Raises:
        InvalidInput: One of them has texts and vectors.
    """
    last: dict[tuple[Namespace, str], NewItem] = {}
    for item in items:
        if item.texts and item.vectors:
            raise InvalidInput(
                f"the item {item.key!r} has texts and vectors", hint="give one of them"
            )
        last[tuple(item.namespace), item.key] = item
    return list(last.values())


def put_values(items: Sequence[NewItem], model: str, max_bytes: int) -> dict[str, Any]:
    """Return the parameters of a statement that keeps items, but for their vectors.

    Args:
        items: What to keep, one for each key.
        model: What makes the vectors of texts.
        max_bytes: Largest size of a value, in bytes.

    Raises:
        InvalidInput: An item cannot be kept.
    """
    return {
        **key_values((item.namespace, item.key) for item in items),
        "values": [to_json(item.value, name="value", max_bytes=max_bytes) for item in items],
        "ttls": [check_ttl(item.ttl, "ttl") for item in items],
        "models": [
            model if item.texts else check_text(item.model, name="model", allow_none=True)
            for item in items
        ],
    }


def own_vectors(items: Sequence[NewItem]) -> list[Sequence[Vector]]:
    """Return the vectors that each item came with.

    Raises:
        InvalidVector: One cannot be searched for.
    """
    return [[to_vector(vector, None) for vector in item.vectors] for item in items]


def vector_values(vectors: Sequence[Sequence[Vector]]) -> dict[str, Any]:
    """Return the parameters that say which vectors each item has."""
    flat = [(vector, number) for number, some in enumerate(vectors, start=1) for vector in some]
    return {"vectors": [vector for vector, _ in flat], "numbers": [number for _, number in flat]}


def below(namespace: Sequence[str], where: Json | None) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the filters of a search: what is below a namespace, with a value as it says.

    Args:
        namespace: Whose items, and those of the namespaces below; empty: all.
        where: Keys of the value, each with what it is equal to, an object of operators
            (``{"$gt": 3}``) or an object of inner keys.

    Raises:
        InvalidInput: One of them cannot be meant.
    """
    names: list[str] = []
    values: dict[str, Any] = {}
    prefix = check_namespace(namespace, allow_empty=True)
    if prefix:
        names.append("below")
        values |= {"prefix": prefix, "beyond": [*prefix[:-1], prefix[-1] + _LEAST]}
    if where:
        names.append("where")
        # Refuses what no value can hold.
        to_json(where, name="where", max_bytes=1 << 20)
        values["where"] = _json(list(_conditions(where, [])))
    return tuple(names), values


def patterns(
    prefixes: Iterable[Sequence[str]], suffixes: Iterable[Sequence[str]]
) -> dict[str, Any]:
    """Return the parameter that says how namespaces are to begin and to end.

    Raises:
        InvalidInput: One of them cannot be a namespace.
    """
    given = [(labels, False) for labels in prefixes] + [(labels, True) for labels in suffixes]
    return {
        "patterns": _json(
            [{"labels": check_namespace(labels, allow_empty=True), "suffix": suffix}
             for labels, suffix in given]
        )
    }  # fmt: skip


def _conditions(where: Mapping[str, Any], path: list[str]) -> Iterator[dict[str, Any]]:
    for key, wanted in where.items():
        inner = [*path, key]
        if not isinstance(wanted, Mapping) or not wanted:
            yield {"path": inner, "operator": "$eq", "given": [wanted]}
        elif not any(name.startswith("$") for name in wanted):
            yield from _conditions(wanted, inner)
        else:
            for operator, value in wanted.items():
                if operator not in OPERATORS:
                    raise InvalidInput(
                        f"{operator} is not an operator", hint=f"use one of {', '.join(OPERATORS)}"
                    )
                yield {"path": inner, "operator": operator, "given": [value]}


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
