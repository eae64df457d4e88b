"""What lies where in the data directory, and which directories may become one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pgrecall.engine.files import explained
from pgrecall.engine.osuser import ServerUser, user_name
from pgrecall.errors import EngineError

_SHELL_SPECIAL = frozenset('"$`\\\n')


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths inside one data directory.

    Everything is ours (root's, if root started the server), but ``cluster`` and ``run`` belong to
    the user that PostgreSQL runs as: what the server could rewrite is never trusted by root.
    """

    data_dir: Path

    @property
    def state(self) -> Path:
        """Port, administrator's password and the like, mode 0600. It makes the directory ours."""
        return self.data_dir / "state.json"

    @property
    def starter_lock(self) -> Path:
        """Held by whoever starts, stops or deletes the server."""
        return self.data_dir / "starter.lock"

    @property
    def server_lock(self) -> Path:
        """Held by every process of the running server, orphans included."""
        return self.data_dir / "server.lock"

    @property
    def created_mark(self) -> Path:
        """Present if we made the directory ourselves, so that we may remove it too."""
        return self.data_dir / "created-by-pgrecall"

    @property
    def cluster(self) -> Path:
        """PostgreSQL's own data directory."""
        return self.data_dir / "cluster"

    @property
    def binaries(self) -> Path:
        """Copies of PostgreSQL's programs, a folder for each version."""
        return self.data_dir / "binaries"

    @property
    def sockets(self) -> Path:
        """The Unix socket, unless its path would be too long."""
        return self.data_dir / "run"

    @property
    def settings(self) -> Path:
        """The settings that we generate, included by ``cluster/postgresql.conf``."""
        return self.data_dir / "pgrecall.conf"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.data_dir / "server.log"

    @property
    def initialised(self) -> bool:
        """Whether the cluster exists; it appears whole or not at all."""
        return (self.cluster / "PG_VERSION").is_file()

    def leftovers(self) -> list[Path]:
        """Return clusters that were never finished, or never fully deleted."""
        return sorted(self.data_dir.glob("cluster.*"))

    def cluster_major(self) -> int | None:
        """Return the major version that wrote the cluster, or None without one.

        Raises:
            EngineError: It cannot be read.
        """
        version_file = self.cluster / "PG_VERSION"
        with explained("read", version_file):
            if not version_file.is_file():
                return None
            return int(version_file.read_text(encoding="ascii").strip())

    def owner_uid(self) -> int | None:
        """Return the user id that owns the data directory, or None when there is none.

        Raises:
            EngineError: The way to it is closed.
        """
        with explained("look at", self.data_dir):
            try:
                return self.data_dir.stat().st_uid
            except FileNotFoundError:
                return None

    def own_entries(self) -> list[Path]:
        """Return all that we put into the data directory, in the order in which to delete it."""
        return [
            *self.leftovers(),
            self.cluster,
            self.sockets,
            self.binaries,
            self.settings,
            self.log,
            self.log.with_name(self.log.name + ".1"),
            self.server_lock,
            self.created_mark,
            self.state,
            self.starter_lock,
        ]


def prepare(layout: Layout, user: ServerUser) -> None:
    """Make the data directory, or accept an empty or own one, with the modes it needs.

    Raises:
        EngineError: It holds something else, belongs to somebody else, or cannot be made.
    """
    path = layout.data_dir
    if not _SHELL_SPECIAL.isdisjoint(str(path)):
        raise EngineError(
            f'the data directory {path} has one of " $ ` \\ or a line break in its name, '
            "which PostgreSQL's tools would hand to a shell",
            hint="choose another directory with PGRECALL_DATA_DIR",
        )
    with explained("create", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            _accept(layout)
        else:
            layout.created_mark.touch(mode=0o600)
    # The server's user must pass through, and see nothing else.
    wanted = 0o711 if user.switch else 0o700
    with explained("set the mode of", path):
        if path.stat().st_mode & 0o777 != wanted:
            path.chmod(wanted)


def _accept(layout: Layout) -> None:
    path = layout.data_dir
    if not path.is_dir():
        raise EngineError(
            f"{path} is not a directory", hint="choose a directory with PGRECALL_DATA_DIR"
        )
    owner = path.stat().st_uid
    if owner != os.geteuid():
        raise EngineError(
            f"the data directory {path} belongs to the user {user_name(owner)}",
            hint=f"start the server as {user_name(owner)}, or choose a directory that does "
            "not exist yet with PGRECALL_DATA_DIR",
        )
    harmless = {layout.starter_lock.name, layout.created_mark.name, "lost+found"}
    foreign = sorted(
        entry.name
        for entry in path.iterdir()
        if entry.name not in harmless and not entry.name.startswith(f".{layout.state.name}.")
    )
    # Another starter may write the state at this moment, but always before anything else.
    if foreign and not layout.state.exists():
        raise EngineError(
            f"the data directory {path} holds something else: {', '.join(foreign[:3])}",
            hint="choose an empty or new directory with PGRECALL_DATA_DIR"
            + ("; or restore its state.json" if layout.cluster.name in foreign else ""),
        )
