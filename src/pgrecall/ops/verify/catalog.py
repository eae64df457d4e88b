"""The schema as PostgreSQL describes it, compared with how it should be.

Each object is one line of text, as PostgreSQL prints it, under its name. ``expected.json`` holds
the lines of a freshly migrated database; ``tools/expected_catalog.py`` writes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, TypeAlias

from pgrecall.ops.verify.session import Session

Section: TypeAlias = Literal[
    "tables",
    "columns",
    "constraints",
    "indexes",
    "functions",
    "view_columns",
    "view_definitions",
    "triggers",
]
SECTIONS: tuple[Section, ...] = (
    "tables",
    "columns",
    "constraints",
    "indexes",
    "functions",
    "view_columns",
    "view_definitions",
    "triggers",
)
TABLES = (
    "agent_episodes",
    "agent_knowledge",
    "agent_working_memory",
    "agent_memory_metrics",
    "schema_version",
)
"""The specification's tables, in its order."""

EVIDENCE_CONSTRAINT = "agent_knowledge.chk_min_supporting_episodes"
OLD_EVIDENCE_CHECK = "CHECK ((array_length(supporting_episodes, 1) >= 3))"
# As the expected catalog has them.
_COLUMN, _OPERATORS = "vector({dimensions})", "vector_cosine_ops"
_ELEMENT = re.compile(r"\(('(?:[^']|'')*'::character varying)\)::text")
_LIST = re.compile(rf"ARRAY\[((?:{_ELEMENT.pattern}(?:, )?)+)\]")

_CARE = re.compile(r"ef_construction='?([0-9]+)'?")
_SPECIFIED = "ef_construction='64'"

Catalog: TypeAlias = Mapping[str, Mapping[str, str]]
"""Section, then object, then its definition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One object that is not as it should be.

    Attributes:
        section: Its kind.
        name: Its name, with that of its table in front where it has one.
        expected: Its definition as it should be; None when there should be none.
        found: Its definition as it is; None when it is missing.
    """

    section: Section
    name: str
    expected: str | None
    found: str | None

    def __str__(self) -> str:
        if self.found is None:
            return f"{self.name} is missing, expected: {self.expected}"
        if self.expected is None:
            return f"{self.name} is unknown: {self.found}"
        return f"{self.name} expected: {self.expected} found: {self.found}"


def as_written(definition: str) -> str:
    """Return a definition as the specification writes what means the same, or is better.

    PostgreSQL prints ``IN ('a', 'b')`` of a varchar with one cast around the list; after a dump and
    its restore each element has a cast of its own. A vector index that was built with more care,
    as ``doctor`` proposes for large memories, does what is specified.
    """
    definition = _CARE.sub(lambda m: _SPECIFIED if int(m[1]) > 64 else m[0], definition)

    def joined(match: re.Match[str]) -> str:
        elements = _ELEMENT.sub(r"\1", match[1])
        return f"(ARRAY[{elements}])::text[]"

    return _LIST.sub(joined, definition)


def read(session: Session) -> dict[str, dict[str, str]]:
    """Describe what schema ``public`` holds now."""
    tables = {"tables": list(TABLES)}
    catalog: dict[str, dict[str, str]] = {
        section: {row["name"]: as_written(row["found"]) for row in session.rows(section, tables)}
        for section in SECTIONS
        if section != "functions"
    }
    # A name may stand for several functions; all of them are shown when none is right.
    functions: dict[str, list[str]] = {}
    for row in session.rows("functions"):
        functions.setdefault(row["name"], []).append(row["found"])
    catalog["functions"] = {name: " and ".join(sorted(found)) for name, found in functions.items()}
    return catalog


@cache
def _template() -> str:
    return (files(__package__) / "expected.json").read_text(encoding="utf-8")


def expected(dimensions: int | None, storage: str = "vector") -> dict[str, dict[str, str]]:
    """Return the catalog of a healthy database.

    Args:
        dimensions: Dimensions of its embeddings; None when its columns don't tell, so that
            they cannot match.
        storage: ``vector``, as specified, or ``halfvec`` where somebody chose it.
    """
    parsed: dict[str, dict[str, str]] = json.loads(_template())
    column = f"{storage}({'n' if dimensions is None else dimensions})"
    return {
        section: {
            name: definition.replace(_COLUMN, column).replace(_OPERATORS, f"{storage}_cosine_ops")
            for name, definition in parsed[section].items()
        }
        for section in SECTIONS
    }


def compare(found: Catalog, wanted: Catalog) -> tuple[list[Difference], list[Difference]]:
    """Return what is wrong or missing, and what is there beside the expected."""
    wrong: list[Difference] = []
    unknown: list[Difference] = []
    for section in SECTIONS:
        have, want = found[section], wanted[section]
        wrong += [
            Difference(section=section, name=name, expected=text, found=have.get(name))
            for name, text in want.items()
            if have.get(name) != text
        ]
        unknown += [
            Difference(section=section, name=name, expected=None, found=text)
            for name, text in have.items()
            if name not in want
        ]
    return wrong, unknown


def is_old_evidence_check(difference: Difference) -> bool:
    """Whether this is the specification's own check, which adoption leaves where rows need it."""
    return difference.name == EVIDENCE_CONSTRAINT and difference.found == OLD_EVIDENCE_CHECK
