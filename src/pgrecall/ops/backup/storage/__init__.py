"""Where backups are kept: a directory, or a bucket of an S3-compatible store.

A backup is a folder of files. It exists from the moment that its manifest does, which is written
last; whatever has none is the remains of one that was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import urlsplit

from pgrecall.errors import ConfigurationError


class Storage(Protocol):
    """Files in folders, one level deep."""

    @property
    def address(self) -> str:
        """Where it is, as a person would name it."""

    def folders(self) -> Iterator[str]:
        """Give the names of all folders, sorted."""

    def changed(self, folder: str) -> datetime:
        """Return when something was last written to a folder."""

    def read(self, folder: str, file: str) -> bytes | None:
        """Return a small file whole; None when there is none."""

    def size(self, folder: str, file: str) -> int | None:
        """Return a file's length; None when there is none."""

    def open_read(self, folder: str, file: str) -> AbstractContextManager[BinaryIO]:
        """Open a file for reading from its start."""

    def open_write(self, folder: str, file: str) -> AbstractContextManager[BinaryIO]:
        """Open a new file. It is there, durably, when the block ends well, else it is not."""

    def path(self, folder: str, file: str) -> Path | None:
        """Return where a file lies, if programs here can read it by path."""

    def delete(self, folder: str) -> None:
        """Delete a folder with its files, the manifest first."""


def open_storage(location: str) -> Storage:
    """Return the storage at a location.

    Args:
        location: A directory, or ``s3://BUCKET/PREFIX``.

    Raises:
        ConfigurationError: It is neither.
        MissingExtra: It is a bucket, and ``s3`` is not installed.
    """
    parts = urlsplit(location)
    if parts.scheme == "s3":
        from pgrecall.ops.backup.storage.s3 import Bucket

        return Bucket(parts.netloc, parts.path)
    if "://" in location:
        raise ConfigurationError(
            f"backups cannot go to {parts.scheme}://...",
            hint="give a directory, or s3://BUCKET/PREFIX",
        )
    from pgrecall.ops.backup.storage.directory import Directory

    return Directory(Path(location).expanduser().absolute())
