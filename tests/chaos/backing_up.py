"""``pgrecall backup create`` killed half-way, its server killed under it, its disk full."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import psycopg
from tests.chaos.ledger import Ledger, Tally
from tests.chaos.place import PATIENCE, Place, wait_for
from tests.chaos.proxy import Cut, Proxy, proxied

from pgrecall.ops.backup import list_backups, open_storage
from pgrecall.ops.backup.stored import Stored
from pgrecall.ops.provision import dsn_for

ROWS = 500


def kill_backup(place: Place, rounds: int) -> Tally:
    """The process is killed at points spread over the whole of a backup."""
    return _interrupt(place, rounds, "kill -9 of a backup", with_server=False)


def kill_server_under_backup(place: Place, rounds: int) -> Tally:
    """The server is killed under a backup, which fails and says so."""
    return _interrupt(place, rounds, "kill -9 of the server under a backup", with_server=True)


def _interrupt(place: Place, rounds: int, scenario: str, *, with_server: bool) -> Tally:
    ledger = Ledger(scenario)
    _fill(place)
    location = place.directory / "backups"
    with proxied(dsn_for(place.settings, "backup")) as proxy:
        proxy.arm(None)
        _create(place, ledger, location, proxy)
        messages = len(proxy.seen)
        whole = 1
        for number in range(rounds * 2):
            proxy.arm(Cut((2 * number + 1) * messages // (4 * rounds), "before", "pause"))
            _break(place, ledger, location, proxy, with_server=with_server)
            _judge(ledger, location, whole=whole)
            proxy.arm(None)
            _create(place, ledger, location, proxy)
            whole += 1
            _judge(ledger, location, whole=whole)
    _prune(place, ledger, location, whole)
    shutil.rmtree(location)
    ledger.tally.note = f"{messages} messages"
    return ledger.tally


def _fill(place: Place) -> None:
    place.empty()
    with psycopg.connect(place.admin_dsn) as connection:
        connection.execute(
            "INSERT INTO public.agent_episodes"
            " (project_id, perception, reasoning, action, agent_version, control_mode)"
            " SELECT 'chaos', jsonb_build_object('text', md5(n::text)), '{}', '{}', '1',"
            " 'rule_based_only' FROM generate_series(1, %s) AS n",
            [ROWS],
        )


def _create(place: Place, ledger: Ledger, location: Path, proxy: Proxy) -> None:
    # Names carry the second; a backup of the same second would be refused.
    before = _listed(location)
    for _ in range(3):
        done = _run(place, location, proxy)
        if "already" not in done.stderr:
            break
    if done.returncode != 0:
        ledger.complain(f"a backup fails that nobody disturbs: {done.stderr[-300:]}")
    ledger.tally.writes += 1
    ledger.tally.acknowledged += done.returncode == 0
    if len(_listed(location)) != len(before) + 1:
        ledger.complain("a backup that was made is not listed")


def _run(place: Place, location: Path, proxy: Proxy) -> subprocess.CompletedProcess[str]:
    return place.command(
        "backup", "create", "--to", str(location), "--json", PGRECALL_BACKUP_DSN=proxy.dsn
    )


def _break(
    place: Place, ledger: Ledger, location: Path, proxy: Proxy, *, with_server: bool
) -> None:
    process = place.begin(
        "backup", "create", "--to", str(location), "--json", PGRECALL_BACKUP_DSN=proxy.dsn
    )
    try:
        if not proxy.fired.wait(PATIENCE):
            ledger.complain("the backup does not come to where it was to be killed")
            return
        ledger.fault()
        helpers = psutil.Process(process.pid).children(recursive=True)
        if with_server:
            place.kill(all_of_it=True)
            proxy.resumed.set()
            place.server.start()
            if process.wait(PATIENCE) == 0:
                ledger.complain("a backup succeeds whose server was killed")
        else:
            process.send_signal(signal.SIGKILL)
            process.wait()
            proxy.resumed.set()
        # What it had started does not live on for long.
        wait_for(_all_gone(helpers), f"the end of {helpers}", seconds=20)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        proxy.resumed.set()


def _all_gone(processes: Sequence[psutil.Process]) -> Callable[[], bool]:
    return lambda: not any(process.is_running() for process in processes)


def _listed(location: Path) -> Sequence[Stored]:
    return list_backups(open_storage(str(location)))


def _judge(ledger: Ledger, location: Path, *, whole: int) -> None:
    """No remains pass for a backup, and no backup for remains."""
    good = [entry for entry in _listed(location) if not entry.problem]
    if len(good) > whole:
        ledger.tally.ghosts += len(good) - whole
        ledger.complain(f"remains are listed as a backup: {good}")
    elif len(good) < whole:
        ledger.tally.lost += whole - len(good)


def _prune(place: Place, ledger: Ledger, location: Path, whole: int) -> None:
    """Remains go, once they are too old to be a backup that is being made."""
    for folder in location.iterdir():
        for path in (*folder.iterdir(), folder):
            os.utime(path, (0, 0))
    done = place.command("backup", "prune", "--from", str(location), "--json")
    left = _listed(location)
    remains = [entry.name for entry in left if entry.problem]
    if done.returncode != 0 or remains:
        ledger.complain(f"prune leaves remains: {remains} {done.stderr[-300:]}")
    if not left:
        ledger.tally.lost += whole
