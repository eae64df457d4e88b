"""From the name of an embedder to the embedder."""

from __future__ import annotations

from importlib import import_module

from pgrecall.embedding.base import Embedder
from pgrecall.embedding.none import DEFAULT_DIMENSIONS, NoEmbedder
from pgrecall.errors import ConfigurationError

DEFAULT = "builtin"
_KNOWN = "`builtin`, `none` and `python:MODULE:FACTORY`"


def get_embedder(spec: str | None, *, dimensions: int | None = None) -> Embedder:
    """Return the embedder that ``spec`` names.

    Args:
        spec: ``builtin`` (also for None), ``none``, or ``python:MODULE:FACTORY``, where
            ``FACTORY`` is a callable without arguments that returns an ``Embedder``.
        dimensions: The length its vectors must have; None takes the embedder's own
            (1536 for ``none``).

    Raises:
        ConfigurationError: No such embedder, or its vectors have another length.
        MissingExtra: The packages it needs are not installed.
    """
    name = DEFAULT if spec is None else spec.strip()
    provider, _, rest = name.partition(":")
    if name == "none":
        return NoEmbedder(DEFAULT_DIMENSIONS if dimensions is None else dimensions)
    if name == "builtin":
        # Imported here, so that users of `none` never need the packages of `builtin`.
        from pgrecall.embedding.minilm import MiniLM

        embedder: Embedder = MiniLM()
    elif provider == "python":
        embedder = _from_factory(rest)
    else:
        raise ConfigurationError(f"there is no embedder {name!r}", hint=f"choose one of {_KNOWN}")
    if dimensions is not None and dimensions != embedder.dimensions:
        raise ConfigurationError(
            f"the embedder {name!r} makes vectors of {embedder.dimensions} dimensions,"
            f" not {dimensions}",
            hint=f"use {embedder.dimensions} dimensions, or another embedder",
        )
    return embedder


def _from_factory(target: str) -> Embedder:
    """Import ``MODULE:FACTORY`` and call it."""
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError(
            f"the embedder 'python:{target}' names no factory", hint="write python:MODULE:FACTORY"
        )
    try:
        factory = getattr(import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"the embedder 'python:{target}' cannot be imported: {error}",
            hint="check the module's name and that it is on the Python path",
        ) from error
    made = factory() if callable(factory) else factory
    if not isinstance(made, Embedder):
        raise ConfigurationError(
            f"'python:{target}' gave a {type(made).__name__}, which is no embedder",
            hint="it needs what pgrecall.embedding.Embedder describes",
        )
    return made
