"""How the server's user gets to the data directory, also behind directories closed to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pgrecall.engine.files import explained
from pgrecall.engine.layout import Layout
from pgrecall.engine.osuser import ServerUser
from pgrecall.errors import EngineError


@dataclass(frozen=True, slots=True)
class View:
    """The data directory as PostgreSQL's programs are told of it.

    Attributes:
        layout: The paths to give to them.
        descriptors: What they must inherit for these paths to work.
        direct: Whether these are the real paths.
    """

    layout: Layout
    descriptors: tuple[int, ...]
    direct: bool


@contextmanager
def opened(layout: Layout, user: ServerUser) -> Iterator[View]:
    """Give the server's user a way into the data directory without changing any mode on it.

    A home directory is often closed to others (0700). Root can enter it, the server's user can't;
    but a process may use a directory that it inherited open, whatever lies above it. So the server
    gets an open descriptor, and ``/proc/self/fd/N`` as the path of its data.

    Raises:
        EngineError: The server's user cannot enter either way.
    """
    blocked = user.blocking_directory(layout.data_dir)
    if blocked is None:
        yield View(layout, (), direct=True)
        return
    with explained("open", layout.data_dir):
        descriptor = os.open(layout.data_dir, os.O_PATH | os.O_DIRECTORY)
    try:
        inherited = Path(f"/proc/self/fd/{descriptor}")
        test: list[str | Path] = ["/bin/sh", "-c", 'cd -- "$1"', "sh", inherited]
        if user.run(test, pass_fds=(descriptor,)).returncode != 0:
            raise EngineError(
                f"the user {user.name}, which runs PostgreSQL for root, may not enter {blocked}",
                hint="choose a data directory elsewhere, such as /var/lib/pgrecall, "
                "with PGRECALL_DATA_DIR",
            )
        yield View(Layout(inherited), (descriptor,), direct=False)
    finally:
        os.close(descriptor)
