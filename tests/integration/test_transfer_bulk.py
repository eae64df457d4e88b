"""An import that puts the vector index off: right meanwhile, whole at the end, whoever ends it."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgrecall import Memory
from pgrecall.errors import (
    ConfigurationError,
    InvalidInput,
    OperationRefused,
    TransferError,
)
from pgrecall.ops.checks import Check
from pgrecall.ops.doctor import doctor
from pgrecall.ops.embeddings import Switch
from pgrecall.ops.transfer import (
    ImportReport,
    Plan,
    Progress,
    finish_import,
    import_episodes,
    plan_import,
)
from pgrecall.ops.transfer.indexing import VectorIndexes
from pgrecall.testing import Database, HashEmbedder, Template

DIMENSIONS = 64
ROWS = 1500
INDEX = "idx_episodes_embedding"
CHILD = """
import sys
from pathlib import Path
from pgrecall import Memory
from pgrecall.ops.transfer import import_episodes

with Memory.open(sys.argv[1], embedder="none") as memory:
    import_episodes(
        memory, Path(sys.argv[2]), owner_dsn=sys.argv[3], index="defer", batch_size=20,
        on_progress=lambda progress: print(progress.read, flush=True),
    )
"""


def vector(number: int) -> list[float]:
    chance = random.Random(number)
    return [chance.gauss() for _ in range(DIMENSIONS)]


def line(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "project_id": "apollo", "agent_version": "1", "external_id": str(number),
        "perception": {"number": number}, "reasoning": {}, "action": {},
        "embedding": vector(number), **changes,
    }  # fmt: skip


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("bulk") / "a.jsonl", [line(i) for i in range(ROWS)])


@pytest.fixture
def memory(pgrecall_database: Database) -> Iterator[Memory]:
    with Memory.open(
        pgrecall_database.dsn, embedder="none", settings=pgrecall_database.settings
    ) as opened:
        yield opened


def run(memory: Memory, base: Database, source: Path, **arguments: Any) -> ImportReport:
    given = {"owner_dsn": base.owner_dsn, "index": "defer", **arguments}
    return import_episodes(memory, source, **given)


def index_state(base: Database) -> tuple[str, bool] | None:
    with psycopg.connect(base.admin_dsn) as admin:
        found = admin.execute(
            "SELECT pg_get_indexdef(indexrelid), indisvalid FROM pg_index"
            " WHERE indexrelid = to_regclass(%s)", [INDEX]
        ).fetchone()  # fmt: skip
    return None if found is None else (found[0], found[1])


def deferred(base: Database) -> list[str]:
    with psycopg.connect(base.dsn, prepare_threshold=None) as app:
        return [name for (name,) in app.execute("SELECT name FROM pgrecall.deferred_indexes")]


def found(memory: Memory, number: int, **options: Any) -> str | None:
    hits = memory.episodes.recall(embedding=vector(number), limit=1, outcome_weight=0, **options)
    return hits[0].episode.external_id if hits else None


def checked(base: Database, name: str = "vector-indexes") -> Check:
    checks = doctor(base.owner_dsn, settings=base.settings, embedder_dimensions=None)
    return next(check for check in checks if check.id == name)


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it does not happen")
        time.sleep(0.02)


def test_the_index_is_away_while_rows_come_and_recalls_are_right_all_the_time(
    memory: Memory, pgrecall_database: Database, source: Path
) -> None:
    before = index_state(pgrecall_database)
    routes: set[str | None] = set()
    plans: list[Plan] = []

    def look(progress: Progress) -> None:
        if progress.read and progress.building is None:
            assert index_state(pgrecall_database) is None
            assert deferred(pgrecall_database) == [INDEX]
            for number in (0, progress.read // 2, progress.read - 1):
                hits = memory.episodes.recall(
                    embedding=vector(number), limit=3, outcome_weight=0, explain=True
                )
                assert hits[0].episode.external_id == str(number)
                assert len(hits) == 3
                assert hits.account is not None
                routes.add(hits.account.route)
            assert checked(pgrecall_database).status == "warning"

    report = run(memory, pgrecall_database, source, on_progress=look, on_plan=plans.append)
    assert (report.created, report.rejected) == (ROWS, 0)
    assert routes
    assert "index" not in routes
    assert [plan.index for plan in plans] == ["defer"]
    assert (report.plan, report.built) == (plans[-1], (INDEX,))
    assert index_state(pgrecall_database) == before
    assert deferred(pgrecall_database) == []
    assert checked(pgrecall_database).status == "passed"
    assert [found(memory, n, route="index") for n in range(0, ROWS, 50)] == [
        str(n) for n in range(0, ROWS, 50)
    ]


def test_every_vector_index_of_episodes_comes_back_as_it_was(
    memory: Memory, pgrecall_database: Database, source: Path
) -> None:
    with psycopg.connect(pgrecall_database.owner_dsn, autocommit=True) as owner:
        owner.execute(f"DROP INDEX {INDEX}".encode())
        owner.execute(
            f"CREATE INDEX {INDEX} ON agent_episodes USING hnsw (embedding vector_cosine_ops)"
            " WITH (m = 8, ef_construction = 200)".encode()
        )
        owner.execute(
            'CREATE INDEX "a half" ON agent_episodes USING hnsw'
            f" ((embedding::halfvec({DIMENSIONS})) halfvec_cosine_ops)".encode()
        )
        text = "SELECT indexdef FROM pg_indexes WHERE tablename = 'agent_episodes' ORDER BY 1"
        before = owner.execute(text).fetchall()
        report = run(memory, pgrecall_database, source)
        assert sorted(report.built) == ["a half", INDEX]
        assert owner.execute(text).fetchall() == before


@contextmanager
def held(base: Database) -> Iterator[psycopg.Connection[Any]]:
    """A transaction that has written, for which a concurrent build has to wait."""
    with psycopg.connect(base.admin_dsn) as other:
        other.execute("UPDATE agent_episodes SET outcome_quality = 0.5 WHERE external_id = '3'")
        yield other


def building_pid(base: Database) -> int | None:
    with psycopg.connect(base.admin_dsn, autocommit=True) as admin:
        row = admin.execute(
            "SELECT pid FROM pg_stat_progress_create_index WHERE datname = current_database()"
        ).fetchone()
    return row[0] if row else None


def test_rows_that_agents_write_while_the_index_is_built_are_in_it(
    memory: Memory, pgrecall_database: Database, source: Path
) -> None:
    seen: list[Progress] = []

    def write_more(progress: Progress) -> None:
        seen.append(progress)
        if progress.building is not None and not memory.episodes.list(project_id="late"):
            late = {**line(ROWS), "project_id": "late"}
            memory.episodes.record(**late)
            blocker.rollback()

    with held(pgrecall_database) as blocker:
        blocker.rollback()

        def block(progress: Progress) -> None:
            if progress.read == ROWS and progress.building is None:
                blocker.execute("UPDATE agent_episodes SET outcome_quality = 1 "
                                "WHERE external_id = '3'")  # fmt: skip
            write_more(progress)

        run(memory, pgrecall_database, source, on_progress=block)
    assert any(one.phase == f"building {INDEX}" for one in seen)
    assert found(memory, ROWS, route="index") == str(ROWS)


def test_a_build_whose_connection_breaks_is_begun_anew(
    memory: Memory, pgrecall_database: Database, source: Path
) -> None:
    states: list[tuple[str, bool] | None] = []

    def break_it() -> None:
        wait_for(lambda: building_pid(pgrecall_database))
        with psycopg.connect(pgrecall_database.admin_dsn, autocommit=True) as admin:
            wait_for(lambda: index_state(pgrecall_database))
            admin.execute("SELECT pg_terminate_backend(%s)", [building_pid(pgrecall_database)])
        states.append(index_state(pgrecall_database))
        blocker.rollback()

    run(memory, pgrecall_database, source, index="keep")
    indexes = VectorIndexes(pgrecall_database.owner_dsn)
    with indexes:
        assert indexes.claim()
        assert indexes.defer()
        with held(pgrecall_database) as blocker:
            breaking = threading.Thread(target=break_it)
            breaking.start()
            assert indexes.build() == [INDEX]
            breaking.join()
    assert [state and state[1] for state in states] == [False]
    state = index_state(pgrecall_database)
    assert state is not None
    assert state[1]
    assert deferred(pgrecall_database) == []


def kill_half_way(base: Database, source: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, base.dsn, str(source), base.owner_dsn],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    with child.stdout as lines:
        for told in lines:
            if int(told) >= ROWS // 3:
                break
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    wait_for(lambda: checked(base).status == "failed")


def test_what_a_killed_import_put_off_is_named_and_built_by_the_next(
    memory: Memory, pgrecall_database: Database, source: Path
) -> None:
    kill_half_way(pgrecall_database, source)
    fault = checked(pgrecall_database)
    assert f"put off public.{INDEX}" in fault.evidence
    assert "pgrecall episodes import --finish" in (fault.remedy or "")
    assert found(memory, 5) == "5"
    # Whatever it is asked, and however few rows are left, it ends what it finds.
    report = run(memory, pgrecall_database, source, index="auto")
    assert report.existing >= ROWS // 3
    assert report.created + report.existing == ROWS
    assert report.built == (INDEX,)
    assert checked(pgrecall_database).status == "passed"


def test_what_a_killed_import_put_off_can_be_built_without_its_file(
    memory: Memory, pgrecall_database: Database, source: Path
) -> None:
    kill_half_way(pgrecall_database, source)
    with pytest.raises(OperationRefused, match="an import was interrupted"):
        Switch(dsn=pgrecall_database.owner_dsn, settings=pgrecall_database.settings).prepare(
            "python:pgrecall.testing:HashEmbedder"
        )
    assert finish_import(pgrecall_database.owner_dsn) == [INDEX]
    assert finish_import(pgrecall_database.owner_dsn) == []
    assert checked(pgrecall_database).status == "passed"
    assert found(memory, 5, route="index") == "5"


def test_of_two_imports_at_once_the_one_that_put_it_off_builds_it(
    memory: Memory, pgrecall_database: Database, source: Path, tmp_path: Path
) -> None:
    more = write(tmp_path / "b.jsonl", [line(i) for i in range(ROWS, ROWS + 200)])
    second: list[ImportReport] = []

    def beside(progress: Progress) -> None:
        if progress.read and not second:
            second.append(run(memory, pgrecall_database, more, index="auto"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pgrecall.ops.transfer.loading.LINGERING", 0.2)
        report = run(memory, pgrecall_database, source, on_progress=beside)
    plan = second[0].plan
    assert plan is not None
    assert plan.index == "left"
    assert second[0].built == ()
    assert report.built == (INDEX,)
    assert found(memory, ROWS + 7, route="index") == str(ROWS + 7)


def test_without_the_owner_the_index_is_kept_and_the_plan_says_why(
    memory: Memory, pgrecall_database: Database, source: Path
) -> None:
    report = run(memory, pgrecall_database, source, index="auto", owner_dsn=None)
    assert report.plan is not None
    assert (report.plan.index, report.built) == ("keep", ())
    assert "as its owner" in report.plan.why
    with pytest.raises(ConfigurationError, match="as its owner"):
        run(memory, pgrecall_database, source, owner_dsn=None)


def test_an_owner_of_another_database_is_not_taken(
    memory: Memory, pgrecall_database: Database, pgrecall_template: Template, source: Path
) -> None:
    with pgrecall_template.clone() as other:
        with pytest.raises(ConfigurationError, match="another database"):
            run(memory, other, source)
        report = run(memory, other, source, index="auto")
        assert report.plan is not None
        assert "another database" in report.plan.why
        state = index_state(other)
        assert state is not None
        assert state[1]


def test_nothing_is_put_off_while_the_model_is_changed(
    memory: Memory, pgrecall_database: Database, source: Path
) -> None:
    with psycopg.connect(pgrecall_database.owner_dsn) as owner:
        owner.execute(
            "SELECT pgrecall.begin_beside('other', 'other', 'r', NULL, 32, 'vector', false)"
        )
    with pytest.raises(OperationRefused, match="change of the embedding model"):
        run(memory, pgrecall_database, source)
    report = run(memory, pgrecall_database, source, index="auto")
    assert report.plan is not None
    assert report.plan.index == "keep"
    assert "change of the embedding model" in report.plan.why


def test_who_keeps_the_table_locked_is_not_waited_for(
    memory: Memory,
    pgrecall_database: Database,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pgrecall.ops.transfer.indexing._TRIES", 1)
    monkeypatch.setattr("pgrecall.ops.transfer.indexing.LOCK_MS", 50)
    with psycopg.connect(pgrecall_database.admin_dsn) as reader:
        reader.execute("SELECT count(*) FROM agent_episodes")
        with pytest.raises(TransferError, match="kept the table locked"):
            run(memory, pgrecall_database, source)
        state = index_state(pgrecall_database)
        assert state is not None
        assert state[1]
        assert deferred(pgrecall_database) == []


def test_a_plan_writes_nothing_and_measures_where_it_matters(
    memory: Memory, pgrecall_database: Database, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgrecall.core.loading._FIXED", 0.0)  # so that small loads can be close
    owner = pgrecall_database.owner_dsn
    empty = plan_import(memory, source, owner_dsn=owner)
    assert (empty.present, empty.measured) == (0, False)
    assert abs(empty.rows - ROWS) < ROWS / 10
    assert memory.episodes.count() == 0
    run(memory, pgrecall_database, source)
    run(memory, pgrecall_database, write(source.with_name("c.jsonl"),
        [line(i) for i in range(ROWS, 2 * ROWS)]))  # fmt: skip
    full = plan_import(memory, source, owner_dsn=owner)
    assert (full.present, full.measured) == (2 * ROWS, True)
    with psycopg.connect(owner) as connection:
        left = connection.execute("SELECT to_regclass('pgrecall.index_sample')").fetchone()
    assert left == (None,)


def test_only_the_owner_writes_what_the_owner_will_run(pgrecall_database: Database) -> None:
    for role in ("app", "readonly", "monitor"):
        with psycopg.connect(pgrecall_database.role_dsn(role), autocommit=True) as connection:
            connection.execute("SELECT * FROM pgrecall.deferred_indexes")
            for text in (
                "INSERT INTO pgrecall.deferred_indexes VALUES ('x', 'DROP TABLE y')",
                "DELETE FROM pgrecall.deferred_indexes",
                "SELECT pgrecall.time_index(10)",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(text.encode())


@pytest.mark.parametrize("connections", [1, 3])
def test_lines_of_one_decision_are_taken_in_their_order(
    memory: Memory, pgrecall_database: Database, tmp_path: Path, connections: int
) -> None:
    """Over several connections as well, though they stand in different batches."""
    lines = []
    for number in range(40):
        lines += [line(number), line(number, outcome_quality=0.25), line(number, outcome_quality=1)]
    report = run(
        memory,
        pgrecall_database,
        write(tmp_path / "o.jsonl", lines),
        index="keep",
        batch_size=4,
        connections=connections,
    )
    assert (report.created, report.updated, report.rejected) == (40, 40, 40)
    assert {e.outcome_quality for e in memory.episodes.list(limit=100)} == {0.25}


@pytest.mark.parametrize("wrong", [{"connections": 0}, {"connections": 99}, {"index": "never"}])
def test_what_cannot_be_meant_is_refused(
    memory: Memory, pgrecall_database: Database, source: Path, wrong: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        run(memory, pgrecall_database, source, **wrong)
    assert memory.episodes.count() == 0


def test_texts_that_are_embedded_count_as_vectors(
    pgrecall_database: Database, tmp_path: Path
) -> None:
    lines = [{**line(i), "embedding": None} for i in range(300)]
    source = write(tmp_path / "t.jsonl", lines)
    with Memory.open(
        pgrecall_database.dsn, embedder=HashEmbedder(DIMENSIONS),
        settings=pgrecall_database.settings,
    ) as memory:  # fmt: skip
        owner = pgrecall_database.owner_dsn
        assert plan_import(memory, source, owner_dsn=owner).rows == 300
        assert plan_import(memory, source, owner_dsn=owner, embed="later").rows == 0
