"""The backups that a storage holds: which there are, which are whole, and their bytes."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pgrecall.errors import BackupDamaged, BackupError, NotFound
from pgrecall.ops.backup import encryption, manifest
from pgrecall.ops.backup.manifest import Database, Manifest
from pgrecall.ops.backup.storage import Storage

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One backup in the storage.

    Attributes:
        name: Its name.
        manifest: What it says of itself; None when it cannot be used.
        problem: Why it cannot be used, or which files are missing or too short.
    """

    name: str
    manifest: Manifest | None
    problem: str | None = None


def list_backups(storage: Storage) -> list[Stored]:
    """Return all backups, oldest first; also the remains of those that were interrupted.

    Raises:
        BackupError: The storage cannot be read.
    """
    found = []
    for name in storage.folders():
        try:
            found.append(_look(storage, name))
        except BackupError as error:
            found.append(Stored(name=name, manifest=None, problem=error.message))
    return found


def _look(storage: Storage, name: str) -> Stored:
    data = storage.read(name, manifest.FILE)
    if data is None:
        return Stored(name=name, manifest=None, problem="incomplete: it was interrupted")
    made = manifest.parse(data, name)
    problems = []
    for database in made.databases:
        size = storage.size(name, database.file)
        if size is None:
            problems.append(f"{database.file} is missing")
        elif size != database.bytes:
            problems.append(f"{database.file} has {size:,} of {database.bytes:,} bytes")
    return Stored(name=name, manifest=made, problem="; ".join(problems) or None)


def load(storage: Storage, name: str | None, *, database: str | None = None) -> Manifest:
    """Return the manifest of a backup: of the one named, else of the newest.

    Args:
        storage: Where it is.
        name: Its name.
        database: Only of this memory, when none is named.

    Raises:
        NotFound: There is none.
        BackupDamaged: Its manifest cannot be read.
    """
    if name is not None:
        data = storage.read(name, manifest.FILE)
        if data is None:
            raise NotFound(
                f"{storage.address} holds no backup {name!r}",
                hint="`pgrecall backup list` shows those that it holds",
            )
        return manifest.parse(data, name)
    whole = [entry.manifest for entry in list_backups(storage) if entry.manifest is not None]
    fitting = [made for made in whole if database is None or made.memory.name == database]
    if not fitting:
        of = f" of {database}" if database is not None else ""
        raise NotFound(
            f"{storage.address} holds no backup{of}", hint="make one with: pgrecall backup create"
        )
    return max(fitting, key=lambda made: made.started_at)


def database_of(made: Manifest, name: str | None) -> Database:
    """Return one of a backup's databases: the one named, else the memory.

    Raises:
        NotFound: It holds no such database.
    """
    for database in made.databases:
        if name is None or database.name == name:
            return database
    held = ", ".join(database.name for database in made.databases)
    raise NotFound(f"backup {made.name} holds no database {name!r}", hint=f"it holds {held}")


@contextmanager
def dump_file(
    storage: Storage,
    made: Manifest,
    database: Database,
    *,
    folder: Path,
    identity: Path | None,
    say: Callable[[str], None],
) -> Iterator[Path]:
    """Give the path of a dump whose bytes were found to be those that were stored.

    Args:
        storage: Where the backup is.
        made: The backup.
        database: Which of its databases.
        folder: Private directory for a copy, where one is needed; it goes with the block.
        identity: File with the private key.
        say: Called with what is being done.

    Raises:
        BackupDamaged: Length or SHA-256 differ, or it cannot be decrypted.
        BackupError: The key does not fit.
        ConfigurationError: No key was given.
    """
    identities = encryption.read_identities(identity) if made.recipients else []
    say(f"reading {database.file}, {database.bytes / 1e6:,.1f} MB")
    size = storage.size(made.name, database.file)
    if size != database.bytes:
        held = "is missing" if size is None else f"has {size:,} of {database.bytes:,} bytes"
        raise BackupDamaged(f"{database.file} of backup {made.name} {held}", hint=_OTHER)
    path = storage.path(made.name, database.file)
    if path is not None and not identities:
        with storage.open_read(made.name, database.file) as stream:
            _check(_sha256(stream), made, database)
        yield path
        return
    copy = folder / f"{database.name}.dump"
    with storage.open_read(made.name, database.file) as stream, _private(copy) as target:
        hashing = _Hashing(stream)
        try:
            if identities:
                encryption.decrypt(hashing, target, identities, made.name)  # type: ignore[arg-type]
            else:
                shutil.copyfileobj(hashing, target, _CHUNK)
        except BackupDamaged:
            # What fails to decrypt has been changed: say so by the checksum, which names it best.
            hashing.drain()
            _check(hashing.sha256, made, database)
            raise
        hashing.drain()
        _check(hashing.sha256, made, database)
    try:
        yield copy
    finally:
        copy.unlink()


_OTHER = "use another backup; `pgrecall backup list` shows them"


def _check(found: str, made: Manifest, database: Database) -> None:
    if found != database.sha256:
        raise BackupDamaged(
            f"{database.file} of backup {made.name} is not what was stored: "
            f"its SHA-256 is {found[:16]}..., not {database.sha256[:16]}...",
            hint=_OTHER,
        )


@contextmanager
def _private(path: Path) -> Iterator[BinaryIO]:
    path.touch(mode=0o600, exist_ok=False)
    with path.open("wb") as stream:
        yield stream


def _sha256(stream: BinaryIO) -> str:
    hashing = _Hashing(stream)
    hashing.drain()
    return hashing.sha256


class _Hashing:
    """Reads a stream and hashes what was read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Read at most ``size`` bytes."""
        data = self._stream.read(size)
        self._hash.update(data)
        return data

    def drain(self) -> None:
        """Read to the end."""
        while self.read(_CHUNK):
            pass

    @property
    def sha256(self) -> str:
        """Of all that was read, in hexadecimal."""
        return self._hash.hexdigest()
