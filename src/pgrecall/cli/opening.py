"""Opening the memory for one command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgrecall import Memory
    from pgrecall.config import Settings


def quiet(settings: Settings) -> Settings:
    """Return settings that open no port: a short command is not what Prometheus watches."""
    return settings.model_copy(update={"prometheus": False, "prometheus_port": None})


@contextmanager
def open_memory(dsn: str | None, embedder: str | None = None) -> Iterator[Memory]:
    """Open the memory that the options or the settings mean, and close it afterwards.

    Raises:
        PgrecallError: What ``Memory.open`` raises.
    """
    from pgrecall import Memory
    from pgrecall.cli.output import working
    from pgrecall.config import load_settings
    from pgrecall.targets import resolve_dsn

    settings = quiet(load_settings(dsn=dsn, embedder=embedder))
    # Resolved here rather than in open(), to show what takes so long at the first time.
    with working("opening the memory", at_once=False) as progress:
        target = resolve_dsn(settings, progress=progress)
    with Memory.open(target, settings=settings) as memory:
        yield memory
