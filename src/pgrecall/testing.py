"""Fixtures for tests that need a memory: real PostgreSQL, one fresh database a test.

Use them by writing ``pytest_plugins = ["pgrecall.testing"]`` in your ``conftest.py``::

    def test_my_agent_remembers(pgrecall_memory):
        pgrecall_memory.episodes.record(project_id="apollo", ...)

The server is the embedded one, started in a temporary directory once a run (in memory where there
is room), unless ``PGRECALL_TEST_ADMIN_DSN`` names another. Override the fixtures
``pgrecall_embedder`` or ``pgrecall_dimensions`` to test with vectors of your own.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
from psycopg import conninfo, sql
from psycopg.rows import dict_row

from pgrecall import Memory
from pgrecall.config import Settings, load_settings
from pgrecall.embedding.base import Embedder, Mode
from pgrecall.sql import load

ROOM = 2 * 2**30
"""Bytes that must be free in /dev/shm for the tests' server to be put there."""


class HashEmbedder:
    """A fast embedder for tests: texts that share words are similar. No model, no meaning.

    Args:
        dimensions: Length of the vectors.
    """

    def __init__(self, dimensions: int = 64) -> None:
        self.dimensions = dimensions
        self.identity = f"hash:{dimensions}"
        self.max_tokens = 512
        self.available = True

    def embed(self, texts: Sequence[str], mode: Mode = "document") -> list[list[float]]:
        """Return one unit vector for each text."""
        del mode
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> list[float]:
        vector = [0.0] * self.dimensions
        for word in re.findall(r"\w+", text.lower()) or [""]:
            digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
            vector[int.from_bytes(digest[:4]) % self.dimensions] += 1.0 if digest[4] % 2 else -1.0
        length = math.sqrt(sum(value * value for value in vector))
        return [value / length for value in vector] if length else [1.0, *vector[1:]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """One provisioned database for a test.

    Attributes:
        dsn: Connection string of the application role.
        owner_dsn: Of the owner.
        admin_dsn: Of the server's superuser, in this database.
        settings: Settings whose configuration directory holds the roles' passwords.
    """

    name: str
    dsn: str = field(repr=False)
    owner_dsn: str = field(repr=False)
    admin_dsn: str = field(repr=False)
    settings: Settings

    def role_dsn(self, role: str) -> str:
        """Return the connection string of another role, such as ``readonly``."""
        from pgrecall.ops.provision import dsn_for

        return conninfo.make_conninfo(dsn_for(self.settings, role), dbname=self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A provisioned database that is copied for each test."""

    name: str
    admin_dsn: str
    settings: Settings

    @contextmanager
    def clone(self) -> Iterator[Database]:
        """Give a copy, and drop it afterwards."""
        name = f"pgrecall_test_{secrets.token_hex(6)}"
        with psycopg.connect(self.admin_dsn, autocommit=True, row_factory=dict_row) as admin:
            self._copy(admin, name)
            database = self._database(name)
            try:
                yield database
            finally:
                admin.execute(_compose("drop", clone=name))

    def _copy(self, admin: psycopg.Connection[dict[str, Any]], name: str) -> None:
        # Rights to the database itself and settings of roles in it are not part of a copy.
        admin.execute(_compose("clone", clone=name, template=self.name, owner=f"{self.name}_owner"))
        admin.execute(_compose("close_to_public", clone=name))
        for role in ("owner", "app", "readonly", "monitor", "backup"):
            admin.execute(_compose("let_in", clone=name, role=f"{self.name}_{role}"))
        rows = admin.execute(load("testing")["role_settings"], {"template": self.name}).fetchall()
        for row in rows:
            admin.execute(
                sql.SQL(load("testing")["set_role_setting"]).format(
                    role=sql.Identifier(row["role"]),
                    clone=sql.Identifier(name),
                    name=sql.Identifier(*row["name"].split(".")),
                    value=sql.Literal(row["value"]),
                )
            )

    def _database(self, name: str) -> Database:
        from pgrecall.ops.provision import dsn_for

        def at(dsn: str) -> str:
            return conninfo.make_conninfo(dsn, dbname=name)

        return Database(
            name=name,
            dsn=at(dsn_for(self.settings, "app")),
            owner_dsn=at(dsn_for(self.settings, "owner")),
            admin_dsn=at(self.admin_dsn),
            settings=self.settings,
        )


def _compose(statement: str, **identifiers: str) -> sql.Composed:
    return sql.SQL(load("testing")[statement]).format(
        **{name: sql.Identifier(value) for name, value in identifiers.items()}
    )


@contextmanager
def provisioned_template(admin_dsn: str, directory: Path, dimensions: int) -> Iterator[Template]:
    """Provision a database to copy from, and drop it with its roles afterwards.

    Args:
        admin_dsn: Connection string of a superuser.
        directory: Where the roles' passwords are kept meanwhile.
        dimensions: Length of the vectors.
    """
    from pgrecall.ops.provision import destroy, init

    name = f"pgrecall_template_{secrets.token_hex(4)}"
    settings = load_settings(config_dir=directory, database=name, pool_max_size=4)
    init(admin_dsn, database=name, dimensions=dimensions, settings=settings)
    try:
        yield Template(name=name, admin_dsn=admin_dsn, settings=settings)
    finally:
        destroy(admin_dsn, database=name, settings=settings)


@pytest.fixture(scope="session")
def pgrecall_admin_dsn() -> Iterator[str]:
    """Superuser connection string of a real server, embedded unless one is named."""
    if given := os.environ.get("PGRECALL_TEST_ADMIN_DSN"):
        yield given
        return
    from pgrecall.engine import EmbeddedServer

    with TemporaryDirectory(prefix="pgrecall-", dir=_quick_place()) as directory:
        Path(directory).chmod(0o755)  # the server may run as another user; its own part is closed
        server = EmbeddedServer(Path(directory) / "server")
        server.start()
        try:
            yield server.admin_dsn()
        finally:
            server.destroy(force=True)


def _quick_place() -> Path | None:
    """Return memory to put the server in, where there is room: each test makes a database."""
    memory = Path("/dev/shm")  # noqa: S108  # only a new directory in it is used
    if not os.access(memory, os.W_OK):
        return None
    place = os.statvfs(memory)
    has_room = place.f_bavail * place.f_frsize > ROOM
    runs_programs = not place.f_flag & os.ST_NOEXEC  # the server's are copied beside its data
    return memory if has_room and runs_programs else None


@pytest.fixture(scope="session")
def pgrecall_dimensions() -> int:
    """Length of the vectors in the tests' databases."""
    return 64


@pytest.fixture(scope="session")
def pgrecall_embedder(pgrecall_dimensions: int) -> Embedder:
    """The embedder of the tests' memories."""
    return HashEmbedder(pgrecall_dimensions)


@pytest.fixture(scope="session")
def pgrecall_template(
    pgrecall_admin_dsn: str, pgrecall_dimensions: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Template]:
    """The provisioned database that each test gets a copy of."""
    directory = tmp_path_factory.mktemp("pgrecall-config")
    with provisioned_template(pgrecall_admin_dsn, directory, pgrecall_dimensions) as template:
        yield template


@pytest.fixture
def pgrecall_database(pgrecall_template: Template) -> Iterator[Database]:
    """A fresh database."""
    with pgrecall_template.clone() as database:
        yield database


@pytest.fixture
def pgrecall_memory(pgrecall_database: Database, pgrecall_embedder: Embedder) -> Iterator[Memory]:
    """An open, empty memory."""
    with Memory.open(
        pgrecall_database.dsn, embedder=pgrecall_embedder, settings=pgrecall_database.settings
    ) as memory:
        yield memory
