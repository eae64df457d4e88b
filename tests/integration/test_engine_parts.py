"""The rooms of the embedded engine that need no running server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from pgrecall.engine import (
    EmbeddedServer,
    addresses,
    binaries,
    files,
    layout,
    lock,
    logfile,
    memory,
    process,
    settings,
    state,
)
from pgrecall.errors import EngineError, MissingExtra, OperationRefused

GIB = 1024 * memory.MIB
DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")


@pytest.mark.parametrize(
    ("gib", "shm_mib", "cpus", "buffers", "maintenance", "workers"),
    [
        (24, 24 * 1024, 2, 2048, 1024, 1),
        (24, 64, 8, 2048, 1024, 0),  # a container: /dev/shm is too small for a parallel build
        (2, 1024, 8, 256, 128, 4),
        (0.25, 1024, 1, 64, 64, 0),
    ],
)
def test_memory_plan(
    gib: float, shm_mib: int, cpus: int, buffers: int, maintenance: int, workers: int
) -> None:
    machine = memory.Machine(int(gib * GIB), shm_mib * memory.MIB, cpus)
    plan = memory.plan(machine)
    assert plan.shared_buffers == buffers
    assert plan.maintenance_work_mem == maintenance
    assert plan.max_parallel_maintenance_workers == workers
    assert plan.effective_cache_size >= plan.shared_buffers


def test_cgroup_limits_of_both_versions_and_of_groups_above(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    inner = root / "outer" / "inner"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (root / "outer" / "memory.max").write_text("1073741824\n")
    old = root / "memory" / "docker"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text("536870912\n")
    (root / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    membership = tmp_path / "membership"
    membership.write_text("4:memory:/docker\n3:cpu,cpuacct:/x\n0::/outer/inner\n")
    assert sorted(memory.cgroup_limits(membership, root)) == [536870912, 1073741824]
    assert memory.cgroup_limits(tmp_path / "none", root) == []


def test_this_machine_is_measured() -> None:
    machine = memory.this_machine()
    assert machine.memory > 64 * memory.MIB
    assert machine.cpus >= 1


def test_settings_are_safe_and_preload_only_what_exists() -> None:
    wheel = binaries.find(None)
    text = settings.render(memory.plan(memory.Machine(GIB, GIB, 2)), wheel)
    assert "fsync = on" in text
    assert "shared_preload_libraries = 'pg_stat_statements'" in text
    assert "shared_buffers = 128MB" in text


def test_the_wheel_is_found_without_importing_it() -> None:
    found = binaries.find(None)
    assert found.major >= 18
    assert found.package is not None
    assert found.pgvector.startswith("0.8")


def test_a_copy_is_complete_readable_and_works_where_it_is(tmp_path: Path) -> None:
    found = binaries.find(None)
    before = os.umask(0o077)
    try:
        copy = binaries.copy(found, tmp_path / "binaries")
    finally:
        os.umask(before)
    assert copy.version == found.version
    assert copy.bin_dir.is_relative_to(tmp_path)
    assert all(path.stat().st_mode & 0o004 for path in (tmp_path / "binaries").rglob("*"))
    dump = copy.bin_dir / "pg_dump"
    linked = subprocess.run(["ldd", dump], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) in os.path.normpath(linked.split("libpq", 1)[1].split("=>")[1].split()[0])
    assert [path.name for path in binaries.copies(tmp_path / "binaries", found.major)] == [
        found.name
    ]
    assert binaries.copies(tmp_path / "binaries", found.major + 1) == []
    binaries.remove_others(tmp_path / "binaries", keep=copy)
    assert binaries.is_copy(tmp_path / "binaries" / found.name)


def test_without_the_wheel_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setattr("sys.path_importer_cache", {})
    with pytest.raises(MissingExtra, match=r"pgrecall\[postgres\]"):
        binaries.find(None)


@pytest.mark.skipif(not DEBIAN_15.is_dir(), reason="needs Debian's PostgreSQL 15")
def test_an_old_postgresql_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with pytest.raises(EngineError, match=r"PostgreSQL 15\.\d+.* is too old; 17 or later"):
        EmbeddedServer(data_dir, pg_bin=DEBIAN_15).start()
    assert not data_dir.exists()


def test_a_directory_without_programs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"postgres, initdb, pg_ctl missing"):
        EmbeddedServer(tmp_path / "data", pg_bin=tmp_path).start()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("control", "message"),
    [(None, "comes without pgvector"), ("default_version = '0.7.4'\n", r"pgvector 0\.7\.4 .* old")],
)
def test_a_postgresql_without_a_recent_pgvector_is_refused(
    tmp_path: Path, control: str | None, message: str
) -> None:
    wheel = binaries.find(None)
    assert wheel.package is not None
    install = tmp_path / "pginstall"
    shutil.copytree(wheel.package / "pginstall" / "share", install / "share")
    shutil.copytree(wheel.bin_dir, install / "bin")
    target = install / "share" / "extension" / "vector.control"
    target.unlink()
    if control:
        target.write_text(control)
    with pytest.raises(EngineError, match=message):
        EmbeddedServer(tmp_path / "data", pg_bin=install / "bin").start()
    assert not (tmp_path / "data").exists()


def test_state_survives_and_hides_the_password(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert state.read_state(path) is None
    written = state.new_state(25000)
    state.write_state(path, written)
    assert state.read_state(path) == written
    assert path.stat().st_mode & 0o777 == 0o600
    assert written.admin_password not in repr(written)
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"format": 1, "admin_password": "geheim"}', "damaged"),
        ('{"format": 2}', "has format 2"),
    ],
)
def test_a_bad_state_file_is_named_and_never_quoted(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(EngineError, match=message) as caught:
        state.read_state(path)
    assert "geheim" not in str(caught.value)


def test_writing_replaces_a_planted_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    link = tmp_path / "state.json"
    link.symlink_to(victim)
    files.write_atomically(link, "new", 0o600)
    assert victim.read_text() == "untouched"
    assert link.read_text() == "new"


def test_a_full_disk_is_explained(tmp_path: Path) -> None:
    with (
        pytest.raises(EngineError, match=r"cannot write .*No space left.*free some space"),
        files.explained("write", tmp_path),
    ):
        Path("/dev/full").write_text("x")


def test_lock_excludes_and_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with (
        lock.exclusive(path, timeout=1),
        pytest.raises(EngineError, match="another process has held"),
        lock.exclusive(path, timeout=0.1),
    ):
        pytest.fail("two holders")
    held = lock.try_lock(path)
    assert held is not None
    os.close(held)


def test_a_taken_port_is_not_free() -> None:
    with socket.create_server((addresses.HOST, 0)) as server:
        assert not addresses.port_is_free(server.getsockname()[1])
    assert addresses.port_is_free(addresses.choose_port())


def test_socket_paths_end_at_107_bytes() -> None:
    assert addresses.fits_socket(Path("/" + "a" * 91))
    assert not addresses.fits_socket(Path("/" + "a" * 92))
    assert not addresses.fits_socket(Path("/" + "ä" * 46))


@pytest.mark.parametrize("content", ["", "nonsense\n", "99999999\n/x\n1\n5432\n", "-1\n\n\n\n"])
def test_a_pid_file_alone_is_not_believed(tmp_path: Path, content: str) -> None:
    (tmp_path / "postmaster.pid").write_text(content)
    assert process.find_postmaster(tmp_path) is None


def test_a_large_log_is_moved_aside_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfile, "LARGEST", 10)
    path = tmp_path / "server.log"
    descriptor = logfile.open_log(path)
    os.write(descriptor, b"first line\nsecond line\n")
    logfile.rotate(path)
    os.write(descriptor, b"third\n")
    os.close(descriptor)
    assert logfile.tail(path, 5) == ["third"]
    assert logfile.tail(path.with_name("server.log.1"), 1) == ["second line"]
    assert logfile.tail(path, 0) == []
    assert logfile.tail(tmp_path / "none", 3) == []


def test_a_directory_with_other_files_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    mode = tmp_path.stat().st_mode
    server = EmbeddedServer(tmp_path)
    with pytest.raises(EngineError, match=r"holds something else: thesis\.txt"):
        server.start()
    with pytest.raises(OperationRefused, match="not created by pgrecall"):
        server.destroy()
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]
    assert tmp_path.stat().st_mode == mode


def test_a_file_or_an_odd_name_is_no_data_directory(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    with pytest.raises(EngineError, match="is not a directory"):
        EmbeddedServer(plain).start()
    with pytest.raises(EngineError, match="to a shell"):
        EmbeddedServer(tmp_path / "a$(b)").start()


def test_before_the_first_start(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "none")
    assert not server.status().running
    assert server.status().phase == "stopped"
    assert server.stop() is False
    assert server.logs(5) == []
    with pytest.raises(EngineError, match=r"no server in .*start it with"):
        server.admin_dsn()
    assert not (tmp_path / "none").exists()
    assert layout.Layout(tmp_path / "none").owner_uid() is None
