"""A source of lines: a file, a packed file or a stream, never held in memory as a whole."""

from __future__ import annotations

import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TextIO, cast

from pgrecall.errors import InvalidInput, TransferError

Source = Path | TextIO | BinaryIO

MAX_LINE_BYTES = 16 * 1024 * 1024
"""Longest line accepted: four documents of 1 MiB, escaped as ``\\uXXXX``, and a vector."""

KEPT_BYTES = 1000
"""How much is kept of a line that is longer than that."""

_CHUNK = 1 << 16
_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """One line that is not blank: its number, counted from 1, and its bytes without the end.

    Of an overlong line only the beginning is there.
    """

    number: int
    raw: bytes
    overlong: bool = False


class LineReader:
    """Reads the lines of a source, once; use it as a context manager.

    Packed (gzip) input is recognised by its first bytes. A stream that was given stays open.

    Args:
        source: A file, or a stream of bytes or text.
        max_line_bytes: Longest line that is returned whole.

    Raises:
        TransferError: The file cannot be opened or read, or its packing is broken.
        InvalidInput: The source is nothing that can be read.
    """

    def __init__(self, source: Source, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self.name = "the stream"
        self.total_bytes: int | None = None
        self._source = source
        self._max = max_line_bytes
        self._read = 0
        self._opened = ExitStack()
        self._file: Any = None
        self._packed: Any = None

    def __enter__(self) -> Self:
        try:
            self._file = self._open()
            if self._file.peek(2)[:2] == _GZIP_MAGIC:
                self._packed = self._file
                # GzipFile's own readline is many times slower.
                self._file = self._opened.enter_context(
                    io.BufferedReader(gzip.GzipFile(fileobj=self._file))
                )
        except OSError as error:
            self._opened.close()
            raise self._failed(error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._opened.close()

    @property
    def bytes_read(self) -> int:
        """How far the source was read, in bytes."""
        return self._packed_position() if self._packed is not None else self._read

    def _packed_position(self) -> int:
        return int(self._packed.tell()) if self.total_bytes is not None else self._read

    def _open(self) -> Any:
        source = self._source
        if isinstance(source, str | os.PathLike):
            self.name = str(source)
            file = Path(source).open("rb")  # noqa: SIM115 - closed by the stack
            self._opened.enter_context(file)
            self.total_bytes = _size(file)
            return file
        stream: Any = getattr(source, "buffer", source)
        if isinstance(stream, io.TextIOBase):
            stream = io.BufferedReader(_Encoding(cast("TextIO", stream)))
            self._opened.callback(stream.detach)
        elif not hasattr(stream, "read"):
            raise InvalidInput(
                f"the source is a {type(source).__name__}", hint="give a Path or an open file"
            )
        elif not hasattr(stream, "peek"):
            stream = io.BufferedReader(stream)
            self._opened.callback(stream.detach)
        self.total_bytes = _size(stream)
        return stream

    def __iter__(self) -> Iterator[Line]:
        """Yield the lines that are not blank.

        Raises:
            TransferError: The source cannot be read on.
        """
        number = 0
        while True:
            try:
                raw, overlong = self._next()
            except (OSError, EOFError, zlib.error) as error:
                raise self._failed(error) from error
            if not raw:
                return
            number += 1
            if number == 1:
                raw = raw.removeprefix(_BOM)
            if raw.strip():
                yield Line(number, raw.rstrip(b"\r\n"), overlong)

    def _next(self) -> tuple[bytes, bool]:
        raw = self._file.readline(self._max + 1)
        self._read += len(raw)
        if len(raw) <= self._max or raw.endswith(b"\n"):
            return raw, False
        beginning = raw[:KEPT_BYTES]
        while raw and not raw.endswith(b"\n"):
            raw = self._file.readline(_CHUNK)
            self._read += len(raw)
        return beginning, True

    def _failed(self, error: Exception) -> TransferError:
        reason = getattr(error, "strerror", None) or str(error)
        return TransferError(
            f"{self.name} cannot be read: {reason}", hint="check that the file is there and whole"
        )


def _size(stream: Any) -> int | None:
    """Size of a stream that is a regular file; None for pipes and what only looks like a file."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, AttributeError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


class _Encoding(io.RawIOBase):
    """The bytes of a text stream that has no binary one below it, such as ``io.StringIO``."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            # A lone surrogate becomes bytes that are no UTF-8, and so a bad line, not a crash.
            self._rest = self._text.read(_CHUNK).encode("utf-8", "surrogatepass")
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
