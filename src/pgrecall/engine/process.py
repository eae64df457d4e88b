"""Is the server running, and which process is it? A PID file alone is never believed."""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pgrecall.errors import MissingExtra

if TYPE_CHECKING:
    import psutil

_PID_FILE_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Postmaster:
    """The main process of a running server.

    Attributes:
        process: The process; psutil notices when its PID is given to another.
        port: TCP port it listens on.
        status: What it says of itself: ``starting``, ``ready``, ``stopping`` or ``standby``.
        since: When it started.
    """

    process: psutil.Process
    port: int
    status: str
    since: datetime


def find_postmaster(cluster: Path) -> Postmaster | None:
    """Return the server that runs on the directory ``cluster``, or None.

    The PID in ``postmaster.pid`` counts only if that process is a ``postgres`` that works in
    this very directory: after a crash the number may belong to anybody.

    Raises:
        MissingExtra: psutil is not installed.
    """
    try:
        with (cluster / "postmaster.pid").open(encoding="utf-8", errors="replace") as stream:
            lines = stream.read(_PID_FILE_LIMIT).splitlines()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    # PID, directory, start, port, socket directory, address, shared memory, status.
    if len(lines) < 4 or not (lines[0].strip().isdigit() and lines[3].strip().isdigit()):
        return None
    process = _server_process(int(lines[0]), cluster)
    if process is None:
        return None
    return Postmaster(
        process=process,
        port=int(lines[3]),
        status=lines[7].strip() if len(lines) > 7 else "starting",
        since=datetime.fromtimestamp(process.create_time(), UTC),
    )


def orphans(cluster: Path) -> list[psutil.Process]:
    """Return every process of a server on ``cluster``; without its postmaster, they are orphans."""
    psutil = _psutil()
    found = (_server_process(pid, cluster) for pid in psutil.pids())
    return [process for process in found if process is not None]


def ended(process: psutil.Process, *, timeout: float) -> bool:
    """Wait until ``process`` has ended.

    A zombie has: in a container the first process may never collect it.

    Args:
        process: The process; not fooled if its PID is given to another meanwhile.
        timeout: Seconds to wait.

    Returns:
        Whether it ended in time.
    """
    psutil = _psutil()
    deadline = time.monotonic() + timeout
    while True:
        try:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)


def _server_process(pid: int, cluster: Path) -> psutil.Process | None:
    psutil = _psutil()
    try:
        process = psutil.Process(pid)
        if process.name() != "postgres" or process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process if Path(process.cwd()).samefile(cluster) else None
    except (psutil.Error, OSError):
        # Gone, or another user's: either way not a server that we could have started.
        return None


def _psutil() -> ModuleType:
    try:
        return importlib.import_module("psutil")
    except ImportError as error:
        raise MissingExtra("the embedded server", "postgres") from error
