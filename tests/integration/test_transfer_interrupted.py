"""An import that is killed, loses its connection or meets a server that is gone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgrecall import Memory
from pgrecall.errors import DatabaseError, OutcomeUnknown, PermissionDenied, TransferError
from pgrecall.ops.transfer import ImportReport, Progress, import_episodes
from pgrecall.testing import Database

CHILD = """
import sys
from pathlib import Path
from pgrecall import Memory
from pgrecall.ops.transfer import import_episodes
from pgrecall.testing import HashEmbedder

with Memory.open(sys.argv[1], embedder=HashEmbedder(64)) as memory:
    import_episodes(
        memory, Path(sys.argv[2]), batch_size=20, embed="later",
        on_progress=lambda progress: print(progress.read, flush=True),
    )
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(600):
            line = {
                "project_id": "apollo",
                "agent_version": "1.0",
                "perception": {"backlog": number},
                "reasoning": {},
                "action": {"created": True},
                "outcome_quality": 0.5,
            }
            # Some lines bring an identifier, some don't, some are bad.
            if number % 3 == 0:
                line["external_id"] = f"d{number}"
            file.write(("bad" if number % 150 == 7 else json.dumps(line)) + "\n")
    return path


def run(memory: Memory, source: Path, **arguments: Any) -> ImportReport:
    return import_episodes(memory, source, batch_size=64, embed="later", **arguments)


def backlogs(memory: Memory) -> list[int]:
    return sorted(e.perception["backlog"] for e in memory.episodes.list(limit=10_000))


EXPECTED = [number for number in range(600) if number % 150 != 7]


@pytest.mark.parametrize("progress", [20, 300])
def test_a_killed_import_is_completed_by_the_next(
    pgrecall_memory: Memory, pgrecall_database: Database, source: Path, progress: int
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, pgrecall_database.dsn, str(source)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    with child.stdout as lines:
        for line in lines:
            if int(line) >= progress:
                break
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    wait_for_silence(pgrecall_database)
    half = backlogs(pgrecall_memory)
    assert 0 < len(half) < len(EXPECTED)
    report = run(pgrecall_memory, source)
    assert (report.created, report.existing) == (len(EXPECTED) - len(half), len(half))
    assert backlogs(pgrecall_memory) == EXPECTED
    assert report.rejects is not None
    kept = [json.loads(line) for line in report.rejects.read_text(encoding="utf-8").splitlines()]
    assert [entry["line"] for entry in kept] == [8, 158, 308, 458]


def wait_for_silence(database: Database) -> None:
    """A killed client's last statement may still be running on the server."""
    with psycopg.connect(database.admin_dsn, autocommit=True) as admin:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            row = admin.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND state = 'active'"
                " AND pid <> pg_backend_pid()"
            ).fetchone()
            if row == (0,):
                return
            time.sleep(0.05)
    raise TimeoutError("the killed client's statement does not end")


@pytest.fixture
def breaking(admin: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A database that kills the session of some inserts; the sequence survives a rollback."""
    admin.execute("""
        CREATE TABLE public.broken_by (nth bigint);
        CREATE SEQUENCE public.inserts;
        CREATE FUNCTION public.break_it() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        BEGIN
            IF nextval('public.inserts') IN (SELECT nth FROM public.broken_by) THEN
                PERFORM pg_terminate_backend(pg_backend_pid());
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER break_it AFTER INSERT ON public.agent_episodes
            FOR EACH STATEMENT EXECUTE FUNCTION public.break_it()
    """)
    return admin


def test_broken_connections_are_outlived(
    pgrecall_memory: Memory,
    breaking: psycopg.Connection[Any],
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pgrecall.ops.transfer.writing.RETRY_SECONDS", (0, 0.05))
    breaking.execute("INSERT INTO public.broken_by VALUES (2), (4), (5)")
    report = run(pgrecall_memory, source)
    assert (report.created, report.existing, report.rejected) == (len(EXPECTED), 0, 4)
    assert backlogs(pgrecall_memory) == EXPECTED
    row = breaking.execute("SELECT last_value FROM public.inserts").fetchone()
    assert row == (10 + 3,)


def test_a_write_that_happened_though_its_answer_was_lost_counts_as_created(
    pgrecall_memory: Memory, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the network fails between the commit and its answer."""
    monkeypatch.setattr("pgrecall.ops.transfer.writing.RETRY_SECONDS", (0,))
    record_many = pgrecall_memory.episodes.record_many
    calls = []

    def losing(*args: Any, **kwargs: Any) -> Any:
        recorded = record_many(*args, **kwargs)
        calls.append(recorded)
        if len(calls) == 2:
            raise OutcomeUnknown("the connection broke while a write was under way")
        return recorded

    monkeypatch.setattr(pgrecall_memory.episodes, "record_many", losing)
    report = run(pgrecall_memory, source)
    assert (report.created, report.existing) == (len(EXPECTED), 0)
    assert backlogs(pgrecall_memory) == EXPECTED


def test_a_server_that_stays_away_stops_the_import_which_can_be_continued(
    pgrecall_memory: Memory,
    breaking: psycopg.Connection[Any],
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pgrecall.ops.transfer.writing.RETRY_SECONDS", (0, 0.05))
    breaking.execute("INSERT INTO public.broken_by SELECT * FROM generate_series(4, 6)")
    with pytest.raises(
        TransferError, match=r"stopped after line 192 \(190 created, 0 known, 2 bad\).*continues"
    ) as caught:
        run(pgrecall_memory, source)
    assert isinstance(caught.value.__cause__, DatabaseError)
    assert len(backlogs(pgrecall_memory)) == 190
    report = run(pgrecall_memory, source)
    assert (report.created, report.existing) == (len(EXPECTED) - 190, 190)
    assert backlogs(pgrecall_memory) == EXPECTED


def test_a_lost_right_stops_the_import_at_once(
    pgrecall_memory: Memory, admin: psycopg.Connection[Any], source: Path
) -> None:
    def revoke(progress: Progress) -> None:
        if progress.read == 64:
            admin.execute(f'REVOKE INSERT ON public.agent_episodes FROM "{role}"')

    row = admin.execute(
        "SELECT grantee FROM information_schema.role_table_grants"
        " WHERE table_name = 'agent_episodes' AND privilege_type = 'INSERT'"
        " AND grantee LIKE '%_app'"
    ).fetchone()
    assert row is not None
    role = row[0]
    with pytest.raises(TransferError, match="stopped after line 64 .*lacks a right") as caught:
        run(pgrecall_memory, source, on_progress=revoke)
    assert isinstance(caught.value.__cause__, PermissionDenied)


def test_two_imports_of_the_same_file_at_once_give_each_line_once(
    pgrecall_memory: Memory, pgrecall_database: Database, source: Path, tmp_path: Path
) -> None:
    second = tmp_path / "b.jsonl"
    second.write_bytes(source.read_bytes())
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, pgrecall_database.dsn, str(copy)],
            stdout=subprocess.DEVNULL,
        )
        for copy in (source, second)
    ]
    assert [child.wait(60) for child in children] == [0, 0]
    assert backlogs(pgrecall_memory) == EXPECTED
