"""A server killed while words are kept and counted: nothing is counted twice, or not at all."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo
from tests.integration.words.conftest import check_statistics, fold, say

from pgrecall.engine import EmbeddedServer
from pgrecall.testing import provisioned_template

KILLS = 3


def write(dsn: str, seed: int, stop: threading.Event) -> None:
    """Write, delete and count in until the server is gone."""
    chance = random.Random(seed)
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not stop.is_set():
                say(connection, f"gold w{chance.randrange(200)}", f"p{chance.randrange(3)}")
                if chance.random() < 0.2:
                    connection.execute(
                        "DELETE FROM agent_episodes WHERE episode_id = (SELECT episode_id "
                        "FROM agent_episodes WHERE project_id = %s LIMIT 1 "
                        "FOR UPDATE SKIP LOCKED)",
                        [f"p{chance.randrange(3)}"],
                    )
                if chance.random() < 0.1:
                    fold(connection)
    except psycopg.OperationalError:
        return  # the server was killed


def test_counts_survive_a_kill(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    server = EmbeddedServer(tmp_path / "server")
    server.start()
    try:
        with provisioned_template(server.admin_dsn(), tmp_path / "config", 8) as template:
            dsn = make_conninfo(server.admin_dsn(), dbname=template.name)
            for kill in range(KILLS):
                stop = threading.Event()
                writers = [
                    threading.Thread(target=write, args=(dsn, 10 * kill + i, stop))
                    for i in range(3)
                ]
                for writer in writers:
                    writer.start()
                time.sleep(0.7)
                pid = server.status().pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                stop.set()
                for writer in writers:
                    writer.join()
                while server.status().running:
                    time.sleep(0.01)
                server.start()
                with psycopg.connect(dsn, autocommit=True) as owner:
                    check_statistics(owner)
                    fold(owner)
                    check_statistics(owner)
            with psycopg.connect(dsn, autocommit=True) as owner:
                written = owner.execute("SELECT count(*) FROM pgrecall.texts").fetchone()
                assert written is not None
                assert written[0] > 30
    finally:
        server.destroy(force=True)
