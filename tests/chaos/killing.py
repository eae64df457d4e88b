"""Kill -9 of the server under load: its postmaster, all of it, one process of it; PgBouncer."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import ExitStack

import psycopg
from tests.chaos.ledger import Ledger, Tally
from tests.chaos.load import KINDS, under_load
from tests.chaos.place import PATIENCE, Place
from tests.pgbouncer import generate, public_directory, running

CHANCE = random.Random(4)
BACKENDS = """
SELECT pid FROM pg_stat_activity
WHERE backend_type = 'client backend' AND datname = current_database()
  AND pid <> pg_backend_pid() ORDER BY state = 'active' DESC, random() LIMIT 1
"""


def kill_postmaster(place: Place, rounds: int) -> Tally:
    """The postmaster is killed; its children notice and end."""
    return _kill_server(place, rounds, "kill -9 of the postmaster", all_of_it=False)


def kill_everything(place: Place, rounds: int) -> Tally:
    """Every process of the server is killed at once, amid whatever it did."""
    return _kill_server(place, rounds, "kill -9 of every server process", all_of_it=True)


def _kill_server(place: Place, rounds: int, scenario: str, *, all_of_it: bool) -> Tally:
    place.empty()
    ledger = Ledger(scenario)
    with under_load(place, ledger):
        for _ in range(rounds):
            time.sleep(CHANCE.uniform(0.2, 1.0))
            place.kill(all_of_it=all_of_it)
            ledger.fault()
            time.sleep(CHANCE.uniform(0, 0.3))
            place.server.start()
            ledger.await_progress(KINDS, seconds=PATIENCE)
    return ledger.judge(place.admin_dsn)


def kill_backend(place: Place, rounds: int) -> Tally:
    """One process that serves a client is killed: the postmaster then restarts all of them."""
    place.empty()
    ledger = Ledger("kill -9 of one backend")
    with under_load(place, ledger):
        for _ in range(rounds):
            time.sleep(CHANCE.uniform(0.1, 0.6))
            os.kill(_backend(place), signal.SIGKILL)
            ledger.fault()
            ledger.await_progress(KINDS, seconds=PATIENCE)
    return ledger.judge(place.admin_dsn)


def end_backends(place: Place, rounds: int) -> Tally:
    """Backends are terminated one by one, as an administrator or a failover does."""
    place.empty()
    ledger = Ledger("pg_terminate_backend")
    with (
        under_load(place, ledger),
        psycopg.connect(place.admin_dsn, autocommit=True) as admin,
    ):
        for _ in range(rounds):
            for _ in range(10):
                admin.execute(f"SELECT pg_terminate_backend(pid) FROM ({BACKENDS})")
                ledger.fault()
                time.sleep(CHANCE.uniform(0, 0.1))
            ledger.await_progress(KINDS, seconds=PATIENCE)
    return ledger.judge(place.admin_dsn)


def _backend(place: Place) -> int:
    with psycopg.connect(place.admin_dsn, autocommit=True) as admin:
        row = admin.execute(BACKENDS).fetchone()
    assert row is not None, "no client is connected"
    return int(row[0])


def kill_pgbouncer(place: Place, rounds: int) -> Tally:
    """PgBouncer is killed and started again; the clients behind it stay open."""
    place.empty()
    ledger = Ledger("kill -9 of PgBouncer")
    with public_directory() as directory, ExitStack() as stack:
        report = generate(place.server.admin_dsn(), place.settings, directory)
        pooler = stack.enter_context(running(report.configuration))
        with under_load(place, ledger, dsn=pooler.through(place.dsn)):
            for _ in range(rounds):
                time.sleep(CHANCE.uniform(0.2, 0.8))
                pooler.process.kill()
                pooler.process.wait()
                ledger.fault()
                time.sleep(CHANCE.uniform(0, 0.3))
                pooler = stack.enter_context(running(report.configuration))
                ledger.await_progress(KINDS, seconds=PATIENCE)
    return ledger.judge(place.admin_dsn)
