"""Small file operations that must not leave half a file, follow a planted link, or blame Python."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pgrecall.errors import EngineError


@contextmanager
def explained(action: str, path: Path, *, hint: str | None = None) -> Iterator[None]:
    """Turn an ``OSError`` inside the block into an ``EngineError`` that names ``path``.

    Args:
        action: What was being done, as it reads after "cannot", such as ``"create"``.
        path: The file or directory concerned.
        hint: What to do about it; None derives it from the error.

    Raises:
        EngineError: The operating system refused.
    """
    try:
        yield
    except (OSError, shutil.Error) as error:
        raise EngineError(
            f"cannot {action} {path}: {reason(error)}", hint=hint or _hint(error, path)
        ) from error


def reason(error: OSError) -> str:
    """Say why in words; ``shutil`` packs many errors in one, so the first stands for all."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        return str(error.args[0][0][2])
    return error.strerror or str(error)


def _hint(error: OSError, path: Path) -> str | None:
    if error.errno in (errno.EACCES, errno.EPERM):
        return "run as its owner, or choose another directory with PGRECALL_DATA_DIR"
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
        return f"free some space on the disk that holds {path}"
    if error.errno == errno.EROFS:
        return "choose a directory on a writable file system with PGRECALL_DATA_DIR"
    return None


def write_atomically(path: Path, text: str, mode: int) -> None:
    """Replace ``path`` by a file that holds ``text``; a reader sees the old or the new, whole.

    Args:
        path: The file; what stands there, even a link, is replaced rather than followed.
        text: The content, written as UTF-8.
        mode: Permission bits of the new file.

    Raises:
        EngineError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with explained("write", path):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                os.fchmod(stream.fileno(), mode)
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames inside ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Delete a directory that may be gone already, or a file or link in its place.

    Raises:
        EngineError: Something in it cannot be deleted.
    """
    with explained("delete", path):
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)


def free_bytes(path: Path) -> int:
    """Return the bytes that are free for ordinary users on the file system of ``path``."""
    usage = os.statvfs(path)
    return usage.f_bavail * usage.f_frsize
