"""Writing the files: each in one step, with its mode from the start."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

from pgrecall.errors import OperationRefused
from pgrecall.ops.pooler.rendering import MARK
from pgrecall.ops.provision.report import Journal


def check_ours(path: Path) -> None:
    """Refuse to replace a file that somebody else made.

    Raises:
        OperationRefused: It does not begin as ours do, or cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise OperationRefused(
            f"nothing was changed: {path} cannot be read: {error.strerror}",
            hint="run this as the file's owner, or name another directory",
        ) from error
    if text and not text.startswith(MARK):
        raise OperationRefused(
            f"nothing was changed: {path} was not made by pgrecall",
            hint="name another directory, or move that file away",
        )


def write(path: Path, text: str, mode: int, owner: str | None, journal: Journal) -> None:
    """Bring a file to this text, mode and owner.

    Raises:
        OperationRefused: It cannot be written.
    """
    detail = f"mode {mode:04o}"
    if _is(path, text, mode, owner):
        journal.unchanged("file", str(path), detail)
        return
    act = journal.change if path.exists() else journal.create
    try:
        act("file", str(path), lambda: _replace(path, text, mode, owner), detail)
    except OSError as error:
        raise OperationRefused(
            f"{path} cannot be written: {error.strerror}",
            hint="name another directory; what was made on the server is found by the next run",
        ) from error


def _is(path: Path, text: str, mode: int, owner: str | None) -> bool:
    if not path.exists():
        return False
    state = path.stat()
    return (
        path.read_text(encoding="utf-8", errors="replace") == text
        and stat.S_IMODE(state.st_mode) == mode
        and (owner is None or path.owner() == owner)
    )


def _replace(path: Path, text: str, mode: int, owner: str | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        if owner is not None:
            shutil.chown(temporary, owner)
        elif path.exists() and os.geteuid() == 0:
            state = path.stat()  # who gave it to PgBouncer's user meant it to stay there
            os.chown(temporary, state.st_uid, state.st_gid)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
