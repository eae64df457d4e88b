"""Reads EXPLAIN (FORMAT JSON)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a node and those below it on its main path, subplans left out."""
    yield plan
    for child in plan.get("Plans", ()):
        if child.get("Parent Relationship") not in ("InitPlan", "SubPlan"):
            yield from nodes(child)


def name(node: dict[str, Any]) -> str:
    """Name a node as PostgreSQL's text format does."""
    text = str(node["Node Type"])
    if "Index Name" in node:
        text += f" using {node['Index Name']}"
    if "Relation Name" in node:
        text += f" on {node['Relation Name']}"
    return text


def path(plan: dict[str, Any]) -> str:
    """Name all nodes of the main path, outermost first."""
    return " > ".join(name(node) for node in nodes(plan))
