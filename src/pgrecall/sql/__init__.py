"""Every SQL statement of the client and the operator's commands, in ``.sql`` files by topic.

A file holds statements under headers: ``-- name: record`` starts one, and it ends where the next
header begins. Comment lines directly below a header describe the statement and stay in it.
``/* include: columns */`` stands for the fragment of that name in the same file, and
``/* filters */`` for those ``filter_*`` fragments that a call chooses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import LiteralString

_INCLUDE = re.compile(r"/\* include: (?P<name>[a-z0-9_]+) \*/")
_FILTERS = "/* filters */"
_HEADER = re.compile(r"^-- name: (?P<name>[a-z][a-z0-9_]*)\s*$", re.MULTILINE)


@cache
def load(topic: str, package: str = __name__) -> Mapping[str, LiteralString]:
    """Return the statements of ``<topic>.sql`` by name.

    Args:
        topic: File name without its ending, such as ``"episodes"``.
        package: Package that holds the file.

    Raises:
        ValueError: The file has text before its first header, or one name twice.
    """
    return parse((files(package) / f"{topic}.sql").read_text(encoding="utf-8"), topic)


def parse(text: str, origin: str) -> Mapping[str, LiteralString]:
    """Split ``text`` at its headers; ``origin`` names it in errors."""
    headers = list(_HEADER.finditer(text))
    preamble = text[: headers[0].start()] if headers else text
    if any(line.strip() and not line.startswith("--") for line in preamble.splitlines()):
        raise ValueError(f"{origin}.sql: statement before the first '-- name:' header")
    statements: dict[str, LiteralString] = {}
    for header, following in zip(headers, [*headers[1:], None], strict=True):
        name = header["name"]
        if name in statements:
            raise ValueError(f"{origin}.sql: two statements are named {name!r}")
        body = text[header.end() : following.start() if following else len(text)].strip()
        statements[name] = body.removesuffix(";")
    return MappingProxyType({name: _resolve(body, statements) for name, body in statements.items()})


def _resolve(body: LiteralString, fragments: Mapping[str, LiteralString]) -> LiteralString:
    while include := _INCLUDE.search(body):
        body = body.replace(include[0], fragments[include["name"]])
    return body


@cache
def statement(topic: str, name: str, filters: tuple[str, ...] = ()) -> LiteralString:
    """Return one statement with the chosen filters in place.

    Args:
        topic: File name without its ending.
        name: Name of the statement.
        filters: Names of filter fragments, without their ``filter_``.

    Raises:
        KeyError: The file has no such statement or filter.
    """
    statements = load(topic)
    chosen = "\n".join(statements[f"filter_{filter_name}"] for filter_name in filters)
    return statements[name].replace(_FILTERS, "\n" + chosen)
