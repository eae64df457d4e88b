"""Check of stored vectors: whether they are what their embedder makes of their rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import psycopg

from pgrecall.config import Settings
from pgrecall.core.vectors import to_vector
from pgrecall.driver import Row, Statements
from pgrecall.embedding.batches import embed_each
from pgrecall.embedding.choice import Chosen, choose_embedder
from pgrecall.embedding.rendering import Renderer
from pgrecall.errors import ConfigurationError, EmbeddingError, EmbeddingRefused
from pgrecall.ops.checks import Seen
from pgrecall.ops.embeddings.models import Model, all_models
from pgrecall.sql import load

if TYPE_CHECKING:
    from pgrecall.ops.doctor.facts import Facts

SAMPLED = 16
"""How many vectors are made anew."""
ALIKE = 0.95
"""Cosine similarity of two vectors of the same text by the same model, at least: half precision and
the company that a text had in its batch change it a little."""
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """The model that serves, and some rows with their vectors."""

    model: Model
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors:
    """Stored vectors beside those made anew.

    Attributes:
        compared: How many.
        unlike: Identifiers of episodes whose vector is another.
        similarity: Median of the cosine similarities; None where none was compared.
        unseen: Why none could be compared; None if some were.
        refusal: Why the embedder may not be used with this database; None if it may.
    """

    compared: int = 0
    unlike: tuple[str, ...] = ()
    similarity: float | None = None
    unseen: str | None = None
    refusal: ConfigurationError | None = None


def sample_vectors(connection: psycopg.Connection[Row]) -> Sampled | None:
    """Return the model that serves and some rows; None where the schema tells of none."""
    statements = Statements(connection, load("embeddings"))
    try:
        with connection.transaction():
            served = [model for model in all_models(statements) if model.serving]
            rows = Statements(connection, load("doctor")).rows("vectors", {"count": SAMPLED})
    except (psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedFunction):
        return None
    return Sampled(model=served[0], rows=tuple(rows)) if served else None


def compare_vectors(sampled: Sampled, settings: Settings) -> Vectors:
    """Make the vectors of some rows anew, and compare.

    Args:
        sampled: The rows.
        settings: How long to wait for the embedder.
    """
    model = sampled.model
    if model.identity is None or model.embedder is None:
        return Vectors(unseen="what made the vectors has no name here")
    if not sampled.rows:
        return Vectors(unseen="there are no vectors")
    try:
        renderer = Renderer.named(model.renderer)
        embedder, _ = choose_embedder(model.embedder, model.served, renderer.name, settings)
        chosen = Chosen(embedder, renderer, model.served)
        made = embed_each(embedder, _texts(chosen, sampled.rows), "document")
    except (EmbeddingError, ConfigurationError) as error:
        return Vectors(unseen=f"{model.identity} cannot embed here: {error.message}")
    try:
        chosen.check_revision()
    except ConfigurationError as error:
        return Vectors(refusal=error)
    alike: list[float] = []
    unlike: list[str] = []
    for row, one in zip(sampled.rows, made, strict=True):
        if isinstance(one, EmbeddingRefused):
            continue
        alike.append(_cosine(row["vector"], to_vector(one, model.dimensions).to_list()))
        if alike[-1] < ALIKE:
            unlike.append(str(row["id"]))
    return Vectors(
        compared=len(alike),
        unlike=tuple(unlike),
        similarity=median(alike) if alike else None,
        unseen=None if alike else f"{model.identity} refused all {len(made)} texts",
    )


def _texts(chosen: Chosen, rows: Sequence[Row]) -> list[str]:
    most = chosen.embedder.max_tokens
    return [
        chosen.renderer.render(row["perception"], row["reasoning"], row["action"], max_tokens=most)
        for row in rows
    ]


def _cosine(stored: Any, made: Sequence[float]) -> float:
    values = [float(value) for value in stored.strip("[]").split(",")]
    return sum(a * b for a, b in zip(values, made, strict=True)) / (
        math.hypot(*values) * math.hypot(*made)
    )


def vectors(facts: Facts) -> Seen:
    """Stored vectors are those that the embedder makes of their rows."""
    found = facts.vectors
    if found is None:
        return Seen(
            "not configured", "the schema names no model that serves", "run `pgrecall migrate`"
        )
    if found.refusal is not None:
        return Seen("failed", found.refusal.message, found.refusal.hint)
    if found.unseen is not None:
        return Seen("not configured", f"not compared: {found.unseen}")
    assert facts.sampled is not None  # noqa: S101
    evidence = (
        f"{found.compared} vectors made anew by {facts.sampled.model.title}, median similarity "
        f"{found.similarity:.3f}"
    )
    if not found.unlike:
        return Seen("passed", evidence)
    return Seen(
        "warning",
        f"{len(found.unlike)} of {evidence}; unlike their rows, such as "
        f"{', '.join(found.unlike[:_NAMED])}",
        "callers brought vectors of another model, or changed rows afterwards; to have them made "
        "anew, as the owner: UPDATE public.agent_episodes SET embedding = NULL WHERE ..., then "
        "`pgrecall embeddings backfill`; or all by `pgrecall embeddings switch`",
    )
