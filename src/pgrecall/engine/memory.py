"""How much memory the machine (or the container) gives us, and what PostgreSQL may take of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pgrecall.errors import MissingExtra

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Machine:
    """What the server may count on.

    Attributes:
        memory: Bytes of memory, the smaller of the machine's and the container's.
        shared_memory: Size of ``/dev/shm`` in bytes; 0 without one.
        cpus: Processors that we may use.
    """

    memory: int
    shared_memory: int
    cpus: int


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """PostgreSQL's settings of the same names; sizes in MiB."""

    shared_buffers: int
    effective_cache_size: int
    maintenance_work_mem: int
    autovacuum_work_mem: int
    work_mem: int
    max_parallel_maintenance_workers: int


def plan(machine: Machine) -> MemoryPlan:
    """Share the machine with the agent that runs on it: an eighth of the memory, at most 2 GiB.

    A parallel index build takes ``maintenance_work_mem`` from ``/dev/shm`` and fails where that
    is too small (64 MB in most containers), so it stays serial there.
    """
    total = machine.memory // MIB
    maintenance = _between(64, total // 16, 1024)
    room = machine.shared_memory // MIB >= maintenance + 64
    return MemoryPlan(
        shared_buffers=_between(64, total // 8, 2048),
        effective_cache_size=max(128, total // 2),
        maintenance_work_mem=maintenance,
        autovacuum_work_mem=min(maintenance, 256),
        work_mem=_between(4, total // 512, 32),
        max_parallel_maintenance_workers=_between(0, machine.cpus - 1, 4) if room else 0,
    )


def this_machine() -> Machine:
    """Measure the machine, or the container that we are in.

    Raises:
        MissingExtra: psutil is not installed.
    """
    try:
        import psutil
    except ImportError as error:
        raise MissingExtra("the embedded server", "postgres") from error
    limits = cgroup_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    shm = Path("/dev/shm")  # noqa: S108 (not a place for files: its size is what matters)
    usage = os.statvfs(shm) if shm.is_dir() else None
    return Machine(
        memory=min([psutil.virtual_memory().total, *limits]),
        shared_memory=usage.f_blocks * usage.f_frsize if usage else 0,
        cpus=len(os.sched_getaffinity(0)),
    )


def cgroup_limits(membership: Path, root: Path) -> list[int]:
    """Return the memory limits, in bytes, of the control groups that we are in.

    Args:
        membership: ``/proc/self/cgroup``.
        root: ``/sys/fs/cgroup``; versions 1 and 2 are understood.
    """
    if not membership.is_file():
        return []
    limits = []
    for line in membership.read_text(encoding="ascii", errors="replace").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            folder, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        # A limit on any group above holds as well; inside a container the names may not exist.
        inner = folder / group.lstrip("/")
        for directory in [inner, *inner.parents]:
            limits += _limit(directory / name)
            if directory == folder:
                break
    return limits


def _limit(path: Path) -> list[int]:
    if not path.is_file():
        return []
    text = path.read_text(encoding="ascii").strip()
    # "max" means none; version 1 says so with a number near 2**63.
    return [int(text)] if text.isdigit() and int(text) < 2**62 else []


def _between(least: int, value: int, most: int) -> int:
    return max(least, min(value, most))
