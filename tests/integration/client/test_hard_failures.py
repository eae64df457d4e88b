"""A full disk and a killed server, for real, on servers of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pgrecall import Memory, errors
from pgrecall.config import load_settings
from pgrecall.engine import EmbeddedServer
from pgrecall.ops.provision import dsn_for, init
from pgrecall.testing import HashEmbedder


@contextmanager
def server_with_memory(directory: Path, config: Path) -> Iterator[tuple[EmbeddedServer, str, Any]]:
    server = EmbeddedServer(directory / "server")
    server.start()
    try:
        settings = load_settings(config_dir=config, pool_max_size=2, metrics=False)
        init(server.admin_dsn(), dimensions=64, settings=settings)
        yield server, dsn_for(settings, "app"), settings
    finally:
        server.destroy(force=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for a server and a little more."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", place],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.root
def test_a_full_disk(small_disk: Path, tmp_path: Path, make_episode: Any) -> None:
    with server_with_memory(small_disk, tmp_path / "config") as (_, dsn, settings):
        stored = 0
        document = {"text": os.urandom(150_000).hex()}  # does not compress
        with Memory.open(dsn, embedder=HashEmbedder(), settings=settings) as memory:
            ballast = small_disk / "ballast"
            free = os.statvfs(small_disk)
            with ballast.open("wb") as file:
                file.write(b"\0" * (free.f_bavail * free.f_frsize - 40 * 2**20))

            def fill() -> None:
                nonlocal stored
                while stored < 500:
                    values = make_episode(action=document, external_id=str(stored))
                    memory.episodes.record(**values)
                    stored += 1

            with pytest.raises(errors.DatabaseError) as caught:
                fill()
            # Where the log itself cannot be written the server stops, and nobody can know.
            assert isinstance(
                caught.value, errors.OutOfSpace | errors.OutcomeUnknown | errors.Unavailable
            )
            ballast.unlink()
            deadline = time.monotonic() + 60
            while True:
                try:
                    again = memory.episodes.record(
                        **make_episode(action=document, external_id=str(stored))
                    )
                    break
                except errors.DatabaseError:
                    assert time.monotonic() < deadline
                    time.sleep(0.5)
            assert again.external_id == str(stored)
            assert memory.episodes.count() == stored + 1
            assert len(memory.episodes.list(limit=stored + 5)) == stored + 1


def test_a_server_killed_while_agents_write(tmp_path: Path, make_episode: Any) -> None:
    """What was reported as written is there afterwards; what was not can be repeated."""
    with server_with_memory(tmp_path, tmp_path / "config") as (server, dsn, settings):
        reported: list[str] = []
        unsure: list[str] = []
        stop = threading.Event()
        with Memory.open(dsn, embedder=HashEmbedder(), settings=settings) as memory:

            def write(name: int) -> None:
                for i in range(100_000):
                    if stop.is_set():
                        return
                    external_id = f"{name}-{i}"
                    try:
                        memory.episodes.record(**make_episode(external_id=external_id))
                        reported.append(external_id)
                    except errors.DatabaseError:
                        unsure.append(external_id)
                        stop.wait(0.1)

            writers = [threading.Thread(target=write, args=(name,)) for name in range(2)]
            for writer in writers:
                writer.start()
            time.sleep(1)
            pid = server.status().pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.5)
            server.start()
            time.sleep(1)
            stop.set()
            for writer in writers:
                writer.join(60)
            # A writer between two writes only waits for the server; one amid a write is unsure.
            assert server.status().pid != pid
            assert reported
            found = {episode.external_id for episode in memory.episodes.list(limit=10_000)}
            assert set(reported) <= found
            for external_id in unsure:
                memory.episodes.record(**make_episode(external_id=external_id))
            assert memory.episodes.count() == len(set(reported) | set(unsure))
