"""Which operating system user runs PostgreSQL: it refuses root, so root lends it one of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pgrecall.engine.files import explained
from pgrecall.errors import EngineError

SYSTEM_USER = "pgrecall"
"""The user that runs the server when root starts it."""


@dataclass(frozen=True, slots=True)
class ServerUser:
    """The user that PostgreSQL's programs run as.

    Attributes:
        name: Login name, for messages.
        uid: User id.
        gid: Primary group id.
        switch: Whether we are root and have to become that user.
    """

    name: str
    uid: int
    gid: int
    switch: bool

    def own(self, path: Path) -> None:
        """Give ``path``, which we have just created, to this user."""
        if self.switch:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def run(
        self,
        command: Sequence[str | Path],
        *,
        pass_fds: Sequence[int] = (),
        output: int | IO[bytes] = subprocess.PIPE,
        timeout: float | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program as this user, with a clean environment, and wait for it.

        Only what PostgreSQL needs is passed on: its ``PG*`` variables would redirect the tools,
        and the caller's API keys have no business in a server's environment.

        Args:
            command: Program and arguments; no secrets among them.
            pass_fds: Open descriptors that the program inherits.
            output: Where standard output and error go together.
            timeout: Seconds until it is killed.

        Raises:
            EngineError: The program cannot be run, or takes longer than ``timeout``.
        """
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "HOME": "/"}
        if library_path := os.environ.get("LD_LIBRARY_PATH"):
            environment["LD_LIBRARY_PATH"] = library_path
        program = Path(command[0])
        hint = (
            "programs cannot run from a file system mounted noexec, and root needs the right to "
            "change users; PGRECALL_DATA_DIR chooses another directory"
        )
        with explained(f"run as the user {self.name}:", program, hint=hint):
            try:
                return subprocess.run(
                    [str(part) for part in command],
                    check=False,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    env=environment,
                    umask=0o077,
                    pass_fds=tuple(pass_fds),
                    timeout=timeout,
                    user=self.uid if self.switch else None,
                    group=self.gid if self.switch else None,
                    extra_groups=[] if self.switch else None,
                )
            except subprocess.TimeoutExpired as error:
                raise EngineError(f"{program.name} did not finish in {timeout:.0f} s") from error

    def reaches(self, path: Path) -> bool:
        """Whether this user may enter the directory ``path``, whatever grants or denies it."""
        if not self.switch:
            return os.access(path, os.X_OK)
        # Asking the kernel as that user covers access lists and mounts, which mode bits don't.
        return self.run(["/bin/sh", "-c", 'cd -- "$1"', "sh", path]).returncode == 0

    def blocking_directory(self, path: Path) -> Path | None:
        """Return the outermost directory on the way to ``path`` that this user may not enter."""
        way = [*reversed(path.parents), path]
        return None if self.reaches(path) else next(p for p in way if not self.reaches(p))


def server_user() -> ServerUser:
    """Return the user to run PostgreSQL as: ourselves, or as root the system user, created once.

    Raises:
        EngineError: We are root and the system user does not exist and cannot be created.
    """
    uid = os.geteuid()
    if uid != 0:
        return ServerUser(user_name(uid), uid, os.getegid(), switch=False)
    found = _look_up() or _create()
    if found.pw_uid == 0:
        raise EngineError(
            f"the system user {SYSTEM_USER!r} has the user id 0, and PostgreSQL refuses root",
            hint="give it another user id, or run pgrecall as an ordinary user",
        )
    return ServerUser(found.pw_name, found.pw_uid, found.pw_gid, switch=True)


def user_name(uid: int) -> str:
    """Return the login name of ``uid``, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _look_up() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        return None


def _create() -> pwd.struct_passwd:
    """Create the system user: no home, no shell, no password."""
    if useradd := shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin"):
        command = [useradd, "--system", "--user-group", "--no-create-home"]
        command += ["--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
    elif adduser := shutil.which("adduser", path="/usr/sbin:/sbin:/usr/bin:/bin"):
        command = [adduser, "-S", "-D", "-H", "-h", "/nonexistent", "-s", "/sbin/nologin"]
        command += [SYSTEM_USER]
    else:
        raise _cannot_create("neither useradd nor adduser is installed")
    complaint = ""
    # Two servers created at once: the loser finds the password file locked, or the user made.
    for _ in range(20):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        complaint = done.stderr.strip()
        if found := _look_up():
            return found
        time.sleep(0.25)
    raise _cannot_create(complaint)


def _cannot_create(why: str) -> EngineError:
    return EngineError(
        f"PostgreSQL refuses to run as root, and its system user {SYSTEM_USER!r} "
        f"cannot be created: {why}",
        hint="run pgrecall as an ordinary user, or create that user yourself",
    )
