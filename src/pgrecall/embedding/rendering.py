"""What makes the texts that are embedded, and its name: vectors of other texts don't compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from pgrecall.core.text import TEXT_VERSION, render_episode
from pgrecall.embedding.base import RenderEpisode
from pgrecall.embedding.factory import from_python
from pgrecall.errors import ConfigurationError

USUAL = f"pgrecall@{TEXT_VERSION}"


@dataclass(frozen=True, slots=True)
class Renderer:
    """A function that makes texts, and its name.

    Attributes:
        render: Makes the text of an episode.
        name: ``pgrecall@VERSION`` for the usual one, ``python:MODULE:FUNCTION`` for another, with
            ``@VERSION`` behind it where the function has an attribute ``version``.
    """

    render: RenderEpisode
    name: str

    @classmethod
    def of(cls, given: RenderEpisode | str | None) -> Self:
        """Return the renderer that is meant: by a name, a function, or None for the usual one.

        Raises:
            ConfigurationError: There is none of that name.
        """
        if given is None or given is render_episode:
            return cls(render_episode, USUAL)
        if isinstance(given, str):
            return cls.named(given)
        module = getattr(given, "__module__", type(given).__module__)
        name = getattr(given, "__qualname__", type(given).__qualname__)
        return cls(given, _versioned(f"python:{module}:{name}", given))

    @classmethod
    def named(cls, name: str | None) -> Self:
        """Return the renderer of a name, as it stands in the settings or in a database.

        Raises:
            ConfigurationError: It cannot be imported, or has another version by now.
        """
        if name is None or name.partition("@")[0] == "pgrecall":
            _check_version(name or USUAL, USUAL)
            return cls(render_episode, USUAL)
        target = name.partition("@")[0]
        if not target.startswith("python:"):
            raise ConfigurationError(
                f"there is no renderer {name!r}", hint="write python:MODULE:FUNCTION"
            )
        function: Callable[..., str] = from_python(target, "renderer")
        found = _versioned(target, function)
        _check_version(name if "@" in name else found, found)
        return cls(function, found)


def _versioned(name: str, function: object) -> str:
    version = getattr(function, "version", None)
    return name if version is None else f"{name}@{version}"


def _check_version(wanted: str, found: str) -> None:
    if wanted != found:
        raise ConfigurationError(
            f"the texts are made by {wanted}, and what there is here is {found}",
            hint="use the version of the code that made them, or change the database's with "
            "`pgrecall embeddings switch`",
        )
