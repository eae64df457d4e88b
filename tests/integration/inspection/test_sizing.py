"""Plans of memory and time beside what really becomes of them."""

from __future__ import annotations

import json

import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from pgrecall.cli.app import app
from pgrecall.ops.sizing import measure, ways
from pgrecall.ops.sizing.hnsw import bytes_a_row
from pgrecall.ops.sizing.measuring import SAMPLE
from pgrecall.testing import Database

GIB = 1024**3


@pytest.mark.parametrize(
    ("dimensions", "storage", "m"),
    [(64, "vector", 16), (384, "vector", 16), (384, "halfvec", 16), (768, "halfvec", 32),
     (1536, "vector", 16), (1536, "halfvec", 16)],
)  # fmt: skip
def test_an_index_is_as_large_as_planned(
    pgrecall_database: Database, dimensions: int, storage: str, m: int
) -> None:
    rows = 400
    with psycopg.connect(pgrecall_database.owner_dsn) as owner:
        owner.execute(
            sql.SQL(
                "CREATE TEMPORARY TABLE planned AS SELECT ARRAY(SELECT random() + i * 0 "
                "FROM generate_series(1, {0}))::{1}({0}) AS v FROM generate_series(1, {2}) AS i"
            ).format(sql.Literal(dimensions), sql.Identifier(storage), sql.Literal(rows))
        )
        owner.execute(
            sql.SQL("CREATE INDEX planned_v ON planned USING hnsw (v {}) WITH (m = {})").format(
                sql.Identifier(f"{storage}_cosine_ops"), sql.Literal(m)
            )
        )
        row = owner.execute("SELECT pg_relation_size('planned_v')").fetchone()
    assert row is not None
    assert row[0] / rows == pytest.approx(bytes_a_row(dimensions, storage, m), rel=0.1)


def fill(database: Database, rows: int) -> None:
    with psycopg.connect(database.owner_dsn) as owner:
        owner.execute(
            "INSERT INTO agent_episodes (project_id, agent_version, perception, reasoning, action, "
            "embedding) SELECT 'p', '1', jsonb_build_object('text', 'seed ' || i), '{}', '{}', "
            "ARRAY(SELECT random() - 0.5 + i * 0 FROM generate_series(1, 64))::vector "
            "FROM generate_series(1, %s) AS i",
            [rows],
        )


def test_a_plan_for_what_is_there_is_what_is_there(pgrecall_database: Database) -> None:
    fill(pgrecall_database, SAMPLE + 500)
    now, sample = measure(pgrecall_database.owner_dsn)
    assert (now.rows, now.vectors, now.storage, now.dimensions) == (2500, 2500, "vector", 64)
    assert sample.real
    assert 0.9 < sample.kept <= 1
    as_it_is, *others = ways(now, sample, 2500, 24 * GIB, 2)
    assert now.vector_index_bytes is not None
    assert as_it_is.index_bytes == pytest.approx(now.vector_index_bytes, rel=0.1)
    there = (now.vector_index_bytes + now.table_bytes + now.plain_index_bytes + now.code_bytes
             + now.word_bytes)  # fmt: skip
    assert as_it_is.disk_bytes == pytest.approx(there, rel=0.15)
    assert [(way.column, way.index) for way in others] == [
        ("vector", "halfvec"), ("halfvec", "halfvec"),
    ]  # fmt: skip
    assert others[1].disk_bytes < others[0].disk_bytes < as_it_is.disk_bytes
    # Nothing is left of the sample.
    with psycopg.connect(pgrecall_database.owner_dsn) as owner:
        row = owner.execute("SELECT to_regclass('pg_temp.pgrecall_sizing')").fetchone()
    assert row == (None,)


def test_what_leaves_memory_is_said_before_it_does(pgrecall_database: Database) -> None:
    now, sample = measure(pgrecall_database.owner_dsn)
    assert not sample.real
    first = ways(now, sample, 1_000_000, 24 * GIB, 2)[0]
    fits = {
        memory: ways(now, sample, 1_000_000, memory, 2)[0].fit
        for memory in (first.touched_bytes * 3, round(first.touched_bytes * 1.6),
                       first.touched_bytes)
    }  # fmt: skip
    assert list(fits.values()) == ["fits", "tight", "leaves memory"]
    assert first.most_rows is not None
    at_the_limit = ways(now, sample, first.most_rows, 24 * GIB, 2)[0]
    beyond = ways(now, sample, round(first.most_rows * 1.01), 24 * GIB, 2)[0]
    assert (at_the_limit.fit, beyond.fit) == ("tight", "leaves memory")
    assert ways(now, sample, 1_000_000, None, 2)[0].fit is None


def test_the_command_advises(pgrecall_database: Database) -> None:
    words = ["doctor", "--owner-dsn", pgrecall_database.owner_dsn, "--sizing", "--rows", "1000000",
             "--memory"]  # fmt: skip
    done = CliRunner().invoke(app, [*words, "64", "--table"], env={"COLUMNS": "140"})
    assert done.exit_code == 0, done.output
    assert "At 1,000,000: as it is" in done.output
    tight = CliRunner().invoke(app, [*words, "0.9", "--json"])
    found = json.loads(tight.stdout)
    assert found["memory"] == round(0.9 * GIB)
    assert {way["rows"] for way in found["ways"]} == {1_000_000}
    assert found["ways"][0]["fit"] == "leaves memory"
    wrong = CliRunner().invoke(app, ["doctor", "--rows", "5"])
    assert wrong.exit_code == 2
    assert "add --sizing" in wrong.output
