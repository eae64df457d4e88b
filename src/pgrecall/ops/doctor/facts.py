"""What ``doctor`` knows about a server and database, gathered with a fixed number of queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg.rows import class_row

from pgrecall import driver
from pgrecall.models import Staleness
from pgrecall.ops.doctor.recall import Codes, Recall, examine_codes, examine_recall
from pgrecall.ops.doctor.vectors import Sampled, Vectors, sample_vectors
from pgrecall.ops.doctor.words import Words, examine_words
from pgrecall.ops.local import is_local, memory_of_this_machine, shared_memory_free
from pgrecall.sql import load

_QUERIES: Mapping[str, LiteralString] = load("doctor")
_MOST_RECENT = 500_000
_Record = TypeVar("_Record")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Settings and state of the server; memory in bytes.

    Attributes:
        role_prefix: What the names of our roles begin with; the database's name as a rule.
        connections: Connections open to roles without special rights.
        connections_used: Client connections there are now.
        collation_recorded: Version of the collation when the database was made, if it has one.
        collation_actual: Version that the operating system has now.
    """

    version: str
    version_number: int
    database: str
    role: str
    role_prefix: str
    superuser: bool
    backend_pid: int
    in_recovery: bool
    checksums: bool
    fsync: bool
    full_page_writes: bool
    synchronous_commit: str
    maintenance_work_mem: int
    maintenance_workers: int
    shared_memory_type: str
    shared_buffers: int
    random_page_cost: float
    connections: int
    connections_used: int
    password_encryption: str
    collation_recorded: str | None
    collation_actual: str | None
    has_episodes: bool
    has_knowledge: bool
    has_schema_version: bool
    has_revision: bool
    has_codes: bool
    has_words: bool
    has_recent: bool
    has_deferred: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """An extension that is installed here, or could be."""

    name: str
    installed: str | None
    available: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index of the database, its name with its schema."""

    name: str
    method: str
    usable: bool
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred:
    """An index that an import has put off, and whether an import is at work."""

    name: str
    since: datetime
    at_work: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of vectors; ``dimensions`` is None where its type fixes none."""

    name: str
    type: str
    dimensions: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One of our roles: what it is for, what it may do, and the settings it starts with."""

    purpose: str
    name: str
    superuser: bool
    create_role: bool
    create_database: bool
    replication: bool
    bypass_rls: bool
    creates_in_public: bool
    owns: list[str]
    settings: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicRight:
    """A privilege that everybody has."""

    object: str
    privilege: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Statistics of a table, in rows."""

    name: str
    live: int
    dead: int
    changed: int
    analyzed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows with a fault: the first ids, and how many there are."""

    first: list[str] | None
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything the checks judge by; None stands for what could not be seen.

    Attributes:
        staleness: How far the server is behind its primary, if it is a standby.
        pooled: Whether a pooler stands between.
        machine_memory: Bytes of memory that the server's machine has, if it is this one.
        shared_memory_free: Bytes free in the server's shared memory file system, if it is here.
        weak_passwords: Login roles whose password isn't kept as SCRAM; for superusers only.
        evidence_constraint: Definition of the check on supporting episodes.
        revision: The revision that Alembic recorded.
        recall: How much of the truth recalls find.
        codes: Whether every vector has its code.
        words: Whether every text has its words; None where that took too long.
        recent: Episodes that bursts brought and that are not merged, up to some hundred thousand.
        sampled: Some stored vectors, with what they were made of.
        vectors: How they compare with those that their embedder makes.
        embedder_dimensions: What the configured embedder makes.
        pool_size: Connections that one client opens at most.
    """

    server: Server
    staleness: Staleness
    pooled: bool
    machine_memory: int | None
    shared_memory_free: int | None
    extensions: tuple[Extension, ...]
    indexes: tuple[Index, ...]
    deferred: tuple[Deferred, ...]
    columns: tuple[Column, ...]
    roles: tuple[Role, ...]
    weak_passwords: tuple[str, ...] | None
    public_rights: tuple[PublicRight, ...]
    tables: tuple[Table, ...]
    evidence_constraint: str | None
    lacking_evidence: Rows | None
    dangling_evidence: Rows | None
    revision: str | None
    schema_versions: tuple[str, ...] | None
    recall: Recall | None
    codes: Codes | None
    words: Words | None
    recent: int | None
    sampled: Sampled | None
    vectors: Vectors | None
    embedder_dimensions: int | None
    pool_size: int

    @property
    def storage(self) -> str:
        """Type of the columns of vectors."""
        return self.columns[0].type.partition("(")[0] if self.columns else "vector"


@contextmanager
def connect(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """Connect, and give a read-only transaction that is rolled back at the end.

    Raises:
        Unavailable: The server could not be reached.
        DatabaseError: A query was refused, or the connection broke.
    """
    connection = driver.connect(dsn, purpose="doctor")
    try:
        with connection, connection.transaction(force_rollback=True):
            connection.execute(_QUERIES["session"])
            yield connection
    except psycopg.Error as error:
        raise driver.translate(error) from error


def gather(
    connection: psycopg.Connection[Any], *, embedder_dimensions: int | None, pool_size: int
) -> Facts:
    """Ask the server, in one snapshot per query, for everything there is to judge."""

    def rows(name: str, kind: type[_Record]) -> tuple[_Record, ...]:
        with connection.cursor(row_factory=class_row(kind)) as cursor:
            return tuple(cursor.execute(_QUERIES[name]).fetchall())

    def values(name: str) -> tuple[str, ...]:
        return tuple(
            next(iter(row.values())) for row in connection.execute(_QUERIES[name]).fetchall()
        )

    (server,) = rows("server", Server)
    pooled = driver.is_pooled(connection, server.backend_pid)
    here = is_local(connection.info.host, server.backend_pid)
    both = server.has_knowledge and server.has_episodes
    coded = both and server.has_codes
    with connection.cursor(row_factory=class_row(Staleness)) as cursor:
        staleness = cursor.execute(load("connection")["staleness"]).fetchall()[0]
    return Facts(
        server=server,
        staleness=staleness,
        pooled=pooled,
        machine_memory=memory_of_this_machine() if here else None,
        shared_memory_free=shared_memory_free() if here else None,
        extensions=rows("extensions", Extension),
        indexes=rows("indexes", Index),
        deferred=rows("deferred", Deferred) if server.has_deferred else (),
        columns=rows("columns", Column),
        roles=rows("roles", Role),
        weak_passwords=values("passwords") if server.superuser else None,
        public_rights=rows("public_rights", PublicRight),
        tables=rows("tables", Table),
        evidence_constraint=next(iter(values("evidence_constraint")), None),
        lacking_evidence=rows("lacking_evidence", Rows)[0] if server.has_knowledge else None,
        dangling_evidence=rows("dangling_evidence", Rows)[0] if both else None,
        revision=next(iter(values("revision")), None) if server.has_revision else None,
        schema_versions=values("schema_versions") if server.has_schema_version else None,
        recall=examine_recall(connection, role_prefix=server.role_prefix) if coded else None,
        codes=examine_codes(connection) if coded else None,
        words=examine_words(connection) if both and server.has_words else None,
        recent=_recent(connection) if server.has_recent else None,
        sampled=sample_vectors(connection) if coded else None,
        vectors=None,
        embedder_dimensions=embedder_dimensions,
        pool_size=pool_size,
    )


def _recent(connection: psycopg.Connection[Any]) -> int:
    return int(driver.Statements(connection, _QUERIES).value("recent", {"most": _MOST_RECENT}))
