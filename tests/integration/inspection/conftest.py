"""A fresh database per test, and what ``verify`` and ``doctor`` say of it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgrecall.ops.checks import Check
from pgrecall.testing import Database

SPECIFICATION = Path("spec") / "CR_Agent_01.md"


@pytest.fixture
def plant(pgrecall_database: Database) -> Callable[[str], None]:
    """Run SQL as the superuser; ``{role}`` stands for what the names of our roles begin with."""

    def run(statements: str) -> None:
        prefix = pgrecall_database.settings.database
        with psycopg.connect(pgrecall_database.admin_dsn, autocommit=True) as connection:
            for statement in statements.split(";;"):
                connection.execute(statement.replace("{role}", prefix).encode())

    return run


@pytest.fixture
def by_id() -> Callable[[list[Check]], dict[str, Check]]:
    def index(checks: list[Check]) -> dict[str, Check]:
        assert len({check.id for check in checks}) == len(checks)
        return {check.id: check for check in checks}

    return index


@pytest.fixture
def specified_schema(eval_data: Path) -> str:
    """The specification's own SQL, for a server without uuid-ossp; grants go to CURRENT_USER."""
    path = eval_data.parent / SPECIFICATION
    if not path.exists():
        pytest.skip(f"the specification is not at {path}")
    appendix = path.read_text(encoding="utf-8").split("## Appendix A", 1)[1]
    match = re.search(r"```sql\n(.*?)```", appendix, re.DOTALL)
    assert match is not None
    return (
        match[1]
        .replace('CREATE EXTENSION IF NOT EXISTS "uuid-ossp";', "")
        .replace("chronicle_user", "CURRENT_USER")
    )


@pytest.fixture
def empty_database(admin_dsn: str) -> Iterator[str]:
    """Superuser connection string of an empty database."""
    name = f"pgrecall_inspection_{secrets.token_hex(4)}"
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        try:
            yield make_conninfo(admin_dsn, dbname=name)
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
