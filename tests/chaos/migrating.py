"""``pgrecall migrate`` killed half-way: at any of its statements, and with it the server."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.chaos.ledger import Ledger, Tally
from tests.chaos.place import DIMENSIONS, PATIENCE, Place
from tests.chaos.proxy import Cut, Proxy, proxied

from pgrecall.migrations import HEAD, REVISIONS, runner

ROWS = 20
EVERYTHING = """
SELECT concat_ws(' ', 'column', attrelid::regclass, attname, format_type(atttypid, atttypmod),
                 attnotnull, pg_get_expr(adbin, adrelid))
  FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
  LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
 WHERE relnamespace IN ('public'::regnamespace, to_regnamespace('pgrecall')) AND attnum > 0
UNION ALL
SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(oid))
  FROM pg_constraint
 WHERE connamespace IN ('public'::regnamespace, to_regnamespace('pgrecall'))
UNION ALL
SELECT concat_ws(' ', 'index', indexrelid::regclass, indisvalid, pg_get_indexdef(indexrelid))
  FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
 WHERE relnamespace IN ('public'::regnamespace, to_regnamespace('pgrecall'))
UNION ALL SELECT concat_ws(' ', 'view', viewname, definition) FROM pg_views
 WHERE schemaname IN ('public', 'pgrecall')
UNION ALL SELECT concat_ws(' ', 'function', proname, proacl, pg_get_functiondef(pg_proc.oid))
  FROM pg_proc LEFT JOIN pg_depend ON objid = pg_proc.oid AND deptype = 'e'
 WHERE pronamespace IN ('public'::regnamespace, to_regnamespace('pgrecall')) AND objid IS NULL
UNION ALL SELECT concat_ws(' ', 'relation', oid::regclass, relkind, relacl) FROM pg_class
 WHERE relnamespace IN ('public'::regnamespace, to_regnamespace('pgrecall'))
UNION ALL SELECT concat_ws(' ', 'version', version) FROM schema_version
UNION ALL SELECT concat_ws(' ', 'alembic', version_num) FROM pgrecall.alembic_version
UNION ALL SELECT concat_ws(' ', 'rows', count(*)) FROM agent_episodes
 ORDER BY 1
"""


def schema(dsn: str) -> list[Any]:
    """Return all that a migration makes, validity of indexes and rights included."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(EVERYTHING).fetchall()


@contextmanager
def _copy(place: Place, old: str, name: str) -> Iterator[str]:
    """Give a copy of a database, with its owner's connection string."""
    template = str(conninfo_to_dict(old)["dbname"])
    with psycopg.connect(place.server.admin_dsn(), autocommit=True) as admin:
        words = map(sql.Identifier, (name, template, str(conninfo_to_dict(old)["user"])))
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(*words))
    try:
        yield make_conninfo(old, dbname=name)
    finally:
        place.drop(name)


def _fill(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "INSERT INTO agent_episodes"
            " (project_id, perception, reasoning, action, agent_version, control_mode)"
            " SELECT 'chaos', '{}', '{}', '{}', '1', 'rule_based_only'"
            " FROM generate_series(1, %s)",
            [ROWS],
        )


def kill_migration(place: Place, rounds: int) -> Tally:
    """The process is killed at statements spread over the whole migration; then it is run again."""
    return _interrupt(place, rounds, "kill -9 of a migration", with_server=False)


def kill_server_under_migration(place: Place, rounds: int) -> Tally:
    """The server is killed amid a migration, which says so; then it is run again."""
    return _interrupt(place, rounds, "kill -9 of the server under a migration", with_server=True)


def _interrupt(place: Place, rounds: int, scenario: str, *, with_server: bool) -> Tally:
    ledger = Ledger(scenario)
    with place.database("chaos_old") as old:
        runner.upgrade(old, dimensions=DIMENSIONS, target=REVISIONS[0])
        _fill(old)
        with _copy(place, old, "chaos_whole") as whole, proxied(whole) as proxy:
            # Listened to once: how many messages there are, and what stands afterwards.
            proxy.arm(None)
            done = place.command("migrate", "--no-backup", PGRECALL_OWNER_DSN=proxy.dsn)
            if done.returncode != 0:
                ledger.complain(f"a migration fails that nobody disturbs: {done.stderr}")
            seen, wanted = proxy.seen, schema(whole)
        sent = [nth for nth, name in enumerate(seen) if name in (">Query", ">Parse")]
        for nth in _spread(sent, rounds * 2):
            for how in ("stall", "pause") if rounds > 1 else ("pause",):
                with _copy(place, old, "chaos_half") as half, proxied(half) as proxy:
                    proxy.arm(Cut(nth, "before", how))
                    _break(place, ledger, proxy, with_server=with_server)
                    _again(ledger, half, wanted, f"after a kill at message {nth}, {seen[nth]}")
    ledger.tally.note = f"{len(sent)} statements"
    return ledger.tally


def _spread(values: list[int], wanted: int) -> list[int]:
    """Return values from all over a list, the first and the last of them included."""
    wanted = min(wanted, len(values))
    if wanted == 1:
        return values[len(values) // 2 :][:1]
    return [values[i * (len(values) - 1) // (wanted - 1)] for i in range(wanted)]


def _break(place: Place, ledger: Ledger, proxy: Proxy, *, with_server: bool) -> None:
    process = place.begin("migrate", "--no-backup", PGRECALL_OWNER_DSN=proxy.dsn)
    try:
        if not proxy.fired.wait(PATIENCE):
            ledger.complain("the migration does not come to where it was to be killed")
            return
        ledger.fault()
        if with_server:
            place.kill(all_of_it=True)
            proxy.resumed.set()
            place.server.start()
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE / 4)
            if process.returncode == 0:
                ledger.complain("a migration succeeds whose server was killed")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        proxy.resumed.set()


def _again(ledger: Ledger, half: str, wanted: list[Any], when: str) -> None:
    """Migrate again: it waits for what still runs of the first, and completes it."""
    ledger.tally.writes += 1
    runner.upgrade(half, dimensions=DIMENSIONS)
    found = schema(half)
    if found == wanted:
        ledger.tally.acknowledged += 1
        return
    ledger.tally.lost += 1
    differing = sorted(map(str, set(found) ^ set(wanted)))
    ledger.complain(f"{when} the schema at {HEAD} is another: {differing[:3]}")
