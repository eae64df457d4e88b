"""What PgBouncer's console says of its pools.

prometheus-pgbouncer-exporter 1.7 asks for columns that PgBouncer has not had since 1.8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from psycopg.conninfo import make_conninfo

from pgrecall.driver import Row
from pgrecall.ops.monitor.link import ANSWER_SECONDS, Link, parts_of
from pgrecall.sql import load
from pgrecall.telemetry.families import Family, gauge

CONSOLE = "pgbouncer"
"""The database under which PgBouncer offers its console."""


def console_dsn(pooler_dsn: str, monitor_dsn: str) -> str:
    """Return the connection string of the console.

    Args:
        pooler_dsn: Where the pooler is; user and password may be left out.
        monitor_dsn: Gives user and password then.

    Raises:
        ConfigurationError: One of them cannot be read.
    """
    monitor = parts_of(monitor_dsn)
    own = {name: monitor[name] for name in ("user", "password", "passfile") if name in monitor}
    given = make_conninfo(make_conninfo("", **own), **parts_of(pooler_dsn))
    return make_conninfo(given, dbname=CONSOLE)


class Pooler:
    """Reads the pools of one PgBouncer.

    Args:
        dsn: Connection string of its console, as a role of its ``stats_users``.
    """

    def __init__(self, dsn: str) -> None:
        self._link = Link(dsn, timeout_seconds=0)

    def collect(self) -> Iterator[Family]:
        """Return clients, servers and the longest wait of each pool.

        Raises:
            Unavailable: It does not answer.
            psycopg.Error: It refused, or the connection broke.
        """
        # The console knows no transactions and none of our statements but this one.
        connection = self._link.open(checked=False)
        try:
            with self._link.watched(ANSWER_SECONDS):
                rows = connection.execute(load("monitor")["console_pools"]).fetchall()
        except BaseException:
            self._link.close()
            raise
        pools = [row for row in rows if row["database"] != CONSOLE]
        clients = {"active": ("cl_active",), "waiting": ("cl_waiting",)}
        # Those not asked for a while are "used" to PgBouncer, and as idle as the others.
        servers = {"active": ("sv_active",), "idle": ("sv_idle", "sv_used")}
        yield gauge("pgrecall_pooler_clients", _states(pools, clients))
        yield gauge("pgrecall_pooler_servers", _states(pools, servers))
        yield gauge(
            "pgrecall_pooler_client_wait_seconds",
            [
                ((row["database"], row["user"]), int(row["maxwait"]) + int(row["maxwait_us"]) / 1e6)
                for row in pools
            ],
        )

    def close(self) -> None:
        """Close the connection to the console."""
        self._link.close()


def _states(
    pools: list[Row], states: Mapping[str, tuple[str, ...]]
) -> list[tuple[tuple[str, ...], float]]:
    return [
        ((row["database"], row["user"], state), float(sum(int(row[name]) for name in columns)))
        for row in pools
        for state, columns in states.items()
    ]
