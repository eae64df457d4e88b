"""Memory, processors and disk of the server, where it runs on the monitor's machine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from pgrecall.driver import Statements
from pgrecall.ops.local import is_local
from pgrecall.telemetry.families import Family, gauge


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the server uses.

    Attributes:
        memory_bytes: Memory of its processes, what they share counted once; None if unknown.
        cpu_ratio: Share of the machine's processors, 0 to 1, since the measurement before; None
            at the first one, or if unknown.
    """

    memory_bytes: int | None = None
    cpu_ratio: float | None = None


class Host:
    """Watches the server's processes and the disk of its data.

    Args:
        disk: A path on the disk of the data; None for the data directory itself.
    """

    def __init__(self, disk: Path | None = None) -> None:
        self._disk = disk
        self._usage = Usage()
        self._before: tuple[float, dict[tuple[int, float], float]] | None = None

    def measure(self, statements: Statements) -> Usage:
        """Measure what the server has used since the last call."""
        postmaster = _postmaster(statements)
        self._usage = Usage() if postmaster is None else self._measure(postmaster)
        return self._usage

    def _measure(self, postmaster: psutil.Process) -> Usage:
        now, busy = time.monotonic(), {}
        private = shared = 0
        try:
            processes = (postmaster, *postmaster.children(recursive=True))
        except psutil.Error:
            return Usage()  # it ended meanwhile
        for process in processes:
            try:
                with process.oneshot():
                    memory, times = process.memory_info(), process.cpu_times()
                    busy[process.pid, process.create_time()] = times.user + times.system
            except psutil.Error:
                continue  # it ended meanwhile
            private += memory.rss - memory.shared
            # The shared memory of all is the same one; who touched most of it shows its size.
            shared = max(shared, memory.shared)
        before, self._before = self._before, (now, busy)
        ratio = None
        if before is not None and now > before[0]:
            used = sum(seconds - before[1].get(key, 0.0) for key, seconds in busy.items())
            ratio = min(1.0, used / (now - before[0]) / (psutil.cpu_count() or 1))
        return Usage(memory_bytes=private + shared, cpu_ratio=ratio)

    def collect(self, statements: Statements) -> Iterator[Family]:
        """Return the last measurement, and the disk as it is now."""
        place = self._disk or _data_directory(statements)
        disk = None if place is None else os.statvfs(place)
        for name, value in (
            ("pgrecall_disk_free_bytes", disk and disk.f_bavail * disk.f_frsize),
            ("pgrecall_disk_size_bytes", disk and disk.f_blocks * disk.f_frsize),
            ("pgrecall_server_memory_bytes", self._usage.memory_bytes),
            ("pgrecall_server_cpu_ratio", self._usage.cpu_ratio),
        ):
            if value is not None:
                yield gauge(name, [((), float(value))])


def _local_backend(statements: Statements) -> tuple[int, Path | None] | None:
    row = statements.one("place")
    if not is_local(statements.connection.info.host, row["backend_pid"]):
        return None
    directory = row["data_directory"]
    return row["backend_pid"], None if directory is None else Path(directory)


def _postmaster(statements: Statements) -> psutil.Process | None:
    found = _local_backend(statements)
    if found is None:
        return None
    try:
        return psutil.Process(found[0]).parent()
    except psutil.Error:
        return None


def _data_directory(statements: Statements) -> Path | None:
    found = _local_backend(statements)
    directory = None if found is None else found[1]
    if directory is None:
        return None
    try:
        os.statvfs(directory)
    except OSError:
        return None  # closed to the monitor's system user: --disk names what is open to it
    return directory
