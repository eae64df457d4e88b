"""Where the WAL archive and the base backups lie, and what is known of each backup."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal

from pgrecall.config import Settings
from pgrecall.engine.files import explained, remove_tree, write_atomically
from pgrecall.engine.lock import try_lock
from pgrecall.engine.osuser import ServerUser
from pgrecall.errors import BackupDamaged, BackupError, NotFound, OperationRefused

Kind = Literal["full", "incremental"]

_NAME = re.compile(r"\d{8}T\d{6}Z(-\d+)?-(full|incremental)")
_FORMAT = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """One base backup.

    Attributes:
        name: Its folder, such as ``20260501T030000Z-full``.
        kind: ``full``, or ``incremental``: what changed since its parent.
        parent: Name of the backup that it builds on; None for a full one.
        began: When it began, by the server's clock.
        ended: When it had ended; any moment from then on can be recovered from it.
        bytes: Size of its files.
        timeline: The server's timeline.
        segment_bytes: Size of a WAL segment.
        start: Number of the first WAL segment that it needs.
        stop: Number of the last one that it needs; these are in the backup itself.
        system_identifier: Which cluster it is of.
        major: Major version of its server.
        bootstrap_role: The superuser that every cluster has.
        embedded: Whether it is of an embedded server.
    """

    name: str
    kind: Kind
    parent: str | None
    began: datetime
    ended: datetime
    bytes: int
    timeline: int
    segment_bytes: int
    start: int
    stop: int
    system_identifier: str
    major: int
    bootstrap_role: str
    embedded: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """The directory of one server's archive.

    As with the embedded server, what PostgreSQL writes (``wal`` and ``base``) belongs to its user,
    and what we rely on (``catalog``) to whoever runs us.
    """

    directory: Path

    @property
    def wal(self) -> Path:
        """The archived WAL segments."""
        return self.directory / "wal"

    @property
    def base(self) -> Path:
        """The base backups, a folder each."""
        return self.directory / "base"

    @property
    def catalog(self) -> Path:
        """What is known of each complete base backup, a file each."""
        return self.directory / "catalog"

    @property
    def lock(self) -> Path:
        """Held by whoever makes, reads or deletes backups."""
        return self.directory / "pitr.lock"

    def backup(self, name: str) -> Path:
        """Return the folder of a base backup."""
        return self.base / name

    def require(self) -> None:
        """Refuse a place that was never set up.

        Raises:
            OperationRefused: It was not.
        """
        with explained("look into", self.directory):
            if self.catalog.is_dir() and self.wal.is_dir():
                return
        raise OperationRefused(
            f"{self.directory} is not set up for recovery to a point in time",
            hint="set it up with: pgrecall backup pitr setup; or name the directory with --at",
        )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep others from changing the backups meanwhile.

        Raises:
            OperationRefused: Another process is at work.
        """
        descriptor = try_lock(self.lock)
        if descriptor is None:
            raise OperationRefused(
                f"another process makes, reads or deletes backups in {self.directory}",
                hint="try again when it has ended",
            )
        try:
            yield
        finally:
            os.close(descriptor)

    def write(self, backup: Base) -> None:
        """Make a base backup known: from now on it is complete."""
        document = {"format": _FORMAT, **dataclasses.asdict(backup)}
        text = json.dumps(document, indent=2, default=datetime.isoformat)
        write_atomically(self.catalog / f"{backup.name}.json", text + "\n", 0o600)

    def forget(self, backup: Base) -> None:
        """Make a base backup unknown, before its files are deleted."""
        remove_tree(self.catalog / f"{backup.name}.json")

    def backups(self) -> list[Base]:
        """Return the complete base backups, oldest first.

        Raises:
            BackupDamaged: What is known of one cannot be read.
        """
        with explained("look into", self.catalog):
            files = sorted(self.catalog.glob("*.json"))
        return sorted((_read(path) for path in files), key=lambda backup: backup.ended)

    def unfinished(self) -> list[str]:
        """Return the names of folders whose backup was never completed, or half deleted."""
        known = {backup.name for backup in self.backups()}
        with explained("look into", self.base):
            names = sorted(entry.name for entry in self.base.iterdir())
        return [name for name in names if name not in known and _NAME.fullmatch(name)]


def place_of(settings: Settings, at: Path | None) -> Place:
    """Return the place that is named, or the one beside the embedded server."""
    if at is not None:
        return Place(at.expanduser().absolute())
    directory = settings.data_dir.expanduser().resolve()
    return Place(directory.with_name(f"{directory.name}-pitr"))


def chain(backups: list[Base], last: Base) -> list[Base]:
    """Return the backups that ``last`` builds on and itself, the full one first.

    Raises:
        BackupDamaged: One is missing.
    """
    known = {backup.name: backup for backup in backups}
    found = [last]
    while (parent := found[0].parent) is not None:
        if parent not in known:
            raise BackupDamaged(
                f"base backup {found[0].name} builds on {parent}, which is missing",
                hint="choose a time that a later full backup covers; see: "
                "pgrecall backup pitr status",
            )
        found.insert(0, known[parent])
    return found


def chains(backups: list[Base]) -> list[list[Base]]:
    """Return the backups by the full backup that they build on, oldest chain first."""
    found: dict[str, list[Base]] = {}
    for backup in backups:
        found.setdefault(chain(backups, backup)[0].name, []).append(backup)
    return list(found.values())


def delete(place: Place, user: ServerUser, name: str) -> None:
    """Delete the folder of a backup, as the user that it belongs to.

    Raises:
        BackupError: It cannot be deleted.
    """
    if not _NAME.fullmatch(name):
        raise NotFound(f"{name!r} is no name of a base backup")
    done = user.run(["/bin/rm", "-rf", "--", place.backup(name)])
    if done.returncode != 0:
        raise BackupError(f"cannot delete {place.backup(name)}: {said(done.stdout)}")


def said(output: bytes) -> str:
    """Return the last words of a program."""
    lines = output.decode("utf-8", errors="replace").strip().splitlines()
    return "; ".join(line.strip() for line in lines[-12:]) or "it said nothing"


def _read(path: Path) -> Base:
    with explained("read", path):
        text = path.read_text(encoding="utf-8")
    try:
        document = json.loads(text)
        written_format = document.pop("format")
        for field in ("began", "ended"):
            document[field] = datetime.fromisoformat(document[field])
        backup = Base(**document)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BackupDamaged(
            f"{path} does not describe a base backup: {error}",
            hint="take a new full base backup, and move that file away",
        ) from error
    if written_format != _FORMAT or not _NAME.fullmatch(backup.name):
        raise BackupDamaged(
            f"{path} has format {written_format}, this version knows {_FORMAT}",
            hint="upgrade pgrecall",
        )
    return backup
