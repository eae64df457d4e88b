"""Migrations under trouble: twice at once, killed, waiting, half done, printed instead of run."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from pgrecall.engine import binaries
from pgrecall.errors import MigrationError, OperationRefused, SchemaTooNew, Unavailable
from pgrecall.migrations import HEAD, REVISIONS, history, runner

VERSIONS = "SELECT version FROM schema_version ORDER BY version"
INDEX = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('uq_episodes_external_id')"
# Holds up the concurrent index build, which waits for older snapshots, and nothing before it.
HOLD_UP = "SELECT 1"
BUILDING = (
    "SELECT count(*) FROM pg_stat_progress_create_index "
    "WHERE datname = current_database() AND phase = 'waiting for old snapshots'"
)
KILL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_progress_create_index "
    "WHERE datname = current_database()"
)

LATER = [*REVISIONS[1:]]


def values(dsn: str, query: str) -> list[Any]:
    with psycopg.connect(dsn) as connection:
        return [row[0] for row in connection.execute(query)]


def wait_until(dsn: str, query: str) -> None:
    deadline = time.monotonic() + 20
    while not values(dsn, query)[0]:
        assert time.monotonic() < deadline, query
        time.sleep(0.02)


def migrate(dsn: str, results: Any) -> None:
    results.put(runner.upgrade(dsn, dimensions=3))


def test_importing_the_constants_imports_no_alembic() -> None:
    program = (
        "import sys; from pgrecall.migrations import HEAD, REVISIONS; "
        "assert HEAD == REVISIONS[-1]; sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_revisions_are_those_of_the_scripts() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "pgrecall:migrations")
    scripts = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(scripts)) == REVISIONS


def test_upgrade_then_nothing(dsn: str) -> None:
    lines: list[str] = []
    with psycopg.connect(dsn) as connection:
        assert history.current(connection) is None
        assert history.pending(connection) == list(REVISIONS)
        assert history.dimensions_of(connection) is None
    assert runner.upgrade(dsn, dimensions=3, progress=lines.append) == list(REVISIONS)
    assert lines == [f"revision {revision} applied" for revision in REVISIONS]
    assert runner.upgrade(dsn, dimensions=3) == []
    with psycopg.connect(dsn) as connection:
        assert history.current(connection) == HEAD
        assert history.pending(connection) == []
        assert history.dimensions_of(connection) == 3
    assert values(dsn, VERSIONS) == list(REVISIONS)


def test_upgrade_leaves_no_setting_or_lock(dsn: str) -> None:
    runner.upgrade(dsn, dimensions=3)
    assert values(
        dsn,
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' "
        "AND database = (SELECT oid FROM pg_database WHERE datname = "
        "current_database())",
    ) == [0]
    assert values(
        dsn,
        "SELECT count(*) FROM pg_db_role_setting WHERE setdatabase = "
        "(SELECT oid FROM pg_database WHERE datname = current_database())",
    ) == [0]


def test_two_processes_at_once(dsn: str) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=migrate, args=(dsn, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = sorted(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    assert found == [[], list(REVISIONS)]
    assert values(dsn, VERSIONS) == list(REVISIONS)


def test_the_second_waits_while_the_first_builds_an_index(dsn: str) -> None:
    """One that waited inside a statement would stop the first one's concurrent build for good."""
    runner.upgrade(dsn, dimensions=3, target="1.0.0")
    results: dict[str, list[str]] = {}
    lines: list[str] = []

    def run(name: str, progress: Callable[[str], None]) -> None:
        results[name] = runner.upgrade(dsn, dimensions=3, progress=progress)

    first = threading.Thread(target=run, args=("first", lambda _: None))
    second = threading.Thread(target=run, args=("second", lines.append))
    with psycopg.connect(dsn) as blocker:
        blocker.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        blocker.execute(HOLD_UP)
        first.start()
        wait_until(dsn, BUILDING)
        second.start()
        deadline = time.monotonic() + 20
        while not lines and time.monotonic() < deadline:
            time.sleep(0.02)
        blocker.rollback()
    first.join(timeout=30)
    second.join(timeout=30)
    assert results == {"first": LATER, "second": []}
    assert lines == ["another migration of this database is running; waiting for it"]
    assert values(dsn, INDEX) == [True]


@pytest.mark.parametrize(
    ("start", "index"),
    [("1.0.0", "uq_episodes_external_id"), ("1.1.0", "idx_episodes_no_embedding")],
)
def test_a_killed_backend_is_completed_by_the_next_run(dsn: str, start: str, index: str) -> None:
    valid = f"SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{index}')"
    done = REVISIONS[: REVISIONS.index(start) + 1]
    runner.upgrade(dsn, dimensions=3, target=start)
    failures: list[Exception] = []

    def run() -> None:
        try:
            runner.upgrade(dsn, dimensions=3)
        except (MigrationError, Unavailable) as error:
            failures.append(error)

    worker = threading.Thread(target=run)
    with psycopg.connect(dsn) as blocker:
        blocker.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        blocker.execute(HOLD_UP)
        worker.start()
        wait_until(dsn, BUILDING)
        values(dsn, KILL)
        worker.join(timeout=30)
    assert len(failures) == 1
    assert values(dsn, VERSIONS) == [*done]
    assert values(dsn, valid) == [False]
    with psycopg.connect(dsn) as connection:
        assert history.current(connection) == start
    assert runner.upgrade(dsn, dimensions=3) == [*REVISIONS[len(done) :]]
    assert values(dsn, VERSIONS) == list(REVISIONS)
    gone = index == "idx_episodes_no_embedding"  # with a later revision
    assert values(dsn, valid) == ([] if gone else [True])


def test_a_killed_process_is_completed_by_the_next_run(dsn: str) -> None:
    runner.upgrade(dsn, dimensions=3, target="1.0.0")
    program = textwrap.dedent("""
        import sys
        from pgrecall.migrations import runner
        runner.upgrade(sys.stdin.read(), dimensions=3)
    """)
    with psycopg.connect(dsn) as blocker:
        blocker.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        blocker.execute(HOLD_UP)
        with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            process.stdin.write(dsn.encode())
            process.stdin.close()
            wait_until(dsn, BUILDING)
            process.send_signal(signal.SIGKILL)
            process.wait()
    # Its backend may live on for a moment and hold the lock; the next run waits for that.
    assert runner.upgrade(dsn, dimensions=3) in (LATER, LATER[1:])
    assert values(dsn, VERSIONS) == list(REVISIONS)
    assert values(dsn, INDEX) == [True]


def test_killed_between_revisions(dsn: str) -> None:
    class Killed(BaseException):
        pass

    def die(_: str) -> None:
        raise Killed

    with pytest.raises(Killed):
        runner.upgrade(dsn, dimensions=3, progress=die)
    # The revision whose report was cut off was not committed, and neither is its row.
    with psycopg.connect(dsn) as connection:
        assert history.current(connection) is None
        row = connection.execute("SELECT to_regclass('schema_version')").fetchone()
        assert row == (None,)
    assert runner.upgrade(dsn, dimensions=3, target="1.0.0") == ["1.0.0"]
    with pytest.raises(Killed):
        runner.upgrade(dsn, dimensions=3, progress=die)
    assert values(dsn, VERSIONS) == ["1.0.0"]
    assert runner.upgrade(dsn, dimensions=3) == LATER
    assert values(dsn, VERSIONS) == list(REVISIONS)


def test_a_failing_revision_leaves_nothing(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE VIEW v_strategy_effectiveness AS SELECT 1")
    with pytest.raises(MigrationError, match="v_strategy_effectiveness") as error:
        runner.upgrade(dsn, dimensions=3)
    assert isinstance(error.value.__cause__, psycopg.errors.DuplicateTable)
    assert values(dsn, "SELECT to_regclass('agent_episodes') IS NULL") == [True]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP VIEW v_strategy_effectiveness")
    assert runner.upgrade(dsn, dimensions=3) == list(REVISIONS)


def test_a_column_of_another_type_is_refused(dsn: str) -> None:
    runner.upgrade(dsn, dimensions=3, target="1.0.0")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE agent_episodes ADD COLUMN external_id integer")
    with pytest.raises(MigrationError, match="external_id is integer"):
        runner.upgrade(dsn, dimensions=3)
    assert values(dsn, VERSIONS) == ["1.0.0"]


def test_a_table_in_use_is_not_waited_for_without_end(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = dict(runner._QUERIES)
    patient["session"] = patient["session"].replace("15s", "200ms")
    monkeypatch.setattr(runner, "_QUERIES", patient)
    runner.upgrade(dsn, dimensions=3, target="1.0.0")
    with psycopg.connect(dsn) as blocker:
        blocker.execute("LOCK TABLE agent_episodes IN ACCESS SHARE MODE")
        with pytest.raises(MigrationError) as error:
            runner.upgrade(dsn, dimensions=3)
    assert "long transaction" in str(error.value.hint)
    assert runner.upgrade(dsn, dimensions=3) == LATER


def test_a_newer_database(dsn: str) -> None:
    runner.upgrade(dsn, dimensions=3)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("UPDATE pgrecall.alembic_version SET version_num = '7.0.0'")
    with pytest.raises(SchemaTooNew, match=r"7\.0\.0"):
        runner.upgrade(dsn, dimensions=3)


def test_no_server() -> None:
    with pytest.raises(Unavailable):
        runner.upgrade("host=127.0.0.1 port=1 user=nobody", dimensions=3)


def test_adopting_what_is_recorded_is_refused(dsn: str) -> None:
    runner.upgrade(dsn, dimensions=3)
    with pytest.raises(OperationRefused, match=HEAD.replace(".", r"\.")):
        runner.adopt(dsn, dimensions=3)


def psql(dsn: str, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [binaries.find(None).bin_dir / "psql", "-X", "-q", "-d", dsn, "-f", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )


def everything(dsn: str) -> list[Any]:
    query = """
    SELECT concat_ws(' ', 'column', attrelid::regclass, attnum, attname,
                     format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid))
      FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
      LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
     WHERE relnamespace IN ('public'::regnamespace, 'pgrecall'::regnamespace) AND attnum > 0
    UNION ALL
    SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(oid))
      FROM pg_constraint
     WHERE connamespace IN ('public'::regnamespace, 'pgrecall'::regnamespace)
    UNION ALL
    SELECT concat_ws(' ', 'index', indexdef) FROM pg_indexes
     WHERE schemaname IN ('public', 'pgrecall')
    UNION ALL
    SELECT concat_ws(' ', 'view', viewname, definition) FROM pg_views
     WHERE schemaname IN ('public', 'pgrecall')
    UNION ALL SELECT concat_ws(' ', 'trigger', pg_get_triggerdef(oid)) FROM pg_trigger
     WHERE NOT tgisinternal
    UNION ALL
    SELECT pg_get_functiondef(pg_proc.oid) FROM pg_proc
      LEFT JOIN pg_depend ON objid = pg_proc.oid AND deptype = 'e'
     WHERE pronamespace = 'public'::regnamespace AND objid IS NULL
    UNION ALL SELECT concat_ws(' ', 'version', version, description) FROM schema_version
    UNION ALL SELECT concat_ws(' ', 'alembic', version_num) FROM pgrecall.alembic_version
     ORDER BY 1
    """
    return values(dsn, query)


@pytest.mark.parametrize("start", [None, "1.0.0"])
def test_the_printed_script_does_the_same(
    new_database: Callable[[], str], start: str | None
) -> None:
    real, printed = new_database(), new_database()
    runner.upgrade(real, dimensions=5)
    if start is not None:
        runner.upgrade(printed, dimensions=5, target=start)
    done = psql(printed, runner.script(5, start))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = everything(printed)
    assert found == everything(real)
    assert len(found) > 100
    assert runner.upgrade(printed, dimensions=5) == []


def test_the_printed_script_stops_at_the_first_error(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE VIEW v_strategy_effectiveness AS SELECT 1")
    assert psql(dsn, runner.script(5)).returncode == 3
    assert values(dsn, "SELECT to_regclass('agent_episodes') IS NULL") == [True]


def test_the_printed_script_refuses_while_another_runs(dsn: str) -> None:
    runner.upgrade(dsn, dimensions=3, target="1.0.0")
    with psycopg.connect(dsn, autocommit=True) as other:
        other.execute(runner._QUERIES["try_lock"])
        done = psql(dsn, runner.script(3, "1.0.0"))
    assert done.returncode == 3
    assert "another migration" in done.stderr
    assert values(dsn, VERSIONS) == ["1.0.0"]


def test_script_arguments() -> None:
    assert "nothing to do" in runner.script(3, HEAD)
    with pytest.raises(OperationRefused, match=r"'0\.9'"):
        runner.script(3, "0.9")


def test_connection_strings_are_not_shown(dsn: str) -> None:
    parts = {**conninfo_to_dict(dsn), "password": "unspoken"}
    text = " ".join(f"{key}={value}" for key, value in parts.items() if key != "dbname")
    with pytest.raises(Unavailable) as error:
        runner.upgrade(f"{text} dbname=no_such_database_here", dimensions=3)
    assert "unspoken" not in str(error.value)
