"""Where an export is written: a file that appears only when it is whole, or a stream."""

from __future__ import annotations

import gzip
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from pgrecall.errors import TransferError

Target = Path | IO[bytes]


@contextmanager
def open_target(target: Target) -> Iterator[IO[bytes]]:
    """Give the stream to write to; a name that ends in ``.gz`` is packed.

    A file is written beside its name, flushed to disk and renamed at the end, so under its name
    stands the former content or the whole new one. A link is followed, the mode of a file that
    is replaced is kept; devices and pipes are written directly.

    Raises:
        TransferError: It could not be written; nothing was left behind.
    """
    try:
        if not isinstance(target, str | os.PathLike):
            yield target
            target.flush()
            return
        path = Path(os.path.realpath(target))
        if path.exists() and not path.is_file():
            with path.open("wb") as device:
                yield device
            return
        with _replacing(path) as file:
            yield file
    except OSError as error:
        name = target if isinstance(target, str | os.PathLike) else "the stream"
        raise TransferError(
            f"{name} cannot be written: {error.strerror or error}",
            hint="check the path and the room there, and export again",
        ) from error


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with ExitStack() as opened:
            file = opened.enter_context(part.open("xb"))
            if path.exists():
                shutil.copymode(path, part)
            if path.suffix == ".gz":
                with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                    yield packed  # type: ignore[misc]
            else:
                yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
