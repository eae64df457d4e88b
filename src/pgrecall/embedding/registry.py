"""From the name of an embedder to the embedder."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pgrecall.embedding.base import Embedder
from pgrecall.embedding.factory import from_python
from pgrecall.embedding.none import DEFAULT_DIMENSIONS, MAX_DIMENSIONS, NoEmbedder
from pgrecall.errors import ConfigurationError, MissingExtra

if TYPE_CHECKING:
    from pgrecall.config import Settings

DEFAULT = "builtin"
_KNOWN = (
    "`ollama:MODEL`, `openai:MODEL`, `sentence-transformers:MODEL`, `builtin`, `none` and "
    "`python:MODULE:FACTORY`"
)
# What the extra of the provider's name brings.
_SERVED = ("circuitbreaker", "numpy", "tenacity")
_PACKAGES = {
    "ollama": ("ollama", *_SERVED),
    "openai": ("openai", *_SERVED),
    "sentence-transformers": ("sentence_transformers", "numpy"),
}
_WIDTH = re.compile(r"(?P<model>.+)@(?P<width>[0-9]+)")


def get_embedder(
    spec: str | None, *, dimensions: int | None = None, settings: Settings | None = None
) -> Embedder:
    """Return the embedder that ``spec`` names.

    Args:
        spec: ``builtin`` (also for None), ``none``, ``ollama:MODEL``, ``openai:MODEL``,
            ``sentence-transformers:MODEL`` (a name or a path), or ``python:MODULE:FACTORY``, where
            ``FACTORY`` is a callable without arguments that returns an ``Embedder``. For ollama
            and openai, ``MODEL@N`` asks for vectors of N dimensions.
        dimensions: The length its vectors must have; None takes the embedder's own
            (1536 for ``none``).
        settings: How long to wait for a server, and how often to try; None reads the environment.

    Raises:
        ConfigurationError: No such embedder, or its vectors have another length.
        MissingExtra: The packages it needs are not installed.
        EmbeddingError: Nothing but the server could tell the length, and it did not.
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
        embedder = _from_factory(name)
    elif provider in _PACKAGES and rest.strip():
        embedder = _of_provider(provider, rest.strip(), dimensions, settings)
    else:
        raise ConfigurationError(f"there is no embedder {name!r}", hint=f"choose one of {_KNOWN}")
    if dimensions is not None and dimensions != embedder.dimensions:
        raise ConfigurationError(
            f"the embedder {name!r} makes vectors of {embedder.dimensions} dimensions,"
            f" not {dimensions}",
            hint=f"use {embedder.dimensions} dimensions, or another embedder",
        )
    return embedder


def _of_provider(
    provider: str, model: str, dimensions: int | None, settings: Settings | None
) -> Embedder:
    """Make an embedder of one of the providers that need packages of their own."""
    if "://" in model:
        # The address stays out of the message, as a password may stand in it.
        raise ConfigurationError(
            f"the embedder {provider!r} is given an address in place of a model",
            hint="name the model, and set OLLAMA_HOST or OPENAI_BASE_URL to the address",
        )
    if any(find_spec(package) is None for package in _PACKAGES[provider]):
        raise MissingExtra(f"the embedder {provider}:{model}", provider)
    if provider == "sentence-transformers":
        from pgrecall.embedding.sentence_transformers import SentenceTransformerEmbedder

        return SentenceTransformerEmbedder(model, expected=dimensions)
    from pgrecall.embedding.resilience import Policy

    policy = Policy.of(settings)
    width = None
    if asked := _WIDTH.fullmatch(model):
        model, width = asked["model"], int(asked["width"])
        if not 1 <= width <= MAX_DIMENSIONS:
            raise ConfigurationError(
                f"vectors cannot have {width} dimensions, as {provider}:{asked[0]} asks",
                hint=f"choose a number from 1 to {MAX_DIMENSIONS}",
            )
    if provider == "ollama":
        from pgrecall.embedding.ollama import OllamaEmbedder

        return OllamaEmbedder(model, width=width, expected=dimensions, policy=policy)
    from pgrecall.embedding.openai import OpenAIEmbedder

    return OpenAIEmbedder(model, width=width, expected=dimensions, policy=policy)


def _from_factory(name: str) -> Embedder:
    """Import what ``python:MODULE:FACTORY`` names and call it."""
    factory = from_python(name, "embedder")
    made = factory() if callable(factory) else factory
    if not isinstance(made, Embedder):
        raise ConfigurationError(
            f"{name!r} gave a {type(made).__name__}, which is no embedder",
            hint="it needs what pgrecall.embedding.Embedder describes",
        )
    return made
