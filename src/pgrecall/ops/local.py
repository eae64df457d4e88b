"""Whether the server runs on this machine, where its processes, disk and memory can be seen."""

from __future__ import annotations

import os
from pathlib import Path

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where PostgreSQL's posix segments lie on Linux
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def is_local(host: str, backend_pid: int) -> bool:
    """Tell whether a server is on this machine.

    A forwarded port looks local too, but a backend is then no process of this machine.

    Args:
        host: Where the connection leads, as ``connection.info.host`` says.
        backend_pid: What ``pg_backend_pid()`` answered on it.
    """
    if not (host.startswith("/") or host in _LOOPBACK):
        return False
    try:
        name = Path(f"/proc/{backend_pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return False
    return name == "postgres"


def shared_memory_free() -> int | None:
    """Return the bytes free in this machine's ``/dev/shm``; None where there is none."""
    try:
        status = os.statvfs(_SHARED_MEMORY)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def memory_of_this_machine() -> int | None:
    """Return the bytes of memory that this machine has, or that this container may use."""
    found = [
        int(line.split()[1]) * 1024
        for line in _read("/proc/meminfo").splitlines()
        if line.startswith("MemTotal:")
    ]
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    if limit.isdigit():
        found.append(int(limit))
    return min(found, default=None)


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
