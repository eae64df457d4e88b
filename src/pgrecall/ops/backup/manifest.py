"""What a backup says about itself: enough to tell whether a restored database is the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from pgrecall.errors import BackupDamaged, BackupError

FORMAT = 1
FILE = "manifest.json"
Kind = Literal["memory", "also"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table's content in the snapshot that was dumped.

    Attributes:
        schema: Its schema.
        name: Its name.
        rows: Number of rows.
        checksum: Of all rows, whatever their order; see ``sql/backup.sql``.
        vectors: Number of vectors in it; None without a vector column.
        vector_checksum: Of the vectors alone.
    """

    schema: str
    name: str
    rows: int
    checksum: str
    vectors: int | None = None
    vector_checksum: str | None = None

    @property
    def full_name(self) -> str:
        """Schema and name, with a dot between."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A privilege on the database itself; ``grantee`` None is everyone."""

    grantee: str | None
    privilege: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A setting of the database, or of one role in it."""

    role: str | None
    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A recall and its exact answer.

    Attributes:
        episode_id: The episode whose vector is the query.
        found: The nearest episodes, nearest first.
        distances: Their cosine distances.
    """

    episode_id: str
    found: tuple[str, ...]
    distances: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a dump leaves out of its database.

    Attributes:
        owner: Its owner.
        encoding: Its encoding.
        locale_provider: ``"builtin"``, ``"libc"`` or ``"icu"``.
        locale: Its locale.
        extensions: Versions by name.
        extension_schemas: Schemas by name.
        grants: Privileges on it.
        settings: Settings that it carries.
    """

    owner: str
    encoding: str
    locale_provider: str
    locale: str
    extensions: dict[str, str]
    extension_schemas: dict[str, str]
    grants: tuple[Grant, ...]
    settings: tuple[Setting, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Database(Surroundings):
    """One dumped database, with its surroundings.

    Attributes:
        name: Its name.
        kind: ``"memory"``, or ``"also"`` for an application's own that was dumped beside it.
        file: Name of its file in the backup.
        bytes: Length of the file.
        sha256: Of the file as it is stored.
        revision: Of the memory's schema.
        dimensions: Of the memory's vectors.
        embedder: Identity of the model that the settings named.
        tables: Its tables.
        indexes: Names of its valid indexes.
        constraints: Names of its constraints, with the table's before.
        probes: Recalls to repeat.
        sizes: Bytes that its tables and indexes took, by schema and name; what the progress of a
            restore is measured by, and nothing is compared with.
    """

    name: str
    kind: Kind
    file: str
    bytes: int
    sha256: str
    revision: str | None
    dimensions: int | None
    embedder: str | None
    tables: tuple[Table, ...]
    indexes: tuple[str, ...]
    constraints: tuple[str, ...]
    probes: tuple[Probe, ...] = ()
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(table.rows for table in self.tables)


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A role that owns or may use something in the backup; never its password."""

    name: str
    login: bool
    bypass_rls: bool
    member_of: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A whole backup.

    Attributes:
        name: Its name, which holds its time.
        started_at: When the dump began: the state that it holds.
        finished_at: When it was complete.
        pgrecall: Version that made it.
        pg_dump: Version of the program.
        server: Version of the server.
        recipients: age public keys that it is encrypted to; none when it is not.
        databases: What it holds, the memory first.
        roles: Roles that a restore needs.
        format: Of this manifest.
    """

    name: str
    started_at: datetime
    finished_at: datetime
    pgrecall: str
    pg_dump: str
    server: str
    recipients: tuple[str, ...]
    databases: tuple[Database, ...]
    roles: tuple[Role, ...]
    format: int = field(default=FORMAT)

    @property
    def bytes(self) -> int:
        """Length of all its files."""
        return sum(database.bytes for database in self.databases)

    @property
    def memory(self) -> Database:
        """The memory's database."""
        return self.databases[0]


_ADAPTER = TypeAdapter(Manifest)


def dump(manifest: Manifest) -> bytes:
    """Return a manifest as JSON."""
    return _ADAPTER.dump_json(manifest, indent=2) + b"\n"


def parse(data: bytes, name: str) -> Manifest:
    """Read the manifest of the backup ``name``.

    Raises:
        BackupDamaged: It is no manifest, or another backup's.
        BackupError: A newer version of pgrecall wrote it.
    """
    try:
        manifest = _ADAPTER.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise BackupDamaged(
            f"the manifest of backup {name} cannot be read: {where}: {first['msg']}",
            hint="use another backup; `pgrecall backup list` shows them",
        ) from None
    if manifest.format > FORMAT:
        raise BackupError(
            f"backup {name} has format {manifest.format}; this version reads up to {FORMAT}",
            hint="upgrade pgrecall: pip install --upgrade pgrecall",
        )
    if manifest.name != name or not manifest.databases:
        raise BackupDamaged(
            f"the manifest of backup {name} is that of {manifest.name!r}",
            hint="a backup keeps the name that it was made with; rename it back",
        )
    return manifest
