"""Every SQL statement of the specification's phase 5 and of its test cases, run as written.

They are read from the document at test time and run by the real ``psql``, as the document does,
by the specification's single user, against a database that ``init`` made with 1,536 dimensions.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo, sql

from pgrecall.config import load_settings
from pgrecall.engine import binaries
from pgrecall.ops.provision import destroy, init

pytestmark = pytest.mark.eval_data

USER = "chronicle_user_of_the_specification"
DATABASE = "pgrecall_specification"
Psql = Callable[..., str]


@pytest.fixture(scope="module")
def specification(eval_data: Path) -> str:
    path = eval_data.parent / "spec" / "CR_Agent_01.md"
    if not path.exists():
        pytest.skip(f"the specification is not at {path}")
    return path.read_text()


@pytest.fixture(scope="module")
def psql(admin_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Psql]:
    """Runs commands with ``psql`` as the specification's user and returns what it prints."""
    binary = binaries.find(None).bin_dir / "psql"
    settings = load_settings(config_dir=tmp_path_factory.mktemp("config"))
    user = sql.Identifier(USER)
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'once'").format(user))
    init(admin_dsn, database=DATABASE, dimensions=1536, grant_to=[USER], settings=settings)
    place = {**conninfo.conninfo_to_dict(admin_dsn), "dbname": DATABASE, "user": USER}

    def run(*commands: str) -> str:
        arguments = [part for command in commands for part in ("-c", command)]
        done = subprocess.run(
            [binary, "-X", "-v", "ON_ERROR_STOP=1", *arguments],
            env={**os.environ, "PGHOST": str(place["host"]), "PGPORT": str(place["port"]),
                 "PGDATABASE": DATABASE, "PGUSER": USER, "PGPASSWORD": "once"},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield run
    destroy(admin_dsn, database=DATABASE, settings=settings)
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP ROLE {}").format(user))


def commands_below(specification: str, heading: str) -> list[str]:
    """Return the ``-c`` arguments of the first block of commands below a heading."""
    start = specification.index(heading)
    block = re.search(r"```bash\n(.*?)```", specification[start:], re.DOTALL)
    assert block is not None
    text = block[1]
    if "bash -c" in text:  # one level of quoting more
        text = text.replace('\\"', '"').replace("bash -c", "")
    found = re.findall(r"""-c (?:"((?:\\.|[^"\\])*)"|'([^']*)')""", text, re.DOTALL)
    # In the document a stray point, or a point and a dollar, follow the quotes of its DO block.
    return [re.sub(r"\$\$\.\$*", "$$", (a or b).replace('\\"', '"')) for a, b in found]


def milliseconds(output: str) -> float:
    """Return the least of the times that psql prints: other tests run on the same processors."""
    times = re.findall(r"Time: ([0-9.]+) ms", output)
    assert times, output
    return min(map(float, times))


def test_phase_5_in_order(psql: Psql, specification: str) -> None:
    (inserting,) = commands_below(specification, "**Step 5.1: Insert Test Data**")
    output = psql(inserting)
    assert "INSERT 0 2" in output or "(2 rows)" in output
    assert "TEST-001" in output
    assert "TEST-002" in output

    (storing,) = commands_below(specification, "**Step 5.2: Test Vector Embedding Storage**")
    output = psql(storing)
    assert "similarity" in output
    assert "TEST-VEC-001" in output

    thousand, timed = commands_below(specification, "**Step 5.3: Performance Benchmark**")
    assert "DO" in psql(thousand)
    # psql takes a backslash command only as a -c of its own.
    meta, query = timed.strip().split("\n", 1)
    output = psql(meta.strip(), query, query, query)
    assert output.count("(10 rows)") == 3
    assert milliseconds(output) < 100

    (expiring,) = commands_below(specification, "**Step 5.4: Test Cleanup Functions**")
    output = psql(expiring)
    assert re.search(r"\| f +\| \d{4}-", output), output
    assert psql("SELECT count(*) FROM agent_episodes").split()[2] == "1003"


# The test cases search among the thousand episodes that phase 5 inserts.
@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("TC-DB-001", r"vector  \| 0\.\d+\.\d+"),
        ("TC-DB-002", r"CREATE TABLE\nDROP TABLE"),
        ("TC-DB-003", r"agent_episodes(.|\n)*agent_working_memory(.|\n)*\(5 rows\)"),
        ("TC-DB-004", r"\(10 rows\)"),
        ("TC-DB-005", r"Index Scan using idx_episodes_embedding"),
    ],
)
def test_its_test_cases(psql: Psql, specification: str, case: str, expected: str) -> None:
    commands = commands_below(specification, f"**{case}:")
    assert commands
    output = psql(*commands)
    assert re.search(expected, output), output
    if case == "TC-DB-004":
        assert milliseconds(output) < 100


def test_the_indexes_it_expects(psql: Psql) -> None:
    output = psql("SELECT count(*) FROM pg_indexes WHERE indexdef LIKE '%hnsw%'")
    assert output.split()[2] == "2"


def test_one_statement_of_the_specification_is_refused_on_purpose(
    psql: Psql, admin_dsn: str
) -> None:
    """Active knowledge without evidence: the specification's check let it pass by accident."""
    place = conninfo.make_conninfo(admin_dsn, dbname=DATABASE)
    with psycopg.connect(place) as admin, pytest.raises(psycopg.errors.CheckViolation):
        admin.execute(
            "INSERT INTO agent_knowledge (knowledge_type, content, description) "
            "VALUES ('strategy', '{}', 'no evidence')"
        )
