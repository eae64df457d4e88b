"""The metrics of a process, scraped over HTTP, and equal to what was done."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import urlopen

import psycopg
import pytest
from psycopg import conninfo

from pgrecall import AsyncMemory, Memory, errors
from pgrecall.testing import Database, HashEmbedder

DURATION = "pgrecall_operation_duration_seconds"
RESULTS = "pgrecall_operation_results_total"
FAILURES = "pgrecall_operation_failures_total"


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def locked(admin: psycopg.Connection[Any]) -> Iterator[None]:
    """Let every reader of the episodes wait."""
    with admin.transaction():
        admin.execute("LOCK TABLE agent_episodes IN ACCESS EXCLUSIVE MODE")
        yield


def test_counts_are_what_was_done(scraper: Any, open_memory: Any, make_episode: Any) -> None:
    memory = open_memory(prometheus=True)
    first = memory.episodes.record(**make_episode())
    memory.episodes.record_many([make_episode() for _ in range(4)])
    for _ in range(7):
        memory.episodes.recall("backlog", limit=3, group_repeats=False)
    memory.episodes.record_outcome(first.episode_id, quality=1)
    assert scraper.counted() == {
        "record_episode": 1,
        "record_episodes": 1,
        "recall_similar": 7,
        "record_outcome": 1,
    }
    assert scraper.change(RESULTS, operation="recall_similar", project="") == 21
    assert scraper.change(RESULTS, operation="record_episodes", project="") == 4
    buckets = f"{DURATION}_bucket"
    labels = {"operation": "recall_similar", "project": ""}
    assert scraper.change(buckets, le="+Inf", **labels) == 7
    assert 0 < scraper.change(f"{DURATION}_sum", **labels) < 70
    embedded = "pgrecall_embedding_duration_seconds_count"
    assert scraper.change(embedded, mode="query") == 7
    assert scraper.change(embedded, mode="document") == 2
    assert scraper.failures() == {}


async def test_counts_of_coroutines(
    scraper: Any, pgrecall_database: Database, make_episode: Any
) -> None:
    settings = pgrecall_database.settings.model_copy(update={"prometheus": True})
    async with await AsyncMemory.open(
        pgrecall_database.dsn, embedder=HashEmbedder(), settings=settings
    ) as memory:
        await memory.episodes.record(**make_episode())
        await asyncio.gather(*(memory.episodes.recall("backlog") for _ in range(20)))
        with pytest.raises(errors.NotFound):
            await memory.sessions.get("4e1b8f5e-0f5c-4d0a-9d0f-0a5f5f5f5f5f")
        counted = await asyncio.to_thread(scraper.counted)
        assert counted == {"record_episode": 1, "recall_similar": 20}
        assert await asyncio.to_thread(scraper.failures) == {"NotFound": 1}


async def test_a_call_given_up_is_counted(
    scraper: Any, pgrecall_database: Database, admin: psycopg.Connection[Any]
) -> None:
    settings = pgrecall_database.settings.model_copy(update={"prometheus": True})
    async with await AsyncMemory.open(
        pgrecall_database.dsn, embedder=HashEmbedder(), settings=settings
    ) as memory:
        with locked(admin), pytest.raises(TimeoutError):
            await asyncio.wait_for(memory.episodes.list(), 0.3)
        assert await asyncio.to_thread(scraper.failures) == {"Cancelled": 1}


def test_failures_are_counted_by_kind(
    scraper: Any,
    open_memory: Any,
    admin: psycopg.Connection[Any],
    make_episode: Any,
    pgrecall_database: Database,
) -> None:
    memory = open_memory(prometheus=True, pool_max_size=1)
    with pytest.raises(errors.InvalidInput):
        memory.episodes.record(**make_episode(outcome_quality=2))
    with pytest.raises(errors.NotFound):
        memory.episodes.get("4e1b8f5e-0f5c-4d0a-9d0f-0a5f5f5f5f5f")
    memory.episodes.record(**make_episode(external_id="a"))
    with pytest.raises(errors.Conflict):
        memory.episodes.record(**make_episode(external_id="a", action={"other": 1}))
    memory.sessions.list()
    app = conninfo.conninfo_to_dict(pgrecall_database.dsn)["user"]
    admin.execute(f'REVOKE SELECT ON agent_working_memory FROM "{app}"')
    with pytest.raises(errors.PermissionDenied):
        memory.sessions.list()
    assert scraper.failures() == {
        "InvalidInput": 1,
        "NotFound": 1,
        "Conflict": 1,
        "PermissionDenied": 1,
    }
    labels = {"operation": "list_sessions", "error": "PermissionDenied", "project": ""}
    assert scraper.change(FAILURES, **labels) == 1
    assert scraper.counted()["list_sessions"] == 1


def test_a_connection_closed_by_the_server_is_counted(
    scraper: Any, open_memory: Any, admin: psycopg.Connection[Any]
) -> None:
    memory = open_memory(prometheus=True)
    caught: list[Exception] = []

    def read() -> None:
        try:
            memory.episodes.list()
        except errors.PgrecallError as error:
            caught.append(error)

    reader = threading.Thread(target=read)
    waiting = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'pgrecall' AND wait_event_type = 'Lock'"
    )
    with locked(admin):
        reader.start()

        def waits() -> bool:
            # A transaction sees what others do as it was at the first look, unless told to forget.
            admin.execute("SELECT pg_stat_clear_snapshot()")
            return bool(admin.execute(waiting).fetchall())

        wait_until(waits)
        admin.execute(f"SELECT pg_terminate_backend(pid) FROM ({waiting}) AS w")
        reader.join(20)
    assert [type(error).__name__ for error in caught] == ["ConnectionLost"]
    assert scraper.failures() == {"ConnectionLost": 1}


def test_waiting_for_a_connection_is_seen(
    scraper: Any, open_memory: Any, admin: psycopg.Connection[Any]
) -> None:
    memory = open_memory(prometheus=True, pool_max_size=1)
    assert scraper.value("pgrecall_pool_connections_max") == 1
    readers = [threading.Thread(target=memory.episodes.list) for _ in range(4)]
    with locked(admin):
        for reader in readers:
            reader.start()
        wait_until(lambda: scraper.value("pgrecall_pool_requests_waiting") == 3)
        assert scraper.value("pgrecall_pool_connections", state="used") == 1
        assert scraper.value("pgrecall_pool_connections", state="idle") == 0
        time.sleep(0.05)
    for reader in readers:
        reader.join(20)
    assert scraper.value("pgrecall_pool_requests_waiting") == 0
    assert scraper.change("pgrecall_pool_requests_total") == 4
    assert scraper.change("pgrecall_pool_requests_queued_total") >= 3
    assert scraper.change("pgrecall_pool_wait_seconds_total") >= 0.15  # three, 50 ms each at least
    assert scraper.change("pgrecall_pool_request_errors_total") == 0
    wait_until(lambda: scraper.value("pgrecall_pool_connections", state="idle") == 1)


def test_getting_no_connection_is_counted(
    scraper: Any, open_memory: Any, admin: psycopg.Connection[Any]
) -> None:
    memory = open_memory(prometheus=True, pool_max_size=1, connect_timeout=0.3)
    reader = threading.Thread(target=memory.episodes.list)
    with locked(admin):
        reader.start()
        wait_until(lambda: scraper.value("pgrecall_pool_connections", state="used") == 1)
        with pytest.raises(errors.Unavailable):
            memory.episodes.list()
    reader.join(20)
    assert scraper.change("pgrecall_pool_request_errors_total") == 1
    assert scraper.failures() == {"Unavailable": 1}


def test_two_memories_share_the_instruments(scraper: Any, open_memory: Any) -> None:
    first = open_memory(prometheus=True, pool_max_size=2)
    second = open_memory(prometheus=True, pool_max_size=3)
    assert scraper.value("pgrecall_pool_connections_max") == 5
    first.episodes.list()
    second.episodes.list()
    assert scraper.counted() == {"list_episodes": 2}
    assert scraper.change("pgrecall_pool_requests_total") == 2
    first.close()
    assert scraper.value("pgrecall_pool_connections_max") == 3
    requests = scraper.change("pgrecall_pool_requests_total")
    assert requests == 2, "metric rows are written another way"
    second.close()
    assert scraper.change("pgrecall_pool_requests_total") == requests
    assert scraper.value("pgrecall_pool_connections_max") == 0


def test_a_memory_that_is_dropped_is_not_forgotten(
    scraper: Any, pgrecall_database: Database
) -> None:
    settings = pgrecall_database.settings.model_copy(update={"prometheus": True, "metrics": False})
    memory: Memory | None = Memory.open(
        pgrecall_database.dsn, embedder=HashEmbedder(), settings=settings
    )
    assert memory is not None
    memory.episodes.list()
    assert scraper.change("pgrecall_pool_requests_total") == 1
    memory._database.close()  # so that no connection leaks; the memory itself is never closed
    memory = None
    gc.collect()
    assert scraper.change("pgrecall_pool_requests_total") == 1
    assert scraper.value("pgrecall_pool_connections_max") == 0


def test_one_that_is_switched_off_is_not_counted(scraper: Any, open_memory: Any) -> None:
    open_memory(prometheus=True)
    open_memory(prometheus=False).episodes.list()
    assert scraper.counted() == {}
    assert scraper.change("pgrecall_pool_requests_total") == 0


def test_a_callers_connection_counts_without_a_row(
    scraper: Any, open_memory: Any, pgrecall_database: Database
) -> None:
    memory = open_memory(prometheus=True)
    with psycopg.connect(pgrecall_database.dsn) as caller:
        memory.episodes.list(connection=caller)
    assert scraper.counted() == {"list_episodes": 1}
    assert memory.metrics.flush() == 0


def test_lost_rows_are_counted(
    scraper: Any, open_memory: Any, admin: psycopg.Connection[Any]
) -> None:
    memory = open_memory(prometheus=True)
    admin.execute("ALTER TABLE agent_memory_metrics RENAME TO elsewhere")
    for _ in range(3):
        memory.episodes.list()
    memory.metrics.flush()
    assert scraper.change("pgrecall_metrics_lost_total") == 3
    admin.execute("ALTER TABLE elsewhere RENAME TO agent_memory_metrics")
    memory.close()
    assert scraper.change("pgrecall_metrics_lost_total") == 3


def test_what_is_exposed_is_as_prometheus_recommends(scraper: Any, open_memory: Any) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    memory = open_memory(prometheus=True)
    memory.episodes.recall("x")
    with pytest.raises(errors.InvalidInput):
        memory.episodes.list(limit=-1)
    with urlopen(f"http://127.0.0.1:{scraper.port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    ours = "".join(
        line
        for line in text.splitlines(keepends=True)
        if line.split(" ")[2 if line.startswith("#") else 0].startswith("pgrecall_")
    )
    done = subprocess.run(
        [promtool, "check", "metrics"], input=ours, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert "pgrecall_operation_failures_total" in ours


SERVED = """
import os, sys
from urllib.request import urlopen
from pgrecall import AsyncMemory, Memory, errors
from pgrecall.config import load_settings
from pgrecall.testing import HashEmbedder

def scrape():
    port = os.environ["PGRECALL_PROMETHEUS_PORT"]
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return [line for line in answer.read().decode().splitlines() if line[0] != "#"]

def opened(**changes):
    settings = load_settings(**changes)
    return Memory.open(sys.argv[1], embedder=HashEmbedder(), settings=settings)
"""


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


def test_the_client_serves_them_itself(program: Callable[..., str]) -> None:
    printed = program(
        SERVED
        + """
with opened() as first, opened() as second:
    first.episodes.list()
    second.episodes.list()
    print(*[line for line in scrape() if line.startswith("pgrecall_operation_duration_seconds_c")])
    try:
        opened(prometheus_port=int(os.environ["PGRECALL_PROMETHEUS_PORT"]) % 60_000 + 1025)
    except errors.ConfigurationError as error:
        print(error)
""",
        PGRECALL_PROMETHEUS_PORT=free_port(),
    )
    count, error = printed.splitlines()
    assert '{operation="list_episodes",project=""} 2.0' in count
    assert "already" in error
    assert "hold for a whole process" in error


def test_projects_are_named_up_to_a_number(program: Callable[..., str]) -> None:
    printed = program(
        SERVED
        + """
with opened() as memory:
    for project in ("a", "a", "b", "c", "d", "a"):
        memory.episodes.list(project_id=project)
    memory.episodes.list()
    memory.sessions.open(project_id="c")
    for line in scrape():
        if line.startswith("pgrecall_operation_duration_seconds_count"):
            print(line)
""",
        PGRECALL_PROMETHEUS_PORT=free_port(),
        PGRECALL_PROMETHEUS_PROJECTS="2",
    )
    name = "pgrecall_operation_duration_seconds_count"
    assert set(printed.splitlines()) == {
        f'{name}{{operation="list_episodes",project="a"}} 3.0',
        f'{name}{{operation="list_episodes",project="b"}} 1.0',
        f'{name}{{operation="list_episodes",project="other"}} 2.0',
        f'{name}{{operation="list_episodes",project=""}} 1.0',
        f'{name}{{operation="open_session",project="other"}} 1.0',
    }


def test_a_port_that_is_taken_is_said_to_be(
    pgrecall_database: Database, admin: psycopg.Connection[Any]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        settings = pgrecall_database.settings.model_copy(update={"prometheus_port": port})
        with pytest.raises(errors.ConfigurationError, match=f"127.0.0.1:{port}") as caught:
            # Straight to the server, since a pooler would keep its connections.
            Memory.open(pgrecall_database.owner_dsn, embedder=HashEmbedder(), settings=settings)
    assert "PGRECALL_PROMETHEUS_PORT of its own" in str(caught.value)
    ours = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    wait_until(lambda: admin.execute(ours).fetchone() == (1,))  # no connection was left open


def test_a_fork_counts_its_own_pool_and_leaves_the_port(
    program: Callable[..., str], admin: psycopg.Connection[Any]
) -> None:
    printed = program(
        SERVED
        + """
import warnings
from prometheus_client import REGISTRY

def requests():
    return REGISTRY.get_sample_value("pgrecall_pool_requests_total")

with opened() as closed:
    closed.episodes.list()  # the row that is written when it closes goes another way
memory = opened()
for _ in range(3):
    memory.episodes.list()
warnings.simplefilter("ignore", DeprecationWarning)  # threads of ours may run: it is the test
child = os.fork()
if child == 0:
    before = requests()
    memory.sessions.list()
    memory.metrics.flush()
    print("child", before, requests(), REGISTRY.get_sample_value("pgrecall_metrics_lost_total"))
    memory.close()
    sys.stdout.flush()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("parent", requests())
assert scrape()
memory.close()
""",
        PGRECALL_PROMETHEUS_PORT=free_port(),
    )
    assert printed.splitlines() == ["child 0 1 0", "parent 4"]
    rows = admin.execute(
        "SELECT operation_type, count(*) FROM agent_memory_metrics GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert rows == [("list_episodes", 4), ("list_sessions", 1)]


def test_a_fork_does_not_keep_the_port_from_others(program: Callable[..., str]) -> None:
    program(
        SERVED
        + """
import signal, time, warnings
port = int(os.environ["PGRECALL_PROMETHEUS_PORT"])
warnings.simplefilter("ignore", DeprecationWarning)
reading, writing = os.pipe()
server = os.fork()
if server == 0:  # it serves, forks a worker, and is killed; the worker lives on
    memory = opened()
    worker = os.fork()
    if worker == 0:
        os.write(writing, b"%d" % os.getpid())
        time.sleep(60)
        os._exit(0)
    time.sleep(60)
worker = int(os.read(reading, 20))
os.kill(server, signal.SIGKILL)
os.waitpid(server, 0)
try:
    os.kill(worker, 0)
    with opened():
        assert scrape()
finally:
    os.kill(worker, signal.SIGKILL)
""",
        PGRECALL_PROMETHEUS_PORT=free_port(),
    )


def test_nothing_is_loaded_that_is_switched_off(program: Callable[..., str]) -> None:
    heavy = ("prometheus_client", "opentelemetry", "pythonjsonlogger")
    assert (
        program(
            "import sys\n"
            "from pgrecall import Memory\n"
            "with Memory.open(sys.argv[1], embedder='none') as memory:\n"
            "    memory.episodes.list()\n"
            f"print(*[name for name in {heavy!r} if name in sys.modules])\n"
        ).strip()
        == ""
    )


@pytest.mark.parametrize(
    ("setting", "package", "extra"),
    [
        ("PGRECALL_PROMETHEUS", "prometheus_client", "monitor"),
        ("PGRECALL_TRACES", "opentelemetry", "otel"),
    ],
)
def test_a_missing_package_is_named(
    setting: str, package: str, extra: str, program: Callable[..., str]
) -> None:
    printed = program(
        f"import sys\nsys.modules[{package!r}] = None\n"
        "from pgrecall import Memory, errors\n"
        "try:\n    Memory.open(sys.argv[1], embedder='none')\n"
        "except errors.MissingExtra as error:\n    print(error)\n",
        **{setting: "true"},
    )
    assert f"{setting} needs the optional part '{extra}'" in printed
    assert f"pip install 'pgrecall[{extra}]'" in printed


def test_many_threads_lose_no_count(scraper: Any, open_memory: Any) -> None:
    memory = open_memory(prometheus=True)

    def work() -> None:
        for _ in range(50):
            memory.episodes.count()
            with contextlib.suppress(errors.NotFound):  # it is what is counted
                memory.sessions.get("4e1b8f5e-0f5c-4d0a-9d0f-0a5f5f5f5f5f")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert scraper.counted() == {"count_episodes": 200}
    assert scraper.failures() == {"NotFound": 200}
