"""The server's log: one file in the data directory, bounded, readable after a failure."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pgrecall.engine.files import explained

LARGEST = 32 * 1024 * 1024
"""Bytes after which the log becomes ``server.log.1`` and begins anew."""

_TAIL_BYTES = 256 * 1024


def open_log(path: Path) -> int:
    """Open the log for appending and return the descriptor; never follows a link.

    Raises:
        EngineError: It cannot be opened.
    """
    with explained("open", path):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        return os.open(path, flags, 0o600)


def rotate(path: Path) -> None:
    """Move a log that has grown large aside; the server may be writing to it.

    It appends, so copying and truncating loses at most the lines written in between.
    """
    if path.is_symlink() or not path.is_file() or path.stat().st_size < LARGEST:
        return
    previous = path.with_name(path.name + ".1")
    with explained("rotate", path):
        previous.unlink(missing_ok=True)
        descriptor = os.open(previous, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with path.open("rb") as source, os.fdopen(descriptor, "wb") as target:
            shutil.copyfileobj(source, target)
        os.truncate(path, 0)


def size(path: Path) -> int:
    """Return the length of the log in bytes, 0 when there is none."""
    return path.stat().st_size if path.exists() else 0


def tail(path: Path, lines: int, *, since: int = 0) -> list[str]:
    """Return the last lines of the log.

    Args:
        path: The log.
        lines: How many at most; the newest 256 kB are searched.
        since: Ignore what stands before this offset, in bytes.

    Raises:
        EngineError: It cannot be read.
    """
    if lines <= 0 or not path.exists():
        return []
    with explained("read", path), path.open("rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, since, end - _TAIL_BYTES))
        return stream.read().decode("utf-8", errors="replace").splitlines()[-lines:]
