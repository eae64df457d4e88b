"""Locks that the kernel drops when their holder dies, so no crash leaves one behind."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pgrecall.engine.files import explained
from pgrecall.errors import EngineError

_POLL_SECONDS = 0.05


def try_lock(path: Path) -> int | None:
    """Lock ``path`` exclusively, creating it where it is missing.

    Returns:
        The open descriptor that holds the lock, or None when somebody else holds it.

    Raises:
        EngineError: The lock file cannot be opened.
    """
    with explained("open the lock", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever deleted the data directory meanwhile left us the lock of a file without a name.
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


@contextmanager
def exclusive(path: Path, *, timeout: float) -> Iterator[None]:
    """Hold the lock on ``path`` for the block.

    Args:
        path: The lock file.
        timeout: Seconds to wait for another holder.

    Raises:
        EngineError: The lock stayed taken for ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while (descriptor := try_lock(path)) is None:
        if time.monotonic() >= deadline:
            raise EngineError(
                f"another process has held {path} for {timeout:.0f} s: "
                "it starts, stops or deletes this server",
                hint="wait for it, or end that process and try again",
            )
        time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        os.close(descriptor)
