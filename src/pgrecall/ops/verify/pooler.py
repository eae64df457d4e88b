"""Step 6: the database is reachable through a connection pooler."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass

import psycopg

from pgrecall.driver import Row, connect, is_pooled
from pgrecall.errors import PgrecallError
from pgrecall.ops.checks import Seen
from pgrecall.ops.verify.session import QUERIES, Session, describe

_CLIENTS = 4
_RUNS = 10
_MAKE_ONE = (
    "to put one in front: `pgrecall pooler config`, then PGRECALL_DSN through it and "
    "PGRECALL_DIRECT_DSN straight to the server"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What is known of the way through a pooler before it is tried.

    Attributes:
        dsn: Connection string that leads through a pooler to this very database, or None.
        refusal: Where there is none, what was seen instead.
    """

    dsn: str | None = None
    refusal: Seen | None = None


def find(session: Session, dsn: str | None, *, claimed: bool) -> Way:
    """Find out whether a connection string leads through a pooler to the database of ``session``.

    Args:
        session: The owner's connection, to the server itself.
        dsn: The connection string; None where there is none.
        claimed: Whether somebody says that it does; then it is a fault if it does not.
    """
    if dsn is None:
        return Way(
            refusal=Seen("not configured", "no connection string of a pooler was given", _MAKE_ONE)
        )
    direct = session.one("identity")
    try:
        with connect(dsn, purpose="verify") as client:
            row = _one(client, "identity")
            pooled = is_pooled(client, row["backend_pid"])
    except (psycopg.Error, PgrecallError) as error:
        return Way(refusal=_failure(error))
    if not pooled and not claimed:
        return Way(
            refusal=Seen(
                "not configured",
                "PGRECALL_DSN leads straight to the server, without a pooler",
                _MAKE_ONE,
            )
        )
    if any(row[key] != direct[key] for key in ("database", "oid", "started")):
        return Way(
            refusal=Seen(
                "failed",
                f"the pooler leads to database {row['database']!r} of another server or "
                f"another database than {direct['database']!r}",
                "correct the [databases] section of the pooler",
            )
        )
    if not pooled:
        return Way(
            refusal=Seen(
                "failed",
                "the connection string leads straight to the server: the process id given at "
                "connecting is the server's own",
                "give the connection string of the pooler",
            )
        )
    return Way(dsn=dsn)


def pooler(session: Session, way: Way) -> Seen:
    """Connect several clients through the pooler and work with the database."""
    if way.dsn is None:
        assert way.refusal is not None  # noqa: S101 - one of the two is there
        return way.refusal
    version = session.one("identity")["version"]
    try:
        with ExitStack() as stack:
            clients = [
                stack.enter_context(connect(way.dsn, purpose="verify")) for _ in range(_CLIENTS)
            ]
            return _judge(version, clients)
    except (psycopg.Error, PgrecallError) as error:
        return _failure(error)


def _failure(error: psycopg.Error | PgrecallError) -> Seen:
    return Seen(
        "failed",
        describe(error) if isinstance(error, psycopg.Error) else error.message,
        "check that the pooler runs, listens there, and knows the database and the role: "
        "`pgrecall pooler config` writes a configuration that does",
    )


def _judge(version: str, clients: list[psycopg.Connection[Row]]) -> Seen:
    backends: set[int] = set()
    times = []
    for client in clients:
        for _ in range(_RUNS):
            started = time.perf_counter()
            with client.transaction():
                row = _one(client, "identity")
            times.append((time.perf_counter() - started) * 1000)
            backends.add(row["backend_pid"])
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
        f"{version}, {len(times)} transactions, median "
        f"{statistics.median(times):.1f} ms; settings stayed within their transaction",
    )


def _one(client: psycopg.Connection[Row], name: str) -> Row:
    (row,) = client.execute(QUERIES[name]).fetchall()
    return row
