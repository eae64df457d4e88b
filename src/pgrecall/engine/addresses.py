"""Where the server listens: a port of 127.0.0.1 that stays, and a directory for its socket."""

from __future__ import annotations

import os
import random
import socket
import stat
import tempfile
from pathlib import Path

from pgrecall.engine.files import explained
from pgrecall.engine.osuser import ServerUser
from pgrecall.errors import EngineError

HOST = "127.0.0.1"
"""An address, since images without /etc/hosts cannot resolve "localhost"."""

_LONGEST_SOCKET_PATH = 107
# Below the range from which the kernel takes ports of outgoing connections: one of those could
# sit on ours whenever the server is down.
_PORTS = range(20_000, 32_000)


def choose_port() -> int:
    """Return a port of 127.0.0.1 that is free now.

    Raises:
        EngineError: Two hundred ports in a row were taken.
    """
    for port in random.sample(_PORTS, 200):
        if port_is_free(port):
            return port
    raise EngineError(
        f"no free port found on {HOST} between {_PORTS.start} and {_PORTS.stop}",
        hint="stop whatever occupies them, or check that the loopback interface is up",
    )


def port_is_free(port: int) -> bool:
    """Whether a server could listen on ``port`` of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As PostgreSQL does: connections that linger after a stop don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def fits_socket(directory: Path) -> bool:
    """Whether the socket's path in ``directory`` stays within what the kernel accepts."""
    return len(os.fsencode(directory / ".s.PGSQL.65535")) <= _LONGEST_SOCKET_PATH


def socket_directory(usual: Path, remembered: Path | None, user: ServerUser) -> Path:
    """Return a directory for the socket that only the server's user may enter, making it if needed.

    Args:
        usual: The directory inside the data directory.
        remembered: The short one that an earlier start had to choose instead, if any.
        user: Who runs the server.

    Raises:
        EngineError: None can be made.
    """
    if fits_socket(usual):
        with explained("create", usual):
            if not _is_private(usual, user):
                usual.mkdir(mode=0o700)
                user.own(usual)
        return usual
    # A short directory may have been swept away, and its name taken by somebody else.
    if remembered and fits_socket(remembered) and _is_private(remembered, user):
        return remembered
    parent = _short_parent()
    with explained("create a directory in", parent):
        made = Path(tempfile.mkdtemp(prefix="pgrecall-", dir=parent))
        user.own(made)
    return made


def _is_private(path: Path, user: ServerUser) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        return False
    return found.st_uid == user.uid and stat.S_IMODE(found.st_mode) == 0o700


def _short_parent() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.geteuid() != 0:
        path = Path(runtime)
        short = fits_socket(path / "pgrecall-12345678")
        if short and path.is_dir() and path.stat().st_uid == os.geteuid():
            return path
    return Path("/tmp")  # noqa: S108 (mkdtemp makes a private directory in it)
