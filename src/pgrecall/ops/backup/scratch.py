"""A server that is used once: production is not touched, and nothing is left of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pgrecall.config import Settings
from pgrecall.engine import EmbeddedServer


@contextmanager
def scratch_server(settings: Settings, say: Callable[[str], None]) -> Iterator[EmbeddedServer]:
    """Start an embedded server in a temporary directory (``TMPDIR``), and delete it at the end.

    Raises:
        MissingExtra: Neither the ``postgres`` extra is installed nor ``PGRECALL_PG_BIN`` set.
        EngineError: It cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="pgrecall-scratch-") as folder:
        # PostgreSQL's user must be able to pass through; what lies inside has modes of its own.
        Path(folder).chmod(0o711)
        server = EmbeddedServer(Path(folder) / "server", pg_bin=settings.pg_bin)
        server.start(progress=say)
        try:
            yield server
        finally:
            server.destroy(force=True)
