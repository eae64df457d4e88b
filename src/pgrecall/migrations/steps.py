"""What a revision may do: run named statements of a ``.sql`` file, exactly as they are written."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import reduce
from typing import Any, LiteralString, cast

import psycopg

from pgrecall.core.routes import FORMULAS, LEAST_SHARE
from pgrecall.migrations import SQL_PACKAGE
from pgrecall.sql import load


def statements(file: str, *names: str, dimensions: int) -> list[LiteralString]:
    """Return the statements of ``file`` (all, or the named ones) for vectors of ``dimensions``."""
    texts = load(file, SQL_PACKAGE)
    chosen = [texts[name] for name in names] if names else list(texts.values())
    values = {"{{dimensions}}": str(dimensions), "{{least_share}}": LEAST_SHARE}
    values |= {f"{{{{cost_of_{route}}}}}": formula for route, formula in FORMULAS.items()}
    return [reduce(lambda text, item: text.replace(*item), values.items(), t) for t in chosen]


def execute(connection: psycopg.Connection[Any], texts: list[LiteralString]) -> None:
    """Send statements through the driver unparsed: without parameters, ``%`` and ``:`` are text."""
    for text in texts:
        connection.execute(text)


def run(file: str, *names: str) -> None:
    """Run statements of ``sql/<file>.sql`` in the revision that is being applied.

    Args:
        file: File name without its ending.
        names: The statements to run, in this order; all of the file when none is given.
    """
    from alembic import op  # Alembic takes a third of a second to load

    context = op.get_context()
    config = context.config
    if config is None:
        raise RuntimeError("a revision ran outside of pgrecall.migrations.runner")
    texts = statements(file, *names, dimensions=int(config.attributes["dimensions"]))
    if context.as_sql:
        for text in texts:
            context.impl.static_output(f"{text};")
        return
    connection = op.get_bind().connection.driver_connection
    execute(cast("psycopg.Connection[Any]", connection), texts)


def outside_transaction() -> AbstractContextManager[None]:
    """Commit what the revision has done, and run what follows without a transaction."""
    from alembic import op  # as above

    return op.get_context().autocommit_block()
