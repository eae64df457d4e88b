"""The embedded server after what should not happen: kills, stale files, full disks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

import pgrecall
from pgrecall.engine import EmbeddedServer, lock, startup
from pgrecall.engine.process import orphans
from pgrecall.errors import EngineError

SOURCE = Path(pgrecall.__file__).parents[1]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system, which needs root")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that every user can enter, with a short path."""
    made = Path(tempfile.mkdtemp(prefix="pgr-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[EmbeddedServer]:
    """One server for the module, with one committed row in it."""
    made = EmbeddedServer(place / "data")
    made.start()
    with psycopg.connect(made.admin_dsn()) as connection:
        connection.execute("create table kept as select 42 as n")
    yield made
    made.destroy(force=True)


@contextmanager
def sleeper(server: EmbeddedServer) -> Iterator[subprocess.Popen[bytes]]:
    """A living process of the server's user that has nothing to do with the server."""
    owner = (server.data_dir / "cluster").stat().st_uid
    process = subprocess.Popen(["sleep", "300"], user=owner if os.geteuid() == 0 else None)
    try:
        yield process
        assert process.poll() is None, "a process that is none of our business was killed"
    finally:
        process.kill()
        process.wait()


def kept(server: EmbeddedServer) -> object:
    with psycopg.connect(server.admin_dsn()) as connection:
        return connection.execute("select n from kept").fetchone()


def kill(server: EmbeddedServer) -> int:
    server.start()
    pid = server.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while server.status().running:
        time.sleep(0.01)
    return pid


def test_a_killed_server_recovers(server: EmbeddedServer) -> None:
    with closing(psycopg.connect(server.admin_dsn())) as connection:
        connection.execute("create table lost as select 1")
        kill(server)
        assert server.start().started
    assert kept(server) == (42,)
    assert any("automatic recovery in progress" in line for line in server.logs(60))


def test_a_slow_orphan_is_waited_for(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "_ORPHAN_GRACE_SECONDS", 20.0)
    with psycopg.connect(server.admin_dsn()) as connection:
        backend = connection.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        kill(server)
        later = threading.Timer(1.5, os.kill, [backend, signal.SIGCONT])
        later.start()
        began = time.monotonic()
        assert server.start().started
        assert time.monotonic() - began > 1.0
        later.join()
    assert kept(server) == (42,)


def test_an_orphan_that_never_ends_is_named(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "_ORPHAN_SECONDS", 1.0)
    monkeypatch.setattr(startup, "_ORPHAN_GRACE_SECONDS", 0.5)
    with psycopg.connect(server.admin_dsn()) as connection:
        backend = connection.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        kill(server)
        with pytest.raises(EngineError, match=rf"has not ended: PIDs .*{backend}"):
            server.start()
        os.kill(backend, signal.SIGCONT)
    assert server.start().started
    assert kept(server) == (42,)


def test_a_server_that_we_cannot_see_keeps_its_data_to_itself(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another container its PIDs mean nothing here; only the inherited lock tells."""
    monkeypatch.setattr(startup, "_ORPHAN_SECONDS", 0.5)
    server.stop()
    held = lock.try_lock(server.data_dir / "server.lock")
    assert held is not None, "a stopped server holds its lock"
    with pytest.raises(EngineError, match=r"does not show its processes.*container"):
        server.start()
    os.close(held)
    server.start()
    assert lock.try_lock(server.data_dir / "server.lock") is None, "a running server holds it"


def test_a_stale_pid_file_whose_pid_was_given_away(server: EmbeddedServer) -> None:
    pid = kill(server)
    cluster = server.data_dir / "cluster"
    socket_lock = next((server.data_dir / "run").glob(".s.PGSQL.*.lock"))
    while orphans(cluster):
        time.sleep(0.05)
    with sleeper(server) as other:
        for path in (cluster / "postmaster.pid", socket_lock):
            text = path.read_text()
            assert text.startswith(f"{pid}\n")
            path.write_text(text.replace(f"{pid}\n", f"{other.pid}\n", 1))
        status = server.status()
        assert not status.running
        assert status.pid is None
        assert server.stop(force=True) is False
        assert other.poll() is None
        assert server.start().started
        assert server.status().pid != other.pid
    assert kept(server) == (42,)


def test_a_starter_killed_during_initdb(place: Path) -> None:
    data_dir = place / "interrupted"
    script = (
        "import sys; from pathlib import Path; from pgrecall.engine import EmbeddedServer\n"
        "EmbeddedServer(Path(sys.argv[1])).start()"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", script, str(data_dir)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), *sys.path[1:]])},
    )
    deadline = time.monotonic() + 30
    while not list(data_dir.glob("cluster.*/global")) and time.monotonic() < deadline:
        time.sleep(0.005)
    starter.kill()
    starter.wait()
    assert not (data_dir / "cluster").exists(), "killed too late to prove anything"
    server = EmbeddedServer(data_dir)
    assert not server.status().created
    assert server.start().started
    with psycopg.connect(server.admin_dsn()) as connection:
        assert connection.execute("show data_checksums").fetchone() == ("on",)
    assert list(data_dir.glob("cluster.*")) == []
    server.destroy()
    assert not data_dir.exists()


@pytest.mark.root
@needs_root
def test_a_full_disk_is_named_and_survived(place: Path) -> None:
    mounted = place / "small"
    mounted.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m,mode=755", "tmpfs", mounted], check=True
    )
    try:
        server = EmbeddedServer(mounted / "data")
        with pytest.raises(EngineError, match=r"copy PostgreSQL.*No space left.*free some space"):
            server.start()
        resize(mounted, 60)
        with pytest.raises(EngineError, match=r"(?s)initdb could not.*No space left.*free some"):
            server.start()
        resize(mounted, 200)
        server.start()
        server.stop()
        filler = mounted / "filler"
        subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], check=False)
        assert os.statvfs(mounted).f_bavail == 0
        with pytest.raises(EngineError, match=r"(?s)No space left.*free some space|kB left"):
            server.start()
        filler.unlink()
        assert server.start().started
        server.destroy()
    finally:
        subprocess.run(["umount", mounted], check=True)


def resize(mounted: Path, megabytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={megabytes}m", mounted], check=True)


def test_a_setting_that_postgresql_refuses_is_shown_with_the_log(server: EmbeddedServer) -> None:
    server.stop()
    auto = server.data_dir / "cluster" / "postgresql.auto.conf"
    original = auto.read_bytes()
    auto.write_bytes(original + b"max_connections = 'many'\n")
    try:
        with pytest.raises(EngineError, match=r'(?s)did not start.*parameter "max_connections"'):
            server.start()
    finally:
        auto.write_bytes(original)
    assert server.start().started
