"""Which database is meant when none is named."""

from __future__ import annotations

from pgrecall.config import Settings


def resolve_dsn(settings: Settings, role: str = "app") -> str:
    """Return a working connection string for a role of the memory.

    In order: ``PGRECALL_DSN`` (or ``PGRECALL_OWNER_DSN`` for the owner), what ``pgrecall init``
    wrote for this user, and the embedded server, which is started and provisioned if need be.

    Raises:
        ConfigurationError: The role is not known here.
        MissingExtra: Nothing is configured, and the embedded server is not installed.
        EngineError: The embedded server could not be started.
    """
    raise NotImplementedError
