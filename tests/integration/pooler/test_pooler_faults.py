"""The faults that deployments of PgBouncer meet, each with the generated files and a real one."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.integration.pooler.conftest import Serve, Served
from tests.pgbouncer import free_port, generate, needs_pgbouncer, public_directory, running, setting

from pgrecall import Memory
from pgrecall.embedding.base import Embedder
from pgrecall.errors import OperationRefused
from pgrecall.testing import Database, Template

pytestmark = needs_pgbouncer

READ_ONLY = r"""
set -eu
mount --make-rprivate /
for place in $(awk '{print $5}' /proc/self/mountinfo | sort -u -r); do
    mount -o remount,bind,ro "$place" 2>/dev/null || true
done
if touch /tmp/probe-$$ /root/probe-$$ 2>/dev/null; then echo "not read-only" >&2; exit 9; fi
exec "$@"
"""


def test_it_listens_on_tcp_and_on_nothing_else(served: Served) -> None:
    socket.create_connection(("127.0.0.1", served.pooler.port), timeout=5).close()
    held = Path(f"/proc/{served.pooler.process.pid}/fd")
    inodes = {str(link.readlink()) for link in held.iterdir()}
    listening = [
        line.split()[-1]
        for line in Path("/proc/net/unix").read_text().splitlines()[1:]
        if f"socket:[{line.split()[6]}]" in inodes and "/" in line
    ]
    assert listening == []


def test_passwords_are_asked_for(served: Served) -> None:
    with psycopg.connect(served.dsn) as connection:
        user = str(conninfo_to_dict(served.dsn)["user"])
        assert connection.execute("SELECT current_user").fetchone() == (user,)
    refused = (
        {"password": "wrong"},
        {"user": "nobody-of-that-name", "password": "x"},
        {"user": "postgres", "password": conninfo_to_dict(served.database.admin_dsn)["password"]},
    )
    for parameters in refused:
        with pytest.raises(psycopg.OperationalError, match="authentication failed|no such user"):
            psycopg.connect(make_conninfo(served.dsn, **parameters))


def test_a_new_password_counts_at_once(served: Served, pgrecall_template: Template) -> None:
    user = str(conninfo_to_dict(served.dsn)["user"])
    kept = conninfo_to_dict(served.dsn)["password"]
    change = sql.SQL("ALTER ROLE {} PASSWORD {}")
    with psycopg.connect(served.database.admin_dsn, autocommit=True) as admin:
        psycopg.connect(served.dsn).close()
        try:
            admin.execute(change.format(sql.Identifier(user), "another-word"))
            with pytest.raises(psycopg.OperationalError, match="authentication failed"):
                psycopg.connect(served.dsn)
            psycopg.connect(make_conninfo(served.dsn, password="another-word")).close()
        finally:
            admin.execute(change.format(sql.Identifier(user), str(kept)))


def test_every_name_of_a_database_leads_to_it(served: Served, pgrecall_template: Template) -> None:
    for name in (served.database.name, pgrecall_template.name):
        with psycopg.connect(make_conninfo(served.dsn, dbname=name)) as connection:
            assert connection.execute("SELECT current_database()").fetchone() == (name,)
    with pytest.raises(psycopg.OperationalError, match="no such database|authentication failed"):
        psycopg.connect(make_conninfo(served.dsn, dbname="chronicle"))


def test_a_host_that_does_not_resolve(pgrecall_template: Template, directory: Path) -> None:
    def run(**options: object) -> Path:
        settings, admin_dsn = pgrecall_template.settings, pgrecall_template.admin_dsn
        return generate(
            admin_dsn, settings, directory, host="chronicle-db.invalid", **options
        ).configuration

    with pytest.raises(OperationRefused, match=r"chronicle-db\.invalid.*does not resolve") as seen:
        run()
    assert "--unchecked" in str(seen.value)
    assert not list(directory.iterdir())
    text = run(unchecked=True).read_text()
    assert " host=" not in text.replace("host=chronicle-db.invalid", "")
    assert "= host=chronicle-db.invalid port=" in text


def test_a_place_where_nothing_answers(pgrecall_template: Template, directory: Path) -> None:
    with pytest.raises(OperationRefused, match="nothing answers on 127.0.0.1"):
        generate(
            pgrecall_template.admin_dsn, pgrecall_template.settings, directory, port=free_port()
        )
    assert not list(directory.iterdir())


def test_another_server_than_the_one_meant(
    served: Served, pgrecall_template: Template, tmp_path: Path
) -> None:
    def run(port: int) -> None:
        generate(
            pgrecall_template.admin_dsn, pgrecall_template.settings, tmp_path / "new", port=port
        )

    # A pooler leads to the right server in the end, but would be put in front of itself.
    with pytest.raises(OperationRefused, match="goes through a pooler"):
        run(served.pooler.port)
    from pgrecall.engine import EmbeddedServer

    with public_directory() as place:
        other = EmbeddedServer(place / "server")
        info = other.start()
        try:
            with pytest.raises(OperationRefused, match="no files were written.*cannot log in"):
                run(info.port)
            # One that looks alike, roles and passwords included, is told apart all the same.
            with psycopg.connect(other.admin_dsn(), autocommit=True) as admin:
                names = (f"{pgrecall_template.name}_pooler", pgrecall_template.name)
                role, database = map(sql.Identifier, names)
                password = _password(pgrecall_template, names[0])
                admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, password))
                admin.execute(sql.SQL("CREATE DATABASE {}").format(database))
            with pytest.raises(OperationRefused, match="another server than the administrator's"):
                run(info.port)
        finally:
            other.destroy(force=True)
    assert not (tmp_path / "new").exists()


def _password(template: Template, user: str) -> str:
    lines = template.settings.password_file.read_text().splitlines()
    (found,) = [line.split(":")[4] for line in lines if line.split(":")[3] == user]
    return found


@pytest.mark.root
def test_it_runs_where_nothing_can_be_written(
    pgrecall_template: Template, pgrecall_database: Database, directory: Path
) -> None:
    report = generate(
        pgrecall_template.admin_dsn,
        pgrecall_template.settings,
        directory,
        also=(pgrecall_database.name,),
    )
    before = ["unshare", "-m", "bash", "-c", READ_ONLY, "bash"]
    if subprocess.run([*before, "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounts cannot be changed here, not even in a name space of one's own")
    with running(report.configuration, before=before) as pooler:
        mounts = Path(f"/proc/{pooler.process.pid}/mountinfo").read_text().splitlines()
        (root,) = [fields for fields in map(str.split, mounts) if fields[4] == "/"]
        assert "ro" in root[5].split(",")
        with psycopg.connect(pooler.through(pgrecall_database.dsn)) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert "Read-only" not in pooler.log.read_text()


def test_the_monitor_may_read_its_statistics_and_command_nothing(
    served: Served, pgrecall_template: Template
) -> None:
    monitor, app = served.database.role_dsn("monitor"), served.database.dsn
    # As its exporter connects.
    monitor = make_conninfo(monitor, sslmode="disable")
    shown = {row["name"]: row for row in served.pooler.console(monitor, "SHOW DATABASES")}
    assert shown[pgrecall_template.name]["database"] == pgrecall_template.name
    assert served.pooler.console(monitor, "SHOW POOLS")
    with pytest.raises(psycopg.Error, match="admin access needed"):
        served.pooler.console(monitor, "PAUSE")
    # It also works with the database itself, like everybody else.
    psycopg.connect(served.pooler.through(monitor)).close()
    with pytest.raises(psycopg.OperationalError):
        served.pooler.console(make_conninfo(app, connect_timeout=2), "SHOW POOLS")


def test_who_commands_it_is_chosen(serve: Serve, pgrecall_template: Template) -> None:
    served = serve(admin_users=(f"{pgrecall_template.name}_owner",))
    assert served.pooler.console(served.database.owner_dsn, "RECONNECT") == []


def test_a_new_password_of_its_own(
    serve: Serve, pgrecall_template: Template, directory: Path
) -> None:
    served = serve(admin_users=(f"{pgrecall_template.name}_owner",))
    psycopg.connect(served.dsn).close()
    generate(
        pgrecall_template.admin_dsn,
        pgrecall_template.settings,
        directory,
        also=(served.database.name,),
        admin_users=(f"{pgrecall_template.name}_owner",),
        listen_port=served.pooler.port,
        reset_password=True,
    )
    served.pooler.console(served.database.owner_dsn, "RELOAD")
    served.pooler.console(served.database.owner_dsn, "RECONNECT")
    psycopg.connect(served.dsn).close()
    assert setting(served.report.configuration, "listen_port") == str(served.pooler.port)


def test_the_application_s_roles_come_in_too(
    served: Served, admin: psycopg.Connection[object], pgrecall_embedder: Embedder
) -> None:
    for role in ("owner", "readonly", "backup"):
        dsn = served.pooler.through(served.database.role_dsn(role))
        with psycopg.connect(dsn) as connection:
            connection.execute("SELECT count(*) FROM agent_episodes")
    with Memory.open(
        served.dsn, embedder=pgrecall_embedder, settings=served.database.settings
    ) as memory:
        assert list(memory.episodes.list().items) == []
