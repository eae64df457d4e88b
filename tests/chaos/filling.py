"""A full disk: the server's, under writers of every kind; and that of the backups."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.ledger import Fate, Ledger, Tally
from tests.chaos.load import KINDS, episode, under_load
from tests.chaos.place import PATIENCE, Place, standing

from pgrecall.ops.backup import list_backups, open_storage

SERVER_MB, ROOM_MB = 400, 24


class NoSmallDisk(Exception):
    """No file system can be mounted here, which needs root."""


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """Give a file system of its own.

    Raises:
        NoSmallDisk: None can be mounted here.
    """
    with tempfile.TemporaryDirectory(prefix="pgrecall-disk-", dir="/tmp") as place:
        Path(place).chmod(0o755)
        options = f"size={megabytes}m,mode=755"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if mounted.returncode != 0:
            raise NoSmallDisk(mounted.stderr.strip())
        try:
            yield Path(place)
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)


def fill_disk(_place: Place, rounds: int) -> Tally:
    """All kinds of writers meet a full disk, and go on by themselves when there is room again."""
    ledger = Ledger("the server's disk full")
    with small_disk(SERVER_MB) as disk, standing(disk) as place:
        ballast = disk / "ballast"
        with under_load(place, ledger, connect_timeout=2.0):
            for _ in range(rounds):
                _leave(ballast, disk, ROOM_MB)
                ledger.fault()
                refused = _fill(place, ledger)
                ballast.unlink()
                if not refused:
                    ledger.complain("the disk did not fill")
                # A server that could not write its log has ended; an operator starts it again.
                if not place.server.status().running:
                    place.server.start()
                ledger.await_progress(KINDS, seconds=PATIENCE)
        tally = ledger.judge(place.admin_dsn)
    tally.note = f"writers until {ROOM_MB} MB were full"
    return tally


def _leave(ballast: Path, disk: Path, megabytes: int) -> None:
    free = os.statvfs(disk)
    size = free.f_bavail * free.f_frsize - megabytes * 2**20
    with ballast.open("wb") as file:
        while size > 0:
            size -= file.write(b"\0" * min(size, 2**20))


def _fill(place: Place, ledger: Ledger) -> bool:
    """Write large documents until the disk is full, and a little longer."""
    refused = 0
    with place.memory(metrics=False, connect_timeout=2.0, pool_max_size=1) as memory:
        deadline = time.monotonic() + PATIENCE
        while refused < 5 and time.monotonic() < deadline:
            with ledger.entry("large") as write:
                values = episode(write, write.numbers[0])
                memory.episodes.record(**{**values, "action": {"text": os.urandom(60_000).hex()}})
            refused += write.fate is not Fate.ACKNOWLEDGED
            if refused:
                threading.Event().wait(0.05)
    return refused > 0


def fill_backups(place: Place, rounds: int) -> Tally:
    """A backup that finds no room fails, says so, and leaves nothing that passes for one."""
    ledger = Ledger("the backups' disk full")
    with small_disk(4) as disk:
        location = disk / "backups"
        for _ in range(rounds):
            ballast = disk / "ballast"
            _leave(ballast, disk, 0)
            ledger.fault()
            done = place.command("backup", "create", "--to", str(location), "--json")
            if done.returncode == 0:
                ledger.complain("a backup succeeds on a full disk")
            if "space" not in done.stderr.lower():
                ledger.complain(f"what is wrong is not said: {done.stderr[-300:]}")
            if good := [
                one for one in list_backups(open_storage(str(location))) if not one.problem
            ]:
                ledger.complain(f"listed as good: {good}")
            ballast.unlink()
            ledger.tally.writes += 1
            done = place.command("backup", "create", "--to", str(location), "--json")
            ledger.tally.acknowledged += done.returncode == 0
            if done.returncode != 0:
                ledger.complain(f"with room again it fails: {done.stderr[-300:]}")
            for path in sorted(location.rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
    return ledger.tally
