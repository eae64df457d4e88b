"""Step 6: the database is reachable through a connection pooler."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack

import psycopg

from pgrecall.driver import Row, connect
from pgrecall.errors import PgrecallError
from pgrecall.ops.checks import Seen
from pgrecall.ops.verify.session import QUERIES, Session, describe

_CLIENTS = 4
_RUNS = 10


def pooler(session: Session, dsn: str | None) -> Seen:
    """Connect several clients through the pooler and work with the database."""
    if dsn is None:
        return Seen(
            "not configured",
            "no connection string of a pooler was given",
            "give the pooler's connection string to check it too",
        )
    direct = session.one("identity")
    try:
        with ExitStack() as stack:
            clients = [stack.enter_context(connect(dsn, purpose="verify")) for _ in range(_CLIENTS)]
            return _judge(direct, clients)
    except (psycopg.Error, PgrecallError) as error:
        return Seen(
            "failed",
            describe(error) if isinstance(error, psycopg.Error) else error.message,
            "check that the pooler runs, listens there, and knows the database and the role",
        )


def _judge(direct: Row, clients: list[psycopg.Connection[Row]]) -> Seen:
    backends: set[int] = set()
    pooled = False
    times = []
    for client in clients:
        for _ in range(_RUNS):
            started = time.perf_counter()
            with client.transaction():
                row = _one(client, "identity")
            times.append((time.perf_counter() - started) * 1000)
            backends.add(row["backend_pid"])
            pooled = pooled or row["backend_pid"] != client.info.backend_pid
            if any(row[key] != direct[key] for key in ("database", "oid", "started")):
                return Seen(
                    "failed",
                    f"the pooler leads to database {row['database']!r} of another server or "
                    f"another database than {direct['database']!r}",
                    "correct the [databases] section of the pooler",
                )
    if not pooled:
        return Seen(
            "failed",
            "the connection string leads straight to the server: the process id given at "
            "connecting is the server's own",
            "give the connection string of the pooler",
        )
    with clients[0].transaction():
        _one(clients[0], "set_local_probe")
    if any(_one(client, "read_probe")["probe"] is not None for client in clients):
        return Seen(
            "failed",
            "a setting of one transaction was seen by the next",
            "use PgBouncer in transaction mode",
        )
    return Seen(
        "passed",
        f"{_CLIENTS} clients shared {len(backends)} server connections to PostgreSQL "
        f"{direct['version']}, {len(times)} transactions, median "
        f"{statistics.median(times):.1f} ms; settings stayed within their transaction",
    )


def _one(client: psycopg.Connection[Row], name: str) -> Row:
    (row,) = client.execute(QUERIES[name]).fetchall()
    return row
