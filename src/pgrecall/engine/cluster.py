"""Making the cluster: initdb, whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from pgrecall.engine.binaries import Binaries
from pgrecall.engine.files import explained, free_bytes, sync_directory
from pgrecall.engine.layout import Layout
from pgrecall.engine.osuser import ServerUser
from pgrecall.engine.settings import INCLUDE
from pgrecall.engine.view import View
from pgrecall.errors import EngineError

SUPERUSER = "postgres"
_SMALLEST_FREE = 64 * 1024 * 1024
_INITDB_SECONDS = 300


def create(
    layout: Layout,
    view: View,
    binaries: Binaries,
    user: ServerUser,
    *,
    password: str,
    inherited: Sequence[int],
) -> None:
    """Run initdb beside the final place and rename the result, so that a kill leaves no half.

    Checksums on, UTF-8, the builtin locale ``C.UTF-8`` (the same on every host, and independent
    of the system's libc), SCRAM for every way in.

    Args:
        layout: The data directory.
        view: The same as the server's user sees it.
        binaries: What to make it with.
        user: Who is to own it.
        password: The superuser's.
        inherited: Open descriptors that initdb needs, or keeps as a sign that it runs.

    Raises:
        EngineError: initdb failed; what it said is in the message.
    """
    unfinished = layout.data_dir / f"cluster.{secrets.token_hex(4)}"
    with explained("create", unfinished):
        unfinished.mkdir(mode=0o700)
        user.own(unfinished)
    # In memory only: no file to remove, nothing in the process list.
    secret = os.memfd_create("password", 0)
    try:
        os.write(secret, password.encode() + b"\n")
        os.fchmod(secret, 0o400)
        if user.switch:
            os.fchown(secret, user.uid, user.gid)
        done = user.run(
            [
                binaries.bin_dir / "initdb",
                f"--pgdata={view.layout.data_dir / unfinished.name}",
                f"--username={SUPERUSER}",
                f"--pwfile=/proc/self/fd/{secret}",
                "--auth=scram-sha-256",
                "--data-checksums",
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--locale=C",
                "--text-search-config=english",
            ],
            pass_fds=[*inherited, secret],
            timeout=_INITDB_SECONDS,
        )
    finally:
        os.close(secret)
    if done.returncode != 0:
        said = done.stdout.decode("utf-8", errors="replace").strip().splitlines()[-12:]
        raise EngineError(
            f"initdb could not create the cluster in {layout.data_dir}:\n" + "\n".join(said),
            hint=space_hint(layout.data_dir),
        )
    with explained("finish", layout.cluster):
        with (unfinished / "postgresql.conf").open("a", encoding="utf-8") as stream:
            stream.write(INCLUDE)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.rename(layout.cluster)
        sync_directory(layout.data_dir)


def space_hint(path: Path) -> str | None:
    """Say that the disk is full where it is; a server that cannot write its log can't tell."""
    free = free_bytes(path)
    if free >= _SMALLEST_FREE:
        return None
    return f"free some space: the disk that holds {path} has {free // 1024} kB left"
