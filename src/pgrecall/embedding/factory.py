"""Things of the user's own, by the name of a module and of what it holds."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pgrecall.errors import ConfigurationError


def from_python(target: str, what: str) -> Any:
    """Import what ``python:MODULE:NAME`` names.

    Args:
        target: The name.
        what: What it is to be, for messages.

    Raises:
        ConfigurationError: It names nothing that can be imported.
    """
    module_name, _, attribute = target.removeprefix("python:").partition(":")
    if not module_name or not attribute:
        raise ConfigurationError(
            f"the {what} {target!r} names no factory", hint="write python:MODULE:FACTORY"
        )
    try:
        found: Any = import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"the {what} {target!r} cannot be imported: {error}",
            hint="check the module's name and that it is on the Python path",
        ) from error
    return found
