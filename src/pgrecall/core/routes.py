"""Which way a search takes to its nearest rows: what each is expected to cost.

The formulas are written once, as text in the arithmetic that Python and SQL share. Here they are
evaluated for tables, plans and tests; the migration puts the same text into the function
``pgrecall.route_costs``, by which the database chooses, next to the rows that it counts.

- ``exact`` measures every row that matches.
- ``codes`` reads the codes of all rows that match and measures those with the nearest codes.
- ``index`` walks the HNSW graph to the nearest rows, of which enough must match. Whether they do is
  seen only afterwards; if not, codes are read as well.

Constants are milliseconds on the machine of ``benchmarks/results/recall.json``; only their ratios
matter for the choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import CodeType, MappingProxyType
from typing import Any, Final, get_args

from pgrecall.models import Account, PlanStep, Route, SearchMode, Wording, WordTerm

ROUTES: Final[tuple[Route, ...]] = get_args(Route)

MOST_VISITED: Final = 1000
"""Largest value of ``hnsw.ef_search``."""

LEAST_SHARE: Final = f"least(1, 2.5 * wanted / {MOST_VISITED}.0)"
"""Share of the rows that must match for the index to be considered."""

_VECTOR = "(0.003 + 0.0000017 * dimensions)"  # fetching a vector and measuring it
_CODE = "(0.0001 + 0.00000018 * dimensions + 0.0045 * joined)"  # reading and comparing a code
_MEASURED = "least(matching, greatest(80, 8 * wanted))"
_VISITED = "greatest(100, 2.5 * wanted * rows / matching)"
_CODES = f"(0.5 + matching * {_CODE} + {_MEASURED} * {_VECTOR})"
# What the index finds is not certain, and may not be found: a project's rows lie together, far from
# a query that is about something else.
_DOUBT = 3.0
_IN_VAIN = f"filtered * (0.5 - 0.4 * joined) * {_CODES}"

FORMULAS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "exact": f"0.1 + matching * {_VECTOR}",
        "codes": _CODES,
        "index": f"0.2 + {_DOUBT} + {_VISITED} * 0.7 * {_VECTOR} + {_IN_VAIN}",
    }
)
"""Milliseconds of each route, by the names of :class:`Situation`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the choice depends on.

    Attributes:
        rows: Rows of the table.
        matching: Rows among them that match the filter, at least 1.
        wanted: Rows that are wanted.
        dimensions: Of the vectors.
        filtered: 1 if there is a filter, else 0.
        joined: 1 if the filter looks at more than projects, so that codes must be joined with
            their rows; else 0.
        indexed: Whether a valid HNSW index is there.
        coded: Whether every vector has its code.
    """

    rows: float
    matching: float
    wanted: int
    dimensions: int
    filtered: int = 1
    joined: int = 0
    indexed: bool = True
    coded: bool = True


_FUNCTIONS = {"least": min, "greatest": max, "__builtins__": {}}
_TEXTS = {**FORMULAS, "share": LEAST_SHARE}
_COMPILED: dict[str, CodeType] = {
    name: compile(text, f"<{name}>", "eval") for name, text in _TEXTS.items()
}


def costs(situation: Situation) -> dict[Route, float]:
    """Return the expected milliseconds of each route that would find what there is."""
    names = {
        "rows": float(situation.rows),
        "matching": float(min(situation.matching, situation.rows)),
        "wanted": float(situation.wanted),
        "dimensions": float(situation.dimensions),
        "filtered": float(situation.filtered),
        "joined": float(situation.joined),
    }
    # The formulas are constants of this module.
    value = {name: eval(code, _FUNCTIONS, names) for name, code in _COMPILED.items()}  # noqa: S307
    found: dict[Route, float] = {route: value[route] for route in ROUTES}
    if not situation.indexed or names["matching"] < value["share"] * names["rows"]:
        del found["index"]
    if not situation.coded:
        del found["codes"]
    return found


def choose(situation: Situation) -> Route:
    """Return the cheapest route of those that would find what there is."""
    expected = costs(situation)
    return min(expected, key=lambda route: expected[route])


def to_account(told: Mapping[str, Any], *, embed_ms: float, total_ms: float) -> Account:
    """Return what the database tells of a recall as a record, with the client's times."""
    values = {**told, "tried": tuple(told["tried"] or ()), "embed_ms": embed_ms}
    values["total_ms"] = total_ms
    values["plan"] = tuple(PlanStep(**step) for step in told["plan"])
    words = told["words"]
    if words is not None:
        values["words"] = Wording(
            **{**words, "lends": tuple(words["lends"])}
            | {"terms": tuple(WordTerm(**term) for term in words["terms"])}
        )
    mode: SearchMode = "vector" if words is None else "words" if told["route"] is None else "hybrid"
    why = "no vectors were compared" if told["route"] is None else _why(told)
    return Account(**values, mode=mode, why=why)


def _why(told: Mapping[str, Any]) -> str:
    """Return the choice of a route in words."""
    matching, rows = told["matching"], told["rows"]
    parts = [
        f"about {rows:,} rows, no filter"
        if matching >= rows
        else f"about {matching:,} of {rows:,} rows match"
    ]
    parts += [
        f"{route} about {expected:.1f} ms" if expected is not None else f"{route}: too few match"
        for route, expected in sorted(told["expected_ms"].items())
    ]
    if not told["indexed"]:
        parts.append("there is no valid vector index")
    if not told["coded"]:
        parts.append("not every vector has its code yet")
    for before, after in pairwise(told["tried"]):
        parts.append(f"{before} did not settle it, hence {after}")
    return "; ".join(parts)
