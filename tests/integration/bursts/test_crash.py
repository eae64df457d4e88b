"""Clients, mergers and the server killed during bursts: what was acknowledged is there, once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo
from tests.integration.words.conftest import check_statistics

from pgrecall import Memory
from pgrecall.engine import EmbeddedServer
from pgrecall.ops.provision import dsn_for
from pgrecall.testing import Database, provisioned_template

KILLS = 8
DIMENSIONS = 16
BURST = """
import sys
import numpy as np
from pathlib import Path
from pgrecall import Memory
from pgrecall.config import load_settings

dsn, seed = sys.argv[1], int(sys.argv[2])
rng = np.random.default_rng(seed)
settings = load_settings(config_dir=Path(sys.argv[3]), embedder="none")
with Memory.open(dsn, settings=settings) as memory:
    number = 0
    while True:
        size = int(rng.integers(1, 9))
        keys = [f"{seed}-{number + i}" for i in range(size)]
        memory.episodes.record_many(
            [{"project_id": f"p{seed % 3}", "agent_version": "1", "perception": {"key": key},
              "reasoning": {}, "action": {}, "external_id": key,
              "embedding": rng.normal(size=16)} for key in keys],
            burst=bool(rng.random() < 0.9))
        number += size
        print(*keys, sep="\\n", flush=True)
"""


class Killed:
    """Processes that are killed, and what the bursting ones said that they had written."""

    def __init__(self, database: Database, place: Path) -> None:
        self._database = database
        self._place = place
        self._said: list[Path] = []
        self._running: list[subprocess.Popen[bytes]] = []

    def burst(self, seed: int) -> None:
        said = self._place / f"said-{seed}"
        self._said.append(said)
        arguments = [self._database.dsn, str(seed), str(self._database.settings.config_dir)]
        with said.open("wb") as file:
            self._start([sys.executable, "-c", BURST, *arguments], file.fileno())

    def merge(self) -> None:
        command = ["-m", "pgrecall.cli", "episodes", "merge", "--loop", "--batch-size", "5"]
        self._start([sys.executable, *command, "--dsn", self._database.dsn], subprocess.DEVNULL)

    def _start(self, command: list[str], output: int) -> None:
        self._running.append(subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL))

    def kill(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()
        self._running.clear()

    def acknowledged(self) -> set[str]:
        """Return every key of a line that was said to its end."""
        lines = [line for said in self._said for line in said.read_text().splitlines(True)]
        return {line.strip() for line in lines if line.endswith("\n")}


def check(owner: psycopg.Connection[tuple[object, ...]], acknowledged: set[str]) -> None:
    keys = [row[0] for row in owner.execute("SELECT external_id FROM agent_episodes")]
    assert len(keys) == len(set(keys))
    assert acknowledged <= set(keys)
    row = owner.execute(
        "SELECT (SELECT count(*) FROM ONLY agent_episodes AS e WHERE NOT EXISTS (SELECT "
        "FROM pgrecall.episode_codes AS c WHERE c.episode_id = e.episode_id)), "
        "(SELECT count(*) FROM ONLY pgrecall.recent_episodes AS e WHERE NOT EXISTS (SELECT "
        "FROM pgrecall.recent_codes AS c WHERE c.episode_id = e.episode_id)), "
        "(SELECT count(*) FROM pgrecall.episode_codes) + (SELECT count(*) "
        "FROM pgrecall.recent_codes) - (SELECT count(*) FROM agent_episodes)"
    ).fetchone()
    assert row == (0, 0, 0)
    check_statistics(owner)


def check_recalled(database: Database, owner: psycopg.Connection[tuple[object, ...]]) -> None:
    """Every row is found by its own vector, once."""
    rows = owner.execute("SELECT external_id, embedding::text FROM agent_episodes").fetchall()
    with Memory.open(database.dsn, settings=database.settings) as memory:
        for key, vector in random.Random(1).sample(rows, min(100, len(rows))):
            numbers = [float(number) for number in str(vector).strip("[]").split(",")]
            for route in ("codes", "index"):
                hits = memory.episodes.recall(
                    embedding=numbers, limit=3, outcome_weight=0, route=route, group_repeats=False
                )
                assert [hit.episode.external_id for hit in hits].count(str(key)) == 1


def run(database: Database, place: Path, server: EmbeddedServer | None) -> None:
    chance = random.Random(7)
    killed = Killed(database, place)
    for kill in range(KILLS):
        killed.merge()
        for writer in range(3):
            killed.burst(10 * kill + writer)
        deadline = time.monotonic() + 30
        before = len(killed.acknowledged())
        while len(killed.acknowledged()) < before + 20 and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(chance.uniform(0.2, 1.2))
        if server is not None:
            pid = server.status().pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        killed.kill()
        if server is not None:
            while server.status().running:
                time.sleep(0.01)
            server.start()
        with psycopg.connect(database.owner_dsn, autocommit=True) as owner:
            check(owner, killed.acknowledged())
    assert len(killed.acknowledged()) > 20 * KILLS
    with psycopg.connect(database.owner_dsn, autocommit=True) as owner:
        check_recalled(database, owner)
        while owner.execute("SELECT pgrecall.merge_recent(500)").fetchone() != (0,):
            pass
        check(owner, killed.acknowledged())
        check_recalled(database, owner)
        recent = owner.execute("SELECT count(*) FROM pgrecall.recent_episodes").fetchone()
        assert recent == (0,)


def test_killed_clients_and_mergers(pgrecall_admin_dsn: str, tmp_path: Path) -> None:
    with (
        provisioned_template(pgrecall_admin_dsn, tmp_path / "config", DIMENSIONS) as template,
        template.clone() as database,
    ):
        run(database, tmp_path, None)


def test_a_killed_server(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    server = EmbeddedServer(tmp_path / "server")
    server.start()
    try:
        with provisioned_template(server.admin_dsn(), tmp_path / "config", DIMENSIONS) as template:
            database = Database(
                name=template.name,
                dsn=dsn_for(template.settings, "app"),
                owner_dsn=dsn_for(template.settings, "owner"),
                admin_dsn=make_conninfo(server.admin_dsn(), dbname=template.name),
                settings=template.settings,
            )
            run(database, tmp_path, server)
    finally:
        server.destroy(force=True)
