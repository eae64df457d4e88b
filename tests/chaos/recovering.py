"""Servers in recovery: a hot standby, and one that lets nobody in yet."""

from __future__ import annotations

from collections.abc import Callable

from tests.chaos.ledger import Ledger, Tally
from tests.chaos.place import Place, wait_for
from tests.standby import Standby, standby

from pgrecall import Memory, errors
from pgrecall.ops.provision import dsn_for


def use_hot_standby(place: Place, rounds: int) -> Tally:
    """Reads work, writes are refused by name, and operators' commands say what it is."""
    ledger = Ledger("a hot standby")
    place.empty()
    with place.memory() as primary:
        primary.episodes.record(
            project_id="chaos", agent_version="1", perception={"on": "primary"},
            reasoning={}, action={"done": True},
        )  # fmt: skip
    with standby(place.server, place.directory) as replica:
        for _ in range(rounds):
            ledger.fault()
            with place.memory(replica.at(place.dsn)) as memory:
                wait_for(lambda: memory.episodes.count() == 1, "the replica to catch up")
                if len(memory.episodes.recall("primary")) != 1:
                    ledger.complain("recall finds nothing on a standby")
                for write in (_record, _record_many, _outcome):
                    _refused(ledger, memory, write)
            _commands_on_standby(place, ledger, replica)
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


def _commands_on_standby(place: Place, ledger: Ledger, replica: Standby) -> None:
    at = replica.at
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
    with standby(place.server, place.directory, hot=False) as replica:
        for _ in range(rounds):
            ledger.fault()
            try:
                place.memory(replica.at(place.dsn), connect_timeout=2.0).close()
                ledger.complain("a server in recovery let somebody in")
            except errors.Unavailable as error:
                if "not accepting connections" not in str(error):
                    ledger.complain(f"what is wrong is not said: {error}")
            owner = replica.at(place.owner_dsn)
            for words in (("migrate", "--no-backup"), ("verify",)):
                done = place.command(
                    *words,
                    PGRECALL_DSN=replica.at(place.dsn),
                    PGRECALL_OWNER_DSN=owner,
                    PGRECALL_DIRECT_DSN=owner,
                )
                said = done.stdout + done.stderr
                if done.returncode == 0 or "not accepting" not in said or "Traceback" in said:
                    ledger.complain(f"{words[0]} ended with {done.returncode}: {said[-400:]}")
    return ledger.tally
