"""The file of the bad lines: each as it stood in the source, with its number and the reason."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from pgrecall.errors import InvalidInput, OperationRefused, PgrecallError, TransferError
from pgrecall.ops.transfer.reading import KEPT_BYTES, Line, Source
from pgrecall.ops.transfer.report import Reject

SUFFIX = ".rejects.jsonl"
FIRST = 10
_LONGEST_REASON = 1000


class RejectsFile:
    """Keeps bad lines; use it as a context manager.

    The file is made with the first bad line and written out after every batch. The file of a
    former run is removed at the start, so what lies there always belongs to the last run.

    Args:
        path: Where to keep them.
        source: The source of the import, which is never taken for a rejects file.

    Raises:
        InvalidInput: ``path`` is the source itself.
        OperationRefused: ``path`` is there and is no rejects file.
        TransferError: It cannot be read or removed.
    """

    def __init__(self, path: Path, source: Source) -> None:
        self.count = 0
        self.first: list[Reject] = []
        self._path = path
        self._file: BinaryIO | None = None
        try:
            self._remove_former(source)
        except OSError as error:
            raise self._failed(error) from error

    @property
    def path(self) -> Path | None:
        """The file; None as long as there was no bad line."""
        return self._path if self.count else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, rejected: Sequence[tuple[Line, PgrecallError]]) -> None:
        """Write bad lines out.

        Raises:
            TransferError: They could not be written.
        """
        if not rejected:
            return
        entries = [(line, str(error)[:_LONGEST_REASON]) for line, error in rejected]
        try:
            if self._file is None:
                self._file = self._path.open("wb", buffering=0)
            text = memoryview(b"".join(_entry(line, reason) for line, reason in entries))
            while text:  # an unbuffered write may take a part only
                text = text[self._file.write(text) :]
        except OSError as error:
            raise self._failed(error) from error
        self.count += len(entries)
        for line, reason in entries[: FIRST - len(self.first)]:
            self.first.append(Reject(line=line.number, reason=reason))

    def _remove_former(self, source: Source) -> None:
        if not self._path.is_file():  # nothing, or a device or pipe that is written as it is
            return
        if isinstance(source, str | os.PathLike) and self._path.samefile(source):
            raise InvalidInput(
                f"the rejects file {self._path} is the source itself", hint="give another path"
            )
        with self._path.open("rb") as former:
            beginning = former.read(9)
        if beginning and beginning != b'{"line": ':
            raise OperationRefused(
                f"{self._path} holds something else than the bad lines of an import",
                hint="give another path for the rejects file, or move that file away",
            )
        self._path.unlink()

    def _failed(self, error: OSError) -> TransferError:
        return TransferError(
            f"the rejects file {self._path} cannot be written: {error.strerror}",
            hint="give another path for it, or make room there",
        )


def default_path(source: Source) -> Path:
    """Return where the bad lines of a source are kept: beside a file, else where we are."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return path.with_name(path.name + SUFFIX)
    return Path("import" + SUFFIX)


def _entry(line: Line, reason: str) -> bytes:
    entry: dict[str, object] = {"line": line.number, "reason": reason}
    try:
        if line.overlong:
            entry["beginning"] = line.raw.decode(errors="replace")[:KEPT_BYTES]
        else:
            entry["text"] = line.raw.decode()
    except UnicodeDecodeError:
        entry["base64"] = base64.b64encode(line.raw).decode()
    text = json.dumps(entry, ensure_ascii=False) + "\n"
    # A reason may quote half of a surrogate pair, which has no UTF-8.
    return text.encode(errors="backslashreplace")
