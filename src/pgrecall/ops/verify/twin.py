"""Temporary twins of the real tables, in which ``verify`` can write without leaving a trace.

A rolled-back insert into a real table leaves dead entries in its vector index, and a rolled-back
update locks rows of others. A twin has the same columns, defaults, constraints, indexes and
triggers, made from the real table's own definitions, in a schema that only this session sees.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import psycopg
from psycopg import sql

from pgrecall.ops.verify.catalog import TABLES
from pgrecall.ops.verify.session import QUERIES, Session

VECTORS = 1000
"""How many vectors the specification's test of speed asks for."""

_Result = TypeVar("_Result")


def make(session: Session, table: str, *, indexes: bool = True) -> None:
    """Create the empty twin of ``table``; it ends with the transaction or savepoint."""
    session.connection.execute(sql.SQL(QUERIES["make_twin"]).format(table=sql.Identifier(table)))
    for row in session.rows("twin_parts", {"table": table}):
        if indexes or row["kind"] != "index":
            _add(session, table, row["definition"])


def make_searchable(session: Session, dimensions: int) -> None:
    """Create the twin of ``agent_episodes`` with random vectors; indexes are built at the end."""
    make(session, "agent_episodes", indexes=False)
    session.run("fill_twin", {"dimensions": dimensions, "rows": VECTORS})
    for row in session.rows("twin_parts", {"table": "agent_episodes"}):
        if row["kind"] == "index":
            _add(session, "agent_episodes", row["definition"])
    session.run("analyze_twin")


def _add(session: Session, table: str, definition: str) -> None:
    place = re.compile(rf" ON (?:ONLY )?public\.{table} ")
    changed, count = place.subn(f" ON pg_temp.{table} ", definition, count=1)
    if count == 0:
        raise RuntimeError(f"not a definition on public.{table}: {definition}")
    session.run_text(changed)


def run_function(
    session: Session,
    function: str,
    parameters: str,
    call: str,
    *,
    prepare: Callable[[], None],
    observe: Callable[[], _Result],
) -> tuple[_Result, str]:
    """Run one of the database's own functions against the twins.

    The transaction is read-only meanwhile, in which PostgreSQL lets nothing but temporary tables
    be written to. A function that names its tables without a schema is called as it stands. One
    that names schema ``public`` is refused, so a copy of it is run that names ``pg_temp`` there
    and is otherwise the same.

    Args:
        session: Holds the twins.
        function: Name of the function in schema ``public``.
        parameters: Its parameter types, such as ``"integer, text"``.
        call: The statement that calls it; ``<call>_copy`` calls the copy.
        prepare: Writes rows into the twins before.
        observe: Reads from the twins what it did.

    Returns:
        What ``observe`` returned, and in words how the function was run.

    Raises:
        psycopg.errors.ReadOnlySqlTransaction: It writes to something else than the twins.
    """
    signature = f"{function}({parameters})"
    try:
        with session.read_only():
            prepare()
            session.run(call)
            return observe(), "called as it stands"
    except psycopg.errors.ReadOnlySqlTransaction:
        with session.attempt():
            row = session.one("function_definition", {"signature": f"public.{signature}"})
            session.run_text(_redirected(row["definition"], function))
            name = sql.SQL(signature)
            session.connection.execute(sql.SQL(QUERIES["forget_settings"]).format(function=name))
            session.run("read_only")
            prepare()
            session.run(f"{call}_copy")
            return observe(), "its own body run with pg_temp in place of public"


def _redirected(definition: str, function: str) -> str:
    names = "|".join((function, *TABLES))
    return re.sub(
        rf'(?:"public"|\bpublic)\s*\.\s*(?="?(?:{names})\b)',
        "pg_temp.",
        definition,
        flags=re.IGNORECASE,
    )
