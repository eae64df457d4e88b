"""Backups in a directory, readable by its owner alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from pgrecall.errors import BackupError
from pgrecall.ops.backup.manifest import FILE

_PARTIAL = ".partial"


class Directory:
    """Backups in a directory.

    Args:
        root: The directory, absolute; made at the first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def address(self) -> str:
        """The path."""
        return str(self.root)

    def folders(self) -> Iterator[str]:
        """Give the names of all folders, sorted."""
        with self._explained("read"):
            entries = sorted(self.root.iterdir()) if self.root.exists() else []
        yield from (entry.name for entry in entries if entry.is_dir())

    def changed(self, folder: str) -> datetime:
        """Return when something was last written to a folder."""
        path = self.root / folder
        times = [entry.stat().st_mtime for entry in (path, *path.iterdir())]
        return datetime.fromtimestamp(max(times), UTC)

    def read(self, folder: str, file: str) -> bytes | None:
        """Return a small file whole; None when there is none."""
        try:
            with self._explained("read"):
                return (self.root / folder / file).read_bytes()
        except BackupError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def size(self, folder: str, file: str) -> int | None:
        """Return a file's length; None when there is none."""
        path = self.root / folder / file
        return path.stat().st_size if path.exists() else None

    @contextmanager
    def open_read(self, folder: str, file: str) -> Iterator[BinaryIO]:
        """Open a file for reading from its start."""
        with self._explained("read"), (self.root / folder / file).open("rb") as stream:
            yield stream

    @contextmanager
    def open_write(self, folder: str, file: str) -> Iterator[BinaryIO]:
        """Open a new file. It is there, durably, when the block ends well, else it is not."""
        path = self.root / folder / file
        partial = path.with_name(file + _PARTIAL)
        with self._explained("write to"):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    yield stream
                    stream.flush()
                    os.fsync(stream.fileno())
                partial.replace(path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
            for directory in (path.parent, self.root):
                _sync(directory)

    def path(self, folder: str, file: str) -> Path:
        """Return where a file lies."""
        return self.root / folder / file

    def delete(self, folder: str) -> None:
        """Delete a folder with its files, the manifest first."""
        path = self.root / folder
        with self._explained("delete from"):
            (path / FILE).unlink(missing_ok=True)
            shutil.rmtree(path)

    @contextmanager
    def _explained(self, verb: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BackupError(
                f"cannot {verb} {error.filename or self.root}: {error.strerror or error}",
                hint="check the directory, its owner and the space on its disk; "
                "PGRECALL_BACKUPS or --to names another",
            ) from error


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
