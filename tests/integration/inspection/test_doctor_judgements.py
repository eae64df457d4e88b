"""Judgements of facts that a test cannot plant on a server it shares: versions, durability."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pgrecall.models import Staleness
from pgrecall.ops.checks import Check, Status
from pgrecall.ops.doctor import Facts, judge
from pgrecall.ops.doctor.facts import Extension, Index, connect, gather
from pgrecall.ops.doctor.versions import supported

ById = Callable[[list[Check]], dict[str, Check]]
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def facts(schema_dsn: str) -> Facts:
    """Facts of a real server, of which each test changes a few."""
    with connect(schema_dsn) as connection:
        return gather(connection, embedder_dimensions=None, pool_size=8)


SERVER: list[tuple[str, dict[str, Any], Status, str, str]] = [
    ("checksums", {"checksums": False}, "warning", "data_checksums = off", "pg_checksums"),
    ("durability", {"fsync": False}, "failed", "fsync = off", "ALTER SYSTEM SET fsync = on"),
    (
        "durability",
        {"full_page_writes": False},
        "failed",
        "full_page_writes = off",
        "SET full_page_writes = on",
    ),
    ("server-version", {"version_number": 160009}, "failed", "PostgreSQL 16.9", "newer server"),
    ("server-version", {"version_number": 170000}, "passed", "PostgreSQL 17.0", ""),
    ("recovery", {"in_recovery": True}, "warning", "standby", "pg_promote"),
    ("connections", {"connections": 4}, "warning", "up to 8", "put a pooler"),
    (
        "connections",
        {"connections": 100, "connections_used": 90},
        "warning",
        "90 of 100",
        "max_connections",
    ),
    ("collation", {"collation_recorded": None}, "passed", "no version", ""),
    (
        "collation",
        {"collation_recorded": "2.31", "collation_actual": "2.36"},
        "failed",
        "2.31",
        "REINDEX DATABASE",
    ),
    (
        "random-page-cost",
        {"random_page_cost": 1.1},
        "passed",
        "random_page_cost = 1.1",
        "",
    ),
    (
        "shared-memory",
        {"shared_memory_type": "mmap", "maintenance_workers": 2},
        "passed",
        "mmap",
        "",
    ),
]


@pytest.mark.parametrize(("id_", "changes", "status", "evidence", "remedy"), SERVER)
def test_server(
    facts: Facts,
    by_id: ById,
    id_: str,
    changes: dict[str, Any],
    status: Status,
    evidence: str,
    remedy: str,
) -> None:
    check = by_id(judge(replace(facts, server=replace(facts.server, **changes))))[id_]
    assert check.status == status
    assert evidence in check.evidence
    assert remedy in (check.remedy or "")
    assert (check.remedy is None) == (status == "passed")


@pytest.mark.parametrize(
    ("staleness", "evidence"),
    [
        (Staleness(standby=True, receiving=True, seconds=0, bytes=0), "is 0 s behind, 0 B to be"),
        (Staleness(standby=True, receiving=True, seconds=7.3, bytes=4096), "7 s behind, 4 kB"),
        (Staleness(standby=True, receiving=False, seconds=90, bytes=0), "does not receive"),
        (Staleness(standby=True, receiving=False, seconds=None, bytes=None), "an unknown time"),
    ],
)
def test_how_far_a_standby_is_behind(
    facts: Facts, by_id: ById, staleness: Staleness, evidence: str
) -> None:
    server = replace(facts.server, in_recovery=True)
    check = by_id(judge(replace(facts, server=server, staleness=staleness)))["recovery"]
    assert evidence in check.evidence


@pytest.mark.parametrize(
    ("version", "status", "evidence"),
    [
        ("0.7.4", "failed", "no iterative scans"),
        ("0.8.0", "warning", "parallel builds"),
        ("0.8.1", "warning", "parallel builds"),
        ("0.8.2", "warning", "vacuum"),
        ("0.8.3", "warning", "vacuum"),
        ("0.8.4", "passed", "0.8.4"),
        ("0.9.0", "passed", "0.9.0"),
        ("0.10.1", "passed", "0.10.1"),
        (None, "failed", "not installed"),
    ],
)
def test_pgvector(
    facts: Facts, by_id: ById, version: str | None, status: Status, evidence: str
) -> None:
    extensions = (Extension(name="vector", installed=version, available="0.10.1"),)
    check = by_id(judge(replace(facts, extensions=extensions)))["pgvector-version"]
    assert (check.status, evidence in check.evidence) == (status, True)


@pytest.mark.parametrize(
    ("free", "needed", "workers", "status"),
    [
        (64, 65, 2, "warning"),
        (64, 64, 2, "passed"),
        (64, 1024, 0, "passed"),
        (None, 64, 2, "not configured"),
    ],
)
def test_shared_memory(
    facts: Facts, by_id: ById, free: int | None, needed: int, workers: int, status: Status
) -> None:
    changed = replace(
        facts,
        shared_memory_free=None if free is None else free * MEGABYTE,
        server=replace(
            facts.server,
            maintenance_work_mem=needed * MEGABYTE,
            maintenance_workers=workers,
            shared_memory_type="posix",
        ),
    )
    assert by_id(judge(changed))["shared-memory"].status == status


def test_shared_buffers_smaller_than_the_vector_indexes(facts: Facts, by_id: ById) -> None:
    index = Index(name="public.idx", method="hnsw", usable=True, bytes=200 * MEGABYTE)
    server = replace(facts.server, shared_buffers=128 * MEGABYTE)
    check = by_id(judge(replace(facts, server=server, indexes=(index,))))["shared-buffers"]
    assert check.status == "warning"
    assert "128 MB" in check.evidence
    assert "200 MB" in check.evidence


def test_superfluous_vector_index_is_a_warning(facts: Facts, by_id: ById) -> None:
    index = Index(name="public.idx_third", method="hnsw", usable=True, bytes=1)
    check = by_id(judge(replace(facts, indexes=(*facts.indexes, index))))["vector-indexes"]
    assert check.status == "warning"
    assert "3 HNSW indexes instead of 2" in check.evidence


def test_pooler(facts: Facts, by_id: ById) -> None:
    check = by_id(judge(replace(facts, pooled=True)))["connection"]
    assert check.status == "failed"
    assert "PGRECALL_DIRECT_DSN" in str(check.remedy)


def test_uuid_ossp_absent_is_only_a_note(facts: Facts, by_id: ById) -> None:
    extensions = tuple(item for item in facts.extensions if item.name != "uuid-ossp")
    check = by_id(judge(replace(facts, extensions=extensions)))["optional-extensions"]
    assert check.status == "passed"
    assert "uuid-ossp" in check.evidence


def test_supported_versions() -> None:
    assert supported(150018).status == "failed"
    assert supported(169999).status == "failed"
    assert supported(180006).evidence == "PostgreSQL 18.6"


@pytest.mark.parametrize(
    ("size", "status"), [(40, "passed"), (60, "warning"), (80, "failed"), (None, "not configured")]
)
def test_memory_is_warned_of_before_it_ends(
    facts: Facts, by_id: ById, size: int | None, status: Status
) -> None:
    indexes = (
        Index(name="public.idx_episodes_embedding", method="hnsw", usable=True,
              bytes=(size or 40) * MEGABYTE // 2),
        Index(name="pgrecall.episode_codes_pkey", method="btree", usable=True,
              bytes=(size or 40) * MEGABYTE // 2),
        Index(name="public.idx_of_others", method="btree", usable=True, bytes=900 * MEGABYTE),
    )  # fmt: skip
    changed = replace(
        facts, indexes=indexes, machine_memory=None if size is None else 100 * MEGABYTE
    )
    check = by_id(judge(changed))["memory"]
    assert check.status == status, check
    assert f"{size or 40} MB" in check.evidence


def test_many_recent_episodes_are_told(facts: Facts, by_id: ById) -> None:
    assert facts.recent == 0
    assert by_id(judge(facts))["recent"].status == "passed"
    many = by_id(judge(replace(facts, recent=20_001)))["recent"]
    assert (many.status, "20,001" in many.evidence) == ("warning", True)
    assert "episodes merge" in str(many.remedy)
