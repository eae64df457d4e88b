"""Empty databases on a real server, dropped afterwards."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo


@pytest.fixture
def new_database(admin_dsn: str) -> Iterator[Callable[[], str]]:
    """Return a function that creates an empty database and gives its connection string."""
    names: list[str] = []

    def create() -> str:
        names.append(f"mig{secrets.token_hex(5)}")
        with psycopg.connect(admin_dsn, autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(
                    sql.Identifier(names[-1])
                )
            )
        return make_conninfo(admin_dsn, dbname=names[-1])

    yield create
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        for name in names:
            connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            )


@pytest.fixture
def dsn(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture(scope="session")
def appendix() -> str:
    """The specification's own SQL, without its grants to a user that isn't here."""
    data = os.environ.get("PGRECALL_EVAL_DATA")
    path = Path(data or "absent").parent / "spec" / "CR_Agent_01.md"
    if not data or not path.is_file():
        pytest.skip("not run: the specification is found beside PGRECALL_EVAL_DATA")
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"```sql\n(.*?)```", text[text.index("## Appendix A") :], re.DOTALL)
    lines = str(blocks[-1]).splitlines()
    left_out = ("GRANT ", "CREATE EXTENSION")
    return "CREATE EXTENSION vector; CREATE EXTENSION pg_trgm;" + "\n".join(
        line for line in lines if not line.startswith(left_out)
    )
