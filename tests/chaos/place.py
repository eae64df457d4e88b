"""Where faults are made: a real server of its own, with a memory, and hands to break it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgrecall import Memory
from pgrecall.config import Settings, load_settings
from pgrecall.engine import EmbeddedServer
from pgrecall.ops.provision import dsn_for, init
from pgrecall.testing import HashEmbedder

DIMENSIONS = 64
PATIENCE = 60.0
EMBEDDER = HashEmbedder(DIMENSIONS)


@dataclass(frozen=True, slots=True)
class Place:
    """A server with a provisioned memory."""

    server: EmbeddedServer
    settings: Settings
    directory: Path

    @property
    def dsn(self) -> str:
        return dsn_for(self.settings, "app")

    @property
    def owner_dsn(self) -> str:
        return dsn_for(self.settings, "owner")

    @property
    def admin_dsn(self) -> str:
        return self.server.admin_dsn(self.settings.database)

    @property
    def port(self) -> int:
        port = self.server.status().port
        assert port is not None
        return port

    def memory(self, dsn: str | None = None, **settings: Any) -> Memory:
        chosen = self.settings.model_copy(update=settings)
        return Memory.open(dsn or self.dsn, embedder=EMBEDDER, settings=chosen)

    def processes(self) -> list[psutil.Process]:
        """Return the postmaster and all its children, the postmaster first."""
        pid = self.server.status().pid
        assert pid is not None, "the server does not run"
        postmaster = psutil.Process(pid)
        return [postmaster, *postmaster.children(recursive=True)]

    def kill(self, *, all_of_it: bool = False) -> None:
        """End the server like a crash: its postmaster, or every process at once."""
        victims = self.processes() if all_of_it else self.processes()[:1]
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGKILL)
        wait_for(lambda: not self.server.status().running, "the killed server to be gone")

    def empty(self) -> None:
        with psycopg.connect(self.admin_dsn, autocommit=True) as connection:
            connection.execute("TRUNCATE public.agent_episodes CASCADE")

    @contextmanager
    def frozen(self, processes: Sequence[psutil.Process] | None = None) -> Iterator[None]:
        """Stop processes with SIGSTOP, the whole server unless some are given."""
        victims = self.processes() if processes is None else processes
        try:
            for victim in victims:
                with suppress(psutil.NoSuchProcess):
                    victim.suspend()
            yield
        finally:
            for victim in victims:
                with suppress(psutil.NoSuchProcess):
                    victim.resume()

    @contextmanager
    def database(self, name: str) -> Iterator[str]:
        """Give an empty database as its owner's, and drop it."""
        owner = f"{self.settings.database}_owner"
        with psycopg.connect(self.server.admin_dsn(), autocommit=True) as admin:
            admin.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(
                    sql.Identifier(name), sql.Identifier(owner)
                )
            )
            # As `init` leaves one: the extensions are an administrator's to make.
            with psycopg.connect(self.server.admin_dsn(name), autocommit=True) as inside:
                inside.execute("CREATE EXTENSION vector; CREATE EXTENSION pg_trgm")
        try:
            yield make_conninfo(self.owner_dsn, dbname=name)
        finally:
            self.drop(name)

    def drop(self, name: str) -> None:
        with psycopg.connect(self.server.admin_dsn(), autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def environment(self, **others: str) -> Mapping[str, str]:
        """Return the environment of a command of ours that is to work here."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PGRECALL_")}
        return {
            **kept,
            "PGRECALL_CONFIG_DIR": str(self.settings.config_dir),
            "PGRECALL_DATA_DIR": str(self.server.data_dir),
            "PGRECALL_EMBEDDER": "none",
            **others,
        }

    def command(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``pgrecall`` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "pgrecall.cli", *words],
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
            check=False,
        )

    def begin(self, *words: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start ``pgrecall``, to be killed; in a session of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "pgrecall.cli", *words],
            env=self.environment(**environment),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


@contextmanager
def standing(root: Path | None = None) -> Iterator[Place]:
    """Give a server with a memory, and delete it.

    Args:
        root: Where to put it; in memory where that can be, since crashes are of processes here.
    """
    with short_directory(root) as directory:
        server = EmbeddedServer(directory / "server")
        server.start()
        try:
            settings = load_settings(
                config_dir=directory / "config",
                data_dir=directory / "server",
                pool_max_size=4,
                connect_timeout=5.0,
                answer_timeout=30.0,
            )
            init(server.admin_dsn(), dimensions=DIMENSIONS, settings=settings)
            yield Place(server, settings, directory)
        finally:
            server.destroy(force=True)


@contextmanager
def short_directory(root: Path | None = None) -> Iterator[Path]:
    """Give a directory that every user can enter."""
    if root is None and os.access("/dev/shm", os.W_OK):
        root = Path("/dev/shm")
    directory = Path(tempfile.mkdtemp(prefix="pgrecall-chaos-", dir=root))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def wait_for(condition: Callable[[], object], what: str, *, seconds: float = PATIENCE) -> None:
    """Wait until something is so.

    Raises:
        TimeoutError: It does not become so.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.01)
