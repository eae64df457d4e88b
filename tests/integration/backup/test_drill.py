"""The drill finds whatever was done to a backup, and names it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pyrage
import pytest
from psycopg import sql
from tests.integration.backup.conftest import (
    EPISODES,
    Create,
    Drill,
    databases,
    failures,
    file_of,
)

from pgrecall.ops import backup
from pgrecall.ops.backup import tools
from pgrecall.testing import Database


def test_a_good_backup(filled: Database, create: Create, drill: Drill) -> None:
    create(filled)
    before = databases(filled.admin_dsn)
    report = drill(filled)
    assert report.succeeded, failures(report)
    assert {check.id: check.status for check in report.checks} == dict.fromkeys(
        ["live-catalog", "restore", "tables", "rows", "contents", "vectors", "constraints",
         "indexes", "recalls"],
        "passed",
    )  # fmt: skip
    assert databases(filled.admin_dsn) == before
    with psycopg.connect(filled.role_dsn("monitor")) as connection:
        row = connection.execute(
            "SELECT last_success_bytes, last_failed FROM pgrecall.task_status"
            " WHERE task = 'restore_drill'"
        ).fetchone()
    assert row is not None
    assert row[0] > 0
    assert report.recorded


def test_in_a_server_of_its_own(filled: Database, create: Create, drill: Drill) -> None:
    create(filled)
    report = drill(filled, scratch="server", admin_dsn=None)
    assert report.succeeded, failures(report)
    assert any("without passwords" in note for note in report.notes)


Plant = Callable[[Path, dict[str, Any]], None]


def flip_a_byte(file: Path, manifest: dict[str, Any]) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def truncate(file: Path, manifest: dict[str, Any]) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def remove(file: Path, manifest: dict[str, Any]) -> None:
    file.unlink()


def table_of(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    tables = manifest["databases"][0]["tables"]
    return next(table for table in tables if table["name"] == name)


def one_row_more(file: Path, manifest: dict[str, Any]) -> None:
    table_of(manifest, "agent_episodes")["rows"] += 1


def other_content(file: Path, manifest: dict[str, Any]) -> None:
    table_of(manifest, "agent_working_memory")["checksum"] = "1"


def other_vectors(file: Path, manifest: dict[str, Any]) -> None:
    table_of(manifest, "agent_episodes")["vector_checksum"] = "1"


def table_not_listed(file: Path, manifest: dict[str, Any]) -> None:
    tables = manifest["databases"][0]["tables"]
    tables.remove(table_of(manifest, "agent_knowledge"))


def index_missing(file: Path, manifest: dict[str, Any]) -> None:
    manifest["databases"][0]["indexes"].append("public.idx_gone")


def constraint_missing(file: Path, manifest: dict[str, Any]) -> None:
    manifest["databases"][0]["constraints"].append("public.agent_episodes.chk_gone")


def other_recall(file: Path, manifest: dict[str, Any]) -> None:
    manifest["databases"][0]["probes"][0]["distances"][3] += 0.01


@pytest.mark.parametrize(
    ("plant", "check", "evidence", "encrypted"),
    [
        (flip_a_byte, "restore", "not what was stored", False),
        (flip_a_byte, "restore", "not what was stored", True),
        (truncate, "restore", " bytes", False),
        (truncate, "restore", " bytes", True),
        (remove, "restore", "is missing", False),
        (one_row_more, "rows", "public.agent_episodes has 200 of 201 rows", False),
        (other_content, "contents", "rows of public.agent_working_memory differ", False),
        (other_vectors, "vectors", "vectors of public.agent_episodes differ", False),
        (table_not_listed, "live-catalog", "public.agent_knowledge is not in the backup", False),
        (table_not_listed, "tables", "public.agent_knowledge is not in the manifest", False),
        (index_missing, "indexes", "public.idx_gone is missing", False),
        (constraint_missing, "constraints", "public.agent_episodes.chk_gone is missing", False),
        (other_recall, "recalls", "differs from the source's", False),
    ],
)
def test_what_was_done_to_it(
    filled: Database,
    create: Create,
    drill: Drill,
    location: str,
    tmp_path: Path,
    plant: Plant,
    check: str,
    evidence: str,
    encrypted: bool,
) -> None:
    key = pyrage.x25519.Identity.generate()
    identity = tmp_path / "key"
    identity.write_text(f"# made for a test\n{key}\n")
    recipients = (str(key.to_public()),) if encrypted else ()
    report = create(filled, recipients=recipients)
    path = Path(location) / report.manifest.name / "manifest.json"
    manifest = json.loads(path.read_text())
    plant(file_of(location, report), manifest)
    path.write_text(json.dumps(manifest))
    before = databases(filled.admin_dsn)
    tried = drill(filled, identity=identity)
    assert not tried.succeeded
    assert evidence in failures(tried)[check]
    assert databases(filled.admin_dsn) == before
    with psycopg.connect(filled.owner_dsn) as connection:
        row = connection.execute(
            "SELECT detail->>'error' FROM pgrecall.task_runs"
            " WHERE task = 'restore_drill' AND NOT succeeded"
        ).fetchone()
    assert row is not None
    assert evidence in row[0]


def replace_dump(filled: Database, report: backup.CreateReport, file: Path, *options: str) -> None:
    """Dump again with other options, and let the manifest name the new file's bytes."""
    import hashlib

    program = tools.find("pg_dump", filled.settings)
    done = subprocess.run(
        [program.path, "--format=custom", *options], capture_output=True, check=True
    )
    file.write_bytes(done.stdout)
    path = file.with_name("manifest.json")
    manifest = json.loads(path.read_text())
    manifest["databases"][0]["bytes"] = len(done.stdout)
    manifest["databases"][0]["sha256"] = hashlib.sha256(done.stdout).hexdigest()
    path.write_text(json.dumps(manifest))


def test_a_table_that_was_not_dumped(
    filled: Database, create: Create, drill: Drill, location: str
) -> None:
    with psycopg.connect(filled.owner_dsn, autocommit=True) as owner:
        owner.execute("CREATE TABLE pgrecall.ours AS SELECT 1 AS n")
    report = create(filled)
    replace_dump(
        filled,
        report,
        file_of(location, report),
        f"--dbname={filled.admin_dsn}",
        "--exclude-table=pgrecall.ours",
        "--exclude-table-data=agent_working_memory",
    )
    found = failures(drill(filled))
    assert found["tables"] == "pgrecall.ours is missing"
    assert "public.agent_working_memory has 0 of 1 rows" in found["rows"]


def test_rows_that_a_policy_hid_from_the_dump(
    filled: Database, create: Create, drill: Drill, location: str
) -> None:
    report = create(filled)
    with psycopg.connect(filled.admin_dsn, autocommit=True) as admin:
        admin.execute("ALTER TABLE agent_episodes ENABLE ROW LEVEL SECURITY")
        admin.execute("ALTER TABLE agent_episodes FORCE ROW LEVEL SECURITY")
    replace_dump(
        filled,
        report,
        file_of(location, report),
        f"--dbname={filled.owner_dsn}",
        "--enable-row-security",
    )
    found = failures(drill(filled))
    assert f"public.agent_episodes has 0 of {EPISODES} rows" in found["rows"]
    assert "public.agent_episodes has 0 of 180 vectors" in found["vectors"]


def test_rows_that_a_policy_hides_now(filled: Database, create: Create, drill: Drill) -> None:
    create(filled)
    user = str(psycopg.conninfo.conninfo_to_dict(filled.role_dsn("backup"))["user"])
    with psycopg.connect(filled.admin_dsn, autocommit=True) as admin:
        admin.execute("ALTER TABLE agent_episodes ENABLE ROW LEVEL SECURITY")
        admin.execute(sql.SQL("ALTER ROLE {} NOBYPASSRLS").format(sql.Identifier(user)))
        try:
            found = failures(drill(filled))
        finally:
            admin.execute(sql.SQL("ALTER ROLE {} BYPASSRLS").format(sql.Identifier(user)))
    assert "hides rows of public.agent_episodes" in found["live-catalog"]


def test_a_table_made_since(filled: Database, create: Create, drill: Drill) -> None:
    create(filled)
    with psycopg.connect(filled.owner_dsn, autocommit=True) as owner:
        owner.execute("CREATE TABLE pgrecall.newer (id int)")
    assert "pgrecall.newer is not in the backup" in failures(drill(filled))["live-catalog"]


def test_a_wrong_key(filled: Database, create: Create, drill: Drill, tmp_path: Path) -> None:
    right, wrong = (pyrage.x25519.Identity.generate() for _ in range(2))
    create(filled, recipients=(str(right.to_public()),))
    identity = tmp_path / "key"
    identity.write_text(str(wrong))
    assert "encrypted to another key" in failures(drill(filled, identity=identity))["restore"]
    identity.write_text(str(right))
    assert drill(filled, identity=identity).succeeded


def test_a_manifest_that_is_none(
    filled: Database, create: Create, drill: Drill, location: str
) -> None:
    report = create(filled)
    path = Path(location) / report.manifest.name / "manifest.json"
    path.write_bytes(path.read_bytes()[:500])
    found = failures(drill(filled, name=report.manifest.name))
    assert "cannot be read" in found["manifest"]
