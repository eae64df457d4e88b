"""Servers in recovery: a hot standby, and one that lets nobody in yet."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.chaos.ledger import Ledger, Tally
from tests.chaos.place import PATIENCE, Place, wait_for
from tests.pgbouncer import free_port

from pgrecall import Memory, errors
from pgrecall.ops.provision import dsn_for


@contextmanager
def standby(place: Place, *, hot: bool = True) -> Iterator[int]:
    """Give the port of a standby of the place's server, made by pg_basebackup."""
    # The cluster includes a file that lies beside it.
    data, port = place.directory / "standby" / "cluster", free_port()
    cluster = place.server.data_dir / "cluster"
    owner = cluster.stat().st_uid
    as_user: dict[str, int] = {"user": owner, "group": owner} if os.geteuid() == 0 else {}
    programs = place.server.bin_dir()
    _let_replicate(place, cluster)
    data.mkdir(mode=0o700, parents=True)
    data.parent.chmod(0o755)
    beside = Path(shutil.copy(cluster.parent / "pgrecall.conf", data.parent))
    os.chown(beside, owner, -1)
    os.chown(data, owner, -1)
    admin = conninfo_to_dict(place.server.admin_dsn())
    environment = {**os.environ, "PGPASSWORD": str(admin.pop("password"))}
    admin.pop("dbname", None)
    run: Callable[..., object] = subprocess.run
    run(
        [programs / "pg_basebackup", "-D", data, "-R", "-c", "fast", "-d",
         make_conninfo("", **admin)],
        env=environment, check=True, capture_output=True, **as_user,
    )  # fmt: skip
    with (data / "postgresql.auto.conf").open("a") as file:
        file.write(f"\nport = {port}\nhot_standby = {'on' if hot else 'off'}\n")
        file.write(f"listen_addresses = '127.0.0.1'\nunix_socket_directories = '{data}'\n")
    with (place.directory / "standby.log").open("wb") as log:
        process = subprocess.Popen(
            [programs / "postgres", "-D", data], stdout=log, stderr=log, **as_user  # type: ignore[call-overload]
        )  # fmt: skip
    try:
        wait_for(
            lambda: _answers(place, port, hot=hot) or process.poll() is not None, "the standby"
        )
        if process.poll() is not None:
            said = (place.directory / "standby.log").read_text()
            raise RuntimeError(f"the standby ended:\n{said}")
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE)
        shutil.rmtree(data.parent)


def _let_replicate(place: Place, cluster: Path) -> None:
    rules = cluster / "pg_hba.conf"
    line = "host replication all 127.0.0.1/32 scram-sha-256\n"
    if line not in rules.read_text():
        with rules.open("a") as file:
            file.write(line)
    with psycopg.connect(place.server.admin_dsn(), autocommit=True) as admin:
        admin.execute("SELECT pg_reload_conf()")


def _answers(place: Place, port: int, *, hot: bool) -> bool:
    try:
        psycopg.connect(make_conninfo(place.admin_dsn, port=port)).close()
    except psycopg.OperationalError as error:
        return not hot and "not accepting connections" in str(error)
    return hot


def use_hot_standby(place: Place, rounds: int) -> Tally:
    """Reads work, writes are refused by name, and operators' commands say what it is."""
    ledger = Ledger("a hot standby")
    place.empty()
    with place.memory() as primary:
        primary.episodes.record(
            project_id="chaos", agent_version="1", perception={"on": "primary"},
            reasoning={}, action={"done": True},
        )  # fmt: skip
    with standby(place) as port:
        dsn = make_conninfo(place.dsn, port=port)
        for _ in range(rounds):
            ledger.fault()
            with place.memory(dsn) as memory:
                wait_for(lambda: memory.episodes.count() == 1, "the replica to catch up")
                if len(memory.episodes.recall("primary")) != 1:
                    ledger.complain("recall finds nothing on a standby")
                for write in (_record, _record_many, _outcome):
                    _refused(ledger, memory, write)
            _commands_on_standby(place, ledger, port)
    return ledger.judge(place.admin_dsn)


def _record(memory: Memory, number: int) -> None:
    memory.episodes.record(
        project_id="chaos", agent_version="1", perception={"number": number},
        reasoning={}, action={"done": True},
    )  # fmt: skip


def _record_many(memory: Memory, number: int) -> None:
    given = {"project_id": "chaos", "agent_version": "1", "reasoning": {}, "action": {"a": 1}}
    memory.episodes.record_many([{**given, "perception": {"number": number}} for _ in range(2)])


def _outcome(memory: Memory, number: int) -> None:
    (found,) = memory.episodes.list()
    memory.episodes.record_outcome(found.episode_id, {"number": number}, 1.0)


def _refused(ledger: Ledger, memory: Memory, write: Callable[[Memory, int], None]) -> None:
    with ledger.entry(write.__name__) as entry:
        write(memory, entry.numbers[0])
    if not isinstance(entry.error, errors.ReadOnlyServer):
        ledger.complain(f"{write.__name__} on a standby: {entry.error!r}")


def _commands_on_standby(place: Place, ledger: Ledger, port: int) -> None:
    def at(dsn: str) -> str:
        return make_conninfo(dsn, port=port)

    environment = {
        "PGRECALL_DSN": at(place.dsn),
        "PGRECALL_OWNER_DSN": at(place.owner_dsn),
        "PGRECALL_DIRECT_DSN": at(place.owner_dsn),
        "PGRECALL_MONITOR_DSN": at(dsn_for(place.settings, "monitor")),
    }
    for words, expected in (
        (("migrate", "--no-backup"), "standby"),
        (("init", "--no-backup", "--dsn", at(place.server.admin_dsn())), "standby"),
        (("doctor",), "standby"),
        (("verify",), "standby"),
    ):
        done = place.command(*words, **environment)
        said = (done.stdout + done.stderr).lower()
        if "traceback" in said or not ("recovery" in said or expected in said):
            ledger.complain(f"{words[0]} on a standby ended with {done.returncode}: {said[-400:]}")
        if words[0] == "init" and done.returncode == 0:
            ledger.complain(f"{words[0]} succeeds on a standby")


def meet_recovery(place: Place, rounds: int) -> Tally:
    """A server that is in recovery and lets nobody in says so, to clients and to operators."""
    ledger = Ledger("a server in recovery that lets nobody in")
    with standby(place, hot=False) as port:
        for _ in range(rounds):
            ledger.fault()
            try:
                place.memory(make_conninfo(place.dsn, port=port), connect_timeout=2.0).close()
                ledger.complain("a server in recovery let somebody in")
            except errors.Unavailable as error:
                if "not accepting connections" not in str(error):
                    ledger.complain(f"what is wrong is not said: {error}")
            owner = make_conninfo(place.owner_dsn, port=port)
            for words in (("migrate", "--no-backup"), ("verify",)):
                done = place.command(
                    *words,
                    PGRECALL_DSN=make_conninfo(place.dsn, port=port),
                    PGRECALL_OWNER_DSN=owner,
                    PGRECALL_DIRECT_DSN=owner,
                )
                said = done.stdout + done.stderr
                if done.returncode == 0 or "not accepting" not in said or "Traceback" in said:
                    ledger.complain(f"{words[0]} ended with {done.returncode}: {said[-400:]}")
    return ledger.tally
