"""The chart's containers run for real: its Jobs in the order of its hooks and schedules."""

from __future__ import annotations

import json
import secrets
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.deploy.chart import RELEASE, Resource, pick, render
from tests.deploy.pod import Namespace, kubernetes_api, namespace, needs_confinement
from tests.pgbouncer import free_port, generate, needs_pgbouncer, public_directory

from pgrecall.config import load_settings
from pgrecall.migrations import HEAD, REVISIONS, runner
from pgrecall.ops.pooler.version import find_version

if TYPE_CHECKING:
    from pgrecall.testing import Template

NAME = f"{RELEASE}-pgrecall"
DSN, POOLER = f"{NAME}-dsn", f"{NAME}-pooler"
PATIENCE = 60.0

pytestmark = [
    needs_pgbouncer,
    pytest.mark.root,
    needs_confinement,
]


@dataclass
class Release:
    """An installed release, with its pooler and monitor running."""

    values: dict[str, Any]
    space: Namespace
    calls: list[str]
    admin_dsn: str

    def dsn(self, role: str, **others: Any) -> str:
        """Return a published connection string, usable outside of the pods."""
        return make_conninfo(self.space.secrets[DSN][role], host="127.0.0.1", **others)

    def run(self, name: str) -> str:
        """Run a Job, which must succeed, and return what it printed."""
        done = self.space.run(name)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def tasks(self) -> dict[str, bool]:
        with psycopg.connect(self.dsn("monitor")) as connection:
            rows = connection.execute("SELECT task, last_failed FROM pgrecall.task_status")
            return {str(task): failed for task, failed in rows if failed is not None}


@pytest.fixture(scope="module")
def database(admin_dsn: str) -> Iterator[str]:
    name = f"chart_{secrets.token_hex(4)}"
    yield name
    from pgrecall.ops.provision import destroy

    destroy(admin_dsn, database=name, settings=load_settings(), force=True)


@pytest.fixture(scope="module")
def release(admin_dsn: str, database: str) -> Iterator[Release]:
    server = conninfo_to_dict(admin_dsn)
    version = find_version(None)
    assert version is not None
    values = {
        "database": {
            "name": database,
            "host": "127.0.0.1",
            "port": int(str(server["port"])),
            "sslmode": "prefer",
        },
        "init": {"enabled": True},
        "backup": {"claim": "backups"},
        "pooler": {
            "port": free_port(),
            "version": ".".join(map(str, (*version, 0)[:3])),
        },
        "monitor": {"port": free_port(), "interval": 2},
    }
    with ExitStack() as stack:
        space = stack.enter_context(namespace())
        space.resources = render(values)
        space.secrets["pgrecall-admin"] = {"dsn": make_conninfo(admin_dsn, host="127.0.0.1")}
        space.claims["backups"] = space.place / "backups"
        space.claims["backups"].mkdir()
        calls = stack.enter_context(kubernetes_api(space))
        release = Release(values, space, calls, admin_dsn)
        release.run(f"Job/{NAME}-init-1")
        for name in ("pooler", "monitor"):
            stack.enter_context(space.running(f"Deployment/{NAME}-{name}"))
        yield release


def hooks(resources: list[Resource], event: str) -> list[str]:
    """Return the Jobs that Helm runs at an event, in its order."""
    found = [
        (int(notes.get("helm.sh/hook-weight", 0)), item["metadata"]["name"])
        for item in resources
        if item["kind"] == "Job"
        and event in (notes := item["metadata"].get("annotations", {})).get("helm.sh/hook", "")
    ]
    return [f"Job/{name}" for _, name in sorted(found)]


def eventually(check: Any) -> Any:
    """Return the first true answer."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if answer := check():
                return answer
        except (OSError, psycopg.OperationalError):
            if time.monotonic() > end:
                raise
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)


def test_init_provisions_and_publishes_what_the_pods_need(release: Release) -> None:
    published = release.space.secrets
    assert set(published[DSN]) == {"app", "owner", "readonly", "monitor", "backup"}
    assert set(published[POOLER]) == {"userlist.txt"}
    app = conninfo_to_dict(published[DSN]["app"])
    assert (app["host"], app["port"]) == (
        f"{NAME}-pooler.agents.svc",
        str(release.values["pooler"]["port"]),
    )
    with psycopg.connect(release.dsn("owner")) as connection:
        row = connection.execute("SELECT version_num FROM pgrecall.alembic_version").fetchone()
    assert row == (HEAD,)


def test_init_can_be_repeated_and_then_changes_nothing(release: Release) -> None:
    before = json.dumps(release.space.secrets)
    release.calls.clear()
    printed = release.run(f"Job/{NAME}-init-1")
    assert release.calls == [f"get {DSN}", f"get {POOLER}"]
    assert json.dumps(release.space.secrets) == before
    for secret in (
        word for dsn in release.space.secrets[DSN].values() for word in [_password(dsn)]
    ):
        assert secret not in printed


def _password(dsn: str) -> str:
    return str(conninfo_to_dict(dsn)["password"])


def test_agents_reach_the_memory_through_the_pooler(release: Release) -> None:
    def ask() -> Any:
        with psycopg.connect(release.dsn("app"), prepare_threshold=None) as connection:
            return connection.execute("SELECT current_user, pg_backend_pid()").fetchone()

    user, backend = eventually(ask)
    assert user == f"{release.values['database']['name']}_app"
    with psycopg.connect(release.dsn("app"), prepare_threshold=None) as connection:
        assert connection.info.backend_pid != backend  # the pooler's own number


def test_the_monitor_sees_database_and_pooler(release: Release) -> None:
    address = f"http://127.0.0.1:{release.values['monitor']['port']}/metrics"

    def scrape() -> str | None:
        text = urllib.request.urlopen(address, timeout=10).read().decode()
        return text if "\npgrecall_up 1" in text and "\npgrecall_pooler_clients{" in text else None

    assert eventually(scrape)


def test_the_schedules_do_their_work(release: Release) -> None:
    with psycopg.connect(release.dsn("owner")) as connection:
        connection.execute(
            "INSERT INTO agent_working_memory (project_id, expires_at, is_active)"
            " VALUES ('apollo', now() - interval '1 hour', true)"
        )
    for name in ("backup", "drill", "prune", "sessions"):
        release.run(f"CronJob/{NAME}-{name}")

    assert any(release.space.claims["backups"].iterdir())
    assert release.tasks() == {"backup": False, "restore_drill": False}
    with psycopg.connect(release.dsn("owner")) as connection:
        active = connection.execute(
            "SELECT count(*) FROM agent_working_memory WHERE is_active"
        ).fetchone()
    assert active == (0,)


def test_old_metrics_are_deleted_by_schedule(release: Release) -> None:
    with psycopg.connect(release.dsn("owner")) as connection:
        connection.execute(
            "INSERT INTO agent_memory_metrics (timestamp, operation_type, latency_ms)"
            " VALUES (now() - interval '90 days', 'ancient', 1), (now(), 'fresh', 1)"
        )
    release.run(f"CronJob/{NAME}-metrics")
    with psycopg.connect(release.dsn("owner")) as connection:
        kept = connection.execute(
            "SELECT operation_type FROM agent_memory_metrics"
            " WHERE operation_type IN ('ancient', 'fresh')"
        ).fetchall()
    assert kept == [("fresh",)]


def test_a_job_that_cannot_do_its_work_fails(release: Release) -> None:
    wrong = {**release.space.secrets[DSN], "backup": "postgresql://nobody:x@127.0.0.1:1/x"}
    right, release.space.secrets[DSN] = release.space.secrets[DSN], wrong
    try:
        assert release.space.run(f"CronJob/{NAME}-backup").returncode != 0
    finally:
        release.space.secrets[DSN] = right


def test_pods_cannot_write_beside_their_volumes(release: Release) -> None:
    """What the runner promises, so that the jobs above prove what they seem to."""
    (pod,) = (
        item["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        for item in release.space.resources
        if item["kind"] == "CronJob" and item["metadata"]["name"].endswith("-backup")
    )
    script = (
        "id -u; for path in / /etc /mnt /run /home /var/tmp /mnt/ca /tmp /dev/shm /mnt/backups; do"
        " if touch $path/.x 2>/dev/null; then echo $path; fi; done; rm -f /mnt/backups/.x"
    )
    before, pod["containers"][0]["command"] = pod["containers"][0]["command"], ["sh", "-c", script]
    try:
        printed = release.run(f"CronJob/{NAME}-backup")
    finally:
        pod["containers"][0]["command"] = before
    writable = printed.split()[1:]
    assert printed.split()[0] == "10001"
    assert set(writable) <= {"/var/tmp", "/tmp", "/dev/shm", "/mnt/backups"}
    assert set(writable) >= {"/tmp", "/dev/shm", "/mnt/backups"}


def test_an_upgrade_migrates_before_anything_else(release: Release) -> None:
    resources = render(release.values, "--is-upgrade")
    assert hooks(resources, "pre-upgrade") == [f"Job/{NAME}-migrate"]
    report = json.loads(release.run(f"Job/{NAME}-migrate"))
    assert (report["applied"], report["revision"]) == ([], HEAD)


def test_the_hook_backs_up_and_migrates_an_old_schema(admin_dsn: str, tmp_path: Path) -> None:
    name = f"chart_{secrets.token_hex(4)}"
    identifier = sql.Identifier(name)
    dsn = make_conninfo(admin_dsn, dbname=name, host="127.0.0.1")
    values = {
        "database": {"name": name, "host": "127.0.0.1"},
        "backup": {"claim": "backups"},
    }
    with psycopg.connect(admin_dsn, autocommit=True) as admin, namespace() as space:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(identifier))
        try:
            runner.upgrade(dsn, dimensions=3, target=REVISIONS[0])
            space.resources = render(values)
            space.secrets[DSN] = {"owner": dsn}
            space.claims["backups"] = space.place / "backups"
            space.claims["backups"].mkdir()
            (job,) = hooks(space.resources, "pre-install")
            done = space.run(job)
            assert done.returncode == 0, done.stderr
            report = json.loads(done.stdout)
            assert report["applied"] == list(REVISIONS[1:])
            assert report["backup"]
            assert any(report["backup"] in path.name for path in space.claims["backups"].iterdir())
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


@pytest.mark.parametrize("version", ["1.18.0", "1.19.0", "1.24.1"])
def test_pgbouncer_is_configured_as_the_product_does(
    pgrecall_template: Template, version: str
) -> None:
    with public_directory() as directory:
        report = generate(
            pgrecall_template.admin_dsn,
            pgrecall_template.settings,
            directory,
            host="db.example.com",
            port=5433,
            listen_addr="0.0.0.0",
            listen_port=6432,
            pgbouncer_version=version,
            settings={"auth_file": "/etc/pgbouncer/userlist.txt", "server_tls_sslmode": "require"},
            unchecked=True,
        )
        written = report.configuration.read_text().splitlines()
    values = {
        "database": {
            "name": pgrecall_template.name,
            "host": "db.example.com",
            "port": 5433,
            "sslmode": "require",
        },
        "backup": {"claim": "backups"},
        "pooler": {"version": version},
    }
    rendered = pick(render(values), "ConfigMap", "-pooler")["data"]["pgbouncer.ini"].splitlines()
    assert sorted(filter(None, rendered)) == sorted(
        line for line in written if line and line[0] != ";"
    )
