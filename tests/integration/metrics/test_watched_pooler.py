"""PgBouncer's pools, as the monitor shows them."""

from __future__ import annotations

import psycopg
from psycopg.conninfo import make_conninfo
from tests.integration.metrics.scraping import scrape
from tests.integration.monitor.programs import wait_until
from tests.pgbouncer import PgBouncer, generate, public_directory, running

from pgrecall.ops.monitor.pooler import Pooler, console_dsn
from pgrecall.ops.monitor.service import Monitor, MonitorRequest
from pgrecall.testing import Database, Template


def test_it_watches_a_pooler(pgrecall_database: Database, pooler: PgBouncer) -> None:
    agent = pooler.through(pgrecall_database.dsn)
    watching = Monitor(
        MonitorRequest(
            dsn=pooler.through(pgrecall_database.role_dsn("monitor")),
            port=0,
            pooler_dsn=f"host=127.0.0.1 port={pooler.port}",
        )
    )
    try:
        with psycopg.connect(agent) as busy:
            busy.execute("SELECT 1")
            seen = scrape(watching)
            where = {"database": pgrecall_database.name, "user": busy.info.user}
            assert seen("pgrecall_pooler_clients", state="active", **where) == 1
            assert seen("pgrecall_pooler_servers", state="active", **where) == 1
            assert seen("pgrecall_pooler_client_wait_seconds", **where) == 0
            # The monitor itself came through the pooler.
            assert seen("pgrecall_up") == 1
            assert seen("pgrecall_collector_success", collector="pooler") == 1
        pooler.process.terminate()
        pooler.process.wait()
        seen = scrape(watching)
        assert seen("pgrecall_up") == 0
        assert seen("pgrecall_collector_success", collector="pooler") == 0
        assert "pgrecall_pooler_clients" not in seen.names
    finally:
        watching.close()


def test_a_pooler_is_watched_while_the_database_is_away(
    pgrecall_database: Database, pooler: PgBouncer
) -> None:
    known = psycopg.conninfo.conninfo_to_dict(pgrecall_database.role_dsn("monitor"))
    watching = Monitor(
        MonitorRequest(
            dsn=make_conninfo("", host="127.0.0.1", port=1),
            port=0,
            pooler_dsn=make_conninfo(
                "", host="127.0.0.1", port=pooler.port, user=known["user"],
                password=known["password"],
            ),
        )
    )  # fmt: skip
    try:
        with psycopg.connect(pooler.through(pgrecall_database.dsn)) as busy:
            busy.execute("SELECT 1")
            seen = scrape(watching)
            where = {"database": pgrecall_database.name, "user": busy.info.user}
    finally:
        watching.close()
    assert seen("pgrecall_up") == 0
    assert seen("pgrecall_collector_success", collector="pooler") == 1
    assert seen("pgrecall_pooler_clients", state="active", **where) == 1


def test_idle_servers_of_a_pooler_stay_idle(
    pgrecall_template: Template, pgrecall_database: Database
) -> None:
    """PgBouncer calls them used after a while, which must not look as if they were gone."""
    monitor = pgrecall_database.role_dsn("monitor")
    with public_directory() as directory:
        report = generate(
            pgrecall_template.admin_dsn, pgrecall_template.settings, directory,
            also=(pgrecall_database.name,), settings={"server_check_delay": "1"},
        )  # fmt: skip
        with running(report.configuration) as pooler:
            with psycopg.connect(pooler.through(pgrecall_database.dsn)) as once:
                once.execute("SELECT 1")
                wanted = {"database": pgrecall_database.name, "user": once.info.user}

            def used() -> bool:
                return any(
                    wanted.items() <= row.items() and row["sv_used"] == 1
                    for row in pooler.console(monitor, "SHOW POOLS")
                )

            wait_until(used, "no idle server counts as used")
            watched = Pooler(console_dsn(f"host=127.0.0.1 port={pooler.port}", monitor))
            try:
                families = {family.name: family for family in watched.collect()}
            finally:
                watched.close()
    values = {
        sample.labels["state"]: sample.value
        for sample in families["pgrecall_pooler_servers"].samples
        if wanted.items() <= sample.labels.items()
    }
    assert values == {"active": 0, "idle": 1}


def test_the_console_is_asked_as_the_monitor() -> None:
    dsn = console_dsn("host=pooler port=6432", "postgresql://m:secret@db:5432/agent_memory")
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    assert parts == {
        "host": "pooler",
        "port": "6432",
        "user": "m",
        "password": "secret",
        "dbname": "pgbouncer",
    }
    other = console_dsn("host=pooler user=stats", "postgresql://m@db/agent_memory")
    assert psycopg.conninfo.conninfo_to_dict(other)["user"] == "stats"
