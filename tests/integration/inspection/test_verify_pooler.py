"""Step 6 and TC-DB-004 of ``verify``, with a real PgBouncer and with ways that lead elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.pgbouncer import PgBouncer, generate, needs_pgbouncer, public_directory, running

from pgrecall.ops.checks import Check
from pgrecall.ops.verify import cases, verify
from pgrecall.testing import Database, Template

ById = Callable[[list[Check]], dict[str, Check]]
Look = Callable[..., dict[str, Check]]


@pytest.fixture
def pooler(pgrecall_template: Template, pgrecall_database: Database) -> Iterator[PgBouncer]:
    """A PgBouncer in front of the test's database, with one server connection a role."""
    with public_directory() as directory:
        report = generate(
            pgrecall_template.admin_dsn,
            pgrecall_template.settings,
            directory,
            also=(pgrecall_database.name,),
            default_pool_size=2,
        )
        with running(report.configuration) as running_pooler:
            yield running_pooler


@pytest.fixture
def look(pgrecall_database: Database, by_id: ById) -> Look:
    def run(pooler_dsn: str | None, *, claimed: bool = True) -> dict[str, Check]:
        return by_id(
            verify(
                pgrecall_database.owner_dsn,
                pooler_dsn=pooler_dsn,
                pooler_claimed=claimed,
            )
        )

    return run


@needs_pgbouncer
@pytest.mark.parametrize("claimed", [True, False])
def test_transaction_pooling(
    pooler: PgBouncer, pgrecall_database: Database, look: Look, claimed: bool
) -> None:
    checks = look(pooler.through(pgrecall_database.dsn), claimed=claimed)
    check = checks["step-6"]
    assert check.status == "passed", check
    assert "4 clients shared" in check.evidence
    assert "40 transactions" in check.evidence


@needs_pgbouncer
def test_the_search_is_timed_through_the_pooler_too(
    pooler: PgBouncer, pgrecall_database: Database, look: Look
) -> None:
    dsn = pooler.through(pgrecall_database.dsn)
    for _ in range(3):  # on server connections that were used for it before
        check = look(dsn)["TC-DB-004"]
        assert check.status in ("passed", "warning"), check
        assert re.search(r"through the pooler: median \d+\.\d ms, worst \d+\.\d ms", check.evidence)
        assert check.evidence.startswith("1000 vectors of 64 dimensions, 11 searches: median")
    # As the role that clients have, and nothing of it is left.
    with psycopg.connect(pgrecall_database.admin_dsn) as admin:
        assert admin.execute(
            "SELECT count(*) FROM pg_class"
            " WHERE relname = 'agent_episodes' AND relpersistence = 't'"
        ).fetchone() == (0,)
        assert admin.execute("SELECT count(*) FROM agent_episodes").fetchone() == (0,)
    with psycopg.connect(dsn, autocommit=True) as client:
        assert (
            client.execute(
                "SELECT name FROM pg_settings WHERE source = 'session'"
                " AND name IN ('lock_timeout', 'statement_timeout', 'search_path')"
            ).fetchall()
            == []
        )


@needs_pgbouncer
def test_a_search_that_fails_through_the_pooler(
    pooler: PgBouncer,
    pgrecall_database: Database,
    look: Look,
    plant: Callable[[str], None],
) -> None:
    # The role may read, and not make the temporary table that the search needs.
    plant(f'REVOKE TEMPORARY ON DATABASE "{pgrecall_database.name}" FROM "{{role}}_readonly"')
    checks = look(pooler.through(pgrecall_database.role_dsn("readonly")))
    assert checks["step-6"].status == "passed"
    check = checks["TC-DB-004"]
    assert check.status == "failed"
    assert "through the pooler: 42501: permission denied to create temporary tables" in (
        check.evidence
    )
    assert check.remedy
    assert checks["step-5"].status == "passed"


@needs_pgbouncer
def test_a_search_that_is_slow_through_the_pooler_alone(
    pooler: PgBouncer,
    pgrecall_database: Database,
    look: Look,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([[1.0], [1.0], [150.0]])  # direct, direct by the index, pooled
    monkeypatch.setattr(cases, "_time", lambda *_: next(times))
    check = look(pooler.through(pgrecall_database.dsn))["TC-DB-004"]
    assert check.status == "failed"
    assert "median 1.0 ms" in check.evidence
    assert "through the pooler: median 150.0 ms" in check.evidence


def test_no_pooler_there(pgrecall_database: Database, look: Look) -> None:
    checks = look(pgrecall_database.owner_dsn)
    assert checks["step-6"].status == "failed"
    assert "straight to the server" in checks["step-6"].evidence
    assert checks["TC-DB-004"].status == "failed"


def test_no_pooler_there_and_nobody_said_so(pgrecall_database: Database, look: Look) -> None:
    for dsn in (pgrecall_database.owner_dsn, None):
        checks = look(dsn, claimed=False)
        assert checks["step-6"].status == "not configured"
        assert "pgrecall pooler config" in str(checks["step-6"].remedy)
        assert checks["TC-DB-004"].status in ("passed", "warning")
        assert "pooler" not in checks["TC-DB-004"].evidence


def test_pooler_of_another_database(empty_database: str, look: Look) -> None:
    check = look(empty_database)["step-6"]
    assert check.status == "failed"
    assert "another database" in check.evidence
    assert look(empty_database, claimed=False)["step-6"].status == "not configured"


@pytest.mark.parametrize("claimed", [True, False])
def test_pooler_that_does_not_answer(look: Look, claimed: bool) -> None:
    checks = look("host=127.0.0.1 port=1 user=x password=secret-word", claimed=claimed)
    check = checks["step-6"]
    assert check.status == checks["TC-DB-004"].status == "failed"
    assert check.remedy
    assert "secret-word" not in check.evidence + checks["TC-DB-004"].evidence


@needs_pgbouncer
def test_a_pooler_in_another_mode(
    pgrecall_template: Template, pgrecall_database: Database, look: Look
) -> None:
    with public_directory() as directory:
        report = generate(
            pgrecall_template.admin_dsn,
            pgrecall_template.settings,
            directory,
            also=(pgrecall_database.name,),
            settings={"pool_mode": "statement"},
        )
        with running(report.configuration) as pooler:
            dsn = make_conninfo(pooler.through(pgrecall_database.dsn))
            checks = look(dsn)
    assert checks["step-6"].status == "failed"  # no transactions at all
    assert checks["TC-DB-004"].status == "failed"
