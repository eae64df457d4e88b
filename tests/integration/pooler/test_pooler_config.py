"""What ``pgrecall pooler config`` makes on the server and in files, and when it refuses."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.pgbouncer import generate, setting

from pgrecall.config import load_settings
from pgrecall.errors import InvalidInput, OperationRefused
from pgrecall.ops.pooler import PoolerRequest, configure
from pgrecall.ops.pooler.request import parse_settings
from pgrecall.ops.provision import destroy, init
from pgrecall.ops.provision.credentials import dsn_for
from pgrecall.testing import Template

Admin = psycopg.Connection[Any]
SNAPSHOT = """
SELECT 'role', rolname, xmin::text FROM pg_authid WHERE rolname LIKE %(like)s
UNION ALL SELECT 'database', datname, xmin::text FROM pg_database WHERE datname LIKE %(like)s
UNION ALL SELECT 'schema', nspname, xmin::text FROM pg_namespace
UNION ALL SELECT 'function', oid::text, xmin::text FROM pg_proc WHERE oid >= 16384
ORDER BY 1, 2
"""
VERSION = "1.18.0"
GENEROUS = """
CREATE OR REPLACE FUNCTION pgrecall_pooler.lookup(p_name text)
RETURNS TABLE (name text, verifier text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'SELECT rolname::text, rolpassword FROM pg_authid'
"""


@pytest.fixture
def make(pgrecall_template: Template, directory: Path) -> Callable[..., Any]:
    """Run it for the template, for PgBouncer 1.18, whether that is installed or not."""

    def run(**options: Any) -> Any:
        return generate(
            pgrecall_template.admin_dsn,
            pgrecall_template.settings,
            options.pop("directory", directory),
            **{"listen_port": 6432, "pgbouncer_version": VERSION, **options},
        )

    return run


@pytest.fixture
def other_database(admin_dsn: str) -> Iterator[str]:
    """An application's own database on the same server."""
    name = f"my app-{secrets.token_hex(3)}"
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield name
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def inside(template: Template, database: str | None = None, **others: str) -> Admin:
    name = database or template.name
    return psycopg.connect(
        make_conninfo(template.admin_dsn, dbname=name, **others), autocommit=True
    )


def test_the_files_are_as_specified(make: Callable[..., Any], pgrecall_template: Template) -> None:
    report = make()
    text = report.configuration.read_text()
    name = pgrecall_template.name
    way = conninfo_to_dict(pgrecall_template.admin_dsn)
    assert f"\n{name} = host={way['host']} port={way['port']} dbname={name}\n" in text
    values = {
        "listen_addr": "127.0.0.1",  # since the server is reached over loopback only
        "listen_port": "6432",
        "unix_socket_dir": "",
        "pool_mode": "transaction",
        "max_client_conn": "200",
        "default_pool_size": "25",
        "auth_type": "scram-sha-256",
        "auth_file": str(report.users),
        "auth_user": f"{name}_pooler",
        "stats_users": f"{name}_monitor",
        "ignore_startup_parameters": "extra_float_digits",
    }
    assert {key: setting(report.configuration, key) for key in values} == values
    for absent in ("logfile", "pidfile", "admin_users", "auth_dbname", "max_prepared_statements"):
        assert f"\n{absent} " not in text
    assert stat.S_IMODE(report.users.stat().st_mode) == 0o600
    assert stat.S_IMODE(report.configuration.stat().st_mode) == 0o644
    assert report.users.read_text().startswith("; Made by pgrecall pooler config: a SECRET")


def test_a_configuration_that_ships_holds_no_secret(
    make: Callable[..., Any], pgrecall_template: Template
) -> None:
    report = make()
    with inside(pgrecall_template) as admin:
        verifiers = admin.execute(
            "SELECT rolpassword FROM pg_authid WHERE rolname LIKE %s",
            [f"{pgrecall_template.name}%"],
        ).fetchall()
    passwords = [line.split(":")[4] for line in _pgpass(pgrecall_template)]
    assert len(passwords) == len(verifiers) == 6
    shown = report.configuration.read_text() + repr(report)
    assert not [word for word in passwords + [row[0] for row in verifiers] if word in shown]
    users = report.users.read_text()
    # The password of its own role, with which it must log in; of the monitor the verifier alone.
    assert [word for word in passwords if word in users] == [
        line.split(":")[4]
        for line in _pgpass(pgrecall_template)
        if line.split(":")[3].endswith("_pooler")
    ]
    assert users.count("SCRAM-SHA-256$") == 1


def _pgpass(template: Template) -> list[str]:
    return template.settings.password_file.read_text().splitlines()


def test_a_second_run_changes_nothing(
    make: Callable[..., Any], pgrecall_template: Template, other_database: str
) -> None:
    first = make(also=(other_database,))
    like = {"like": f"{pgrecall_template.name}%"}

    def snapshot() -> list[Any]:
        rows = []
        for name in (pgrecall_template.name, other_database):
            with inside(pgrecall_template, name) as admin:
                rows += admin.execute(SNAPSHOT, like).fetchall()
        files = (first.configuration, first.users, pgrecall_template.settings.password_file)
        return rows + [path.stat().st_mtime_ns for path in files]

    before = snapshot()
    second = make(also=(other_database,))
    assert not second.changed
    assert {step.state for step in second.steps} == {"unchanged"}
    assert snapshot() == before


def test_the_role_may_look_up_and_nothing_else(
    make: Callable[..., Any], pgrecall_template: Template
) -> None:
    make()
    dsn, role = _pooler_dsn(pgrecall_template), f"{pgrecall_template.name}_pooler"
    with psycopg.connect(dsn, autocommit=True) as pooler:
        for statement in (
            "SELECT 1 FROM pg_authid",
            "SELECT 1 FROM public.agent_episodes",
            "SELECT 1 FROM public.schema_version",
            "CREATE TABLE public.mine (x int)",
            "CREATE TABLE pgrecall_pooler.mine (x int)",
            "CREATE TEMP TABLE mine (x int)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                pooler.execute(statement.encode())
        assert pooler.execute(
            "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls,"
            " (SELECT count(*) FROM pg_auth_members WHERE member = pg_roles.oid)"
            " FROM pg_roles WHERE rolname = %s",
            [role],
        ).fetchone() == (False, 0)
    with (
        psycopg.connect(dsn_of(pgrecall_template, "app"), autocommit=True) as app,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        app.execute("SELECT * FROM pgrecall_pooler.lookup('x')")


def dsn_of(template: Template, role: str) -> str:
    return dsn_for(template.settings, role)


def _pooler_dsn(template: Template) -> str:
    name = f"{template.name}_pooler"
    (line,) = [line for line in _pgpass(template) if line.split(":")[3] == name]
    return make_conninfo(dsn_of(template, "app"), user=name, password=line.split(":")[4])


def test_whom_the_lookup_tells(make: Callable[..., Any], pgrecall_template: Template) -> None:
    make()
    name = f"{pgrecall_template.name}_x"
    role = sql.Identifier(name)
    cases = [
        ("LOGIN", True),
        ("LOGIN SUPERUSER", False),
        ("LOGIN REPLICATION", False),
        ("NOLOGIN", False),
        ("LOGIN VALID UNTIL '2001-01-01'", False),
        ("LOGIN VALID UNTIL '2101-01-01'", True),
        ("LOGIN VALID UNTIL 'infinity'", True),
        ("LOGIN PASSWORD NULL", False),
    ]
    with (
        psycopg.connect(_pooler_dsn(pgrecall_template), autocommit=True) as pooler,
        inside(pgrecall_template) as admin,
    ):
        for attributes, told in cases:
            admin.execute(
                sql.SQL("CREATE ROLE {} PASSWORD 'some-word' ").format(role)
                if "NULL" not in attributes
                else sql.SQL("CREATE ROLE {} ").format(role)
            )
            admin.execute(sql.SQL("ALTER ROLE {} ").format(role) + sql.SQL(attributes))
            try:
                rows = pooler.execute(
                    "SELECT name, verifier FROM pgrecall_pooler.lookup(%s)", [name]
                ).fetchall()
            finally:
                admin.execute(sql.SQL("DROP ROLE {}").format(role))
            if told:
                assert [row[0] for row in rows] == [name], attributes
                assert rows[0][1].startswith("SCRAM-SHA-256$")
            else:
                assert rows == [], attributes


def test_nobody_else_can_put_a_lookup_in_its_place(
    make: Callable[..., Any], pgrecall_template: Template
) -> None:
    make()
    with psycopg.connect(dsn_of(pgrecall_template, "owner"), autocommit=True) as owner:
        for statement in (
            "DROP FUNCTION pgrecall_pooler.lookup(text)",
            "DROP SCHEMA pgrecall_pooler CASCADE",
            "CREATE FUNCTION pgrecall_pooler.other() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "SELECT * FROM pgrecall_pooler.lookup('x')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                owner.execute(statement.encode())


@pytest.mark.parametrize(
    "fault",
    [
        "GRANT EXECUTE ON FUNCTION pgrecall_pooler.lookup(text) TO PUBLIC",
        "REVOKE ALL ON SCHEMA pgrecall_pooler FROM {role}",
        "ALTER FUNCTION pgrecall_pooler.lookup(text) SECURITY INVOKER",
        "ALTER FUNCTION pgrecall_pooler.lookup(text) SET search_path = public",
        "ALTER FUNCTION pgrecall_pooler.lookup(text) OWNER TO {owner}",
        "ALTER SCHEMA pgrecall_pooler OWNER TO {owner}",
        GENEROUS,
        "DROP FUNCTION pgrecall_pooler.lookup(text)",
    ],
)
def test_what_was_changed_by_hand_is_put_right(
    fault: str, make: Callable[..., Any], pgrecall_template: Template
) -> None:
    make()
    name = pgrecall_template.name
    with inside(pgrecall_template) as admin:
        admin.execute(fault.format(role=f"{name}_pooler", owner=f"{name}_owner").encode())
        report = make()
        states = {step.what: step.state for step in report.steps}
        assert states["function"] in ("changed", "created")
        assert not make().changed
        assert admin.execute(
            "SELECT nspowner::regrole::text = current_user, proowner::regrole::text = current_user,"
            " prosecdef, proconfig = '{\"search_path=pg_catalog, pg_temp\"}', prosrc LIKE '%NOT"
            " rolsuper%', has_function_privilege('public', pg_proc.oid, 'EXECUTE')"
            " FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace"
            " WHERE nspname = 'pgrecall_pooler'"
        ).fetchall() == [(True, True, True, True, True, False)]
    with psycopg.connect(_pooler_dsn(pgrecall_template), autocommit=True) as pooler:
        found = pooler.execute(
            "SELECT name FROM pgrecall_pooler.lookup(%s)", [f"{name}_app"]
        ).fetchall()
    assert found == [(f"{name}_app",)]


def test_an_administrator_who_is_no_superuser(
    make: Callable[..., Any], pgrecall_template: Template, directory: Path
) -> None:
    name = f"{pgrecall_template.name}_dba"
    with inside(pgrecall_template) as admin:
        admin.execute(
            sql.SQL("CREATE ROLE {} LOGIN CREATEROLE CREATEDB PASSWORD 'some-word'").format(
                sql.Identifier(name)
            )
        )
        grant = sql.SQL("GRANT CONNECT ON DATABASE {} TO {}")
        admin.execute(grant.format(*map(sql.Identifier, (pgrecall_template.name, name))))
        try:
            request = PoolerRequest(
                admin_dsn=make_conninfo(
                    pgrecall_template.admin_dsn, user=name, password="some-word"
                ),
                database=pgrecall_template.name,
                directory=directory,
            )
            with pytest.raises(OperationRefused, match="nothing was changed.*no superuser") as seen:
                configure(request, settings=pgrecall_template.settings)
        finally:
            admin.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
    assert "let a superuser run this once" in str(seen.value)
    assert not list(directory.iterdir())


def test_what_each_version_is_given(
    make: Callable[..., Any], pgrecall_template: Template, other_database: str
) -> None:
    old = make(also=(other_database,), pgbouncer_version="1.18")
    assert any(f"was made in {other_database} too" in note for note in old.notes)
    with inside(pgrecall_template, other_database) as admin:
        assert admin.execute("SELECT to_regnamespace('pgrecall_pooler')").fetchone() != (None,)
        admin.execute("DROP SCHEMA pgrecall_pooler CASCADE")
        middle = make(also=(other_database,), pgbouncer_version="1.19.1")
        # The application's database is not touched any more.
        assert admin.execute("SELECT to_regnamespace('pgrecall_pooler')").fetchone() == (None,)
    assert middle.notes == ()
    assert setting(middle.configuration, "auth_dbname") == pgrecall_template.name
    assert "max_prepared_statements" not in middle.configuration.read_text()
    new = make(pgbouncer_version="1.24.0")
    assert int(setting(new.configuration, "max_prepared_statements")) > 0
    assert setting(new.configuration, "auth_dbname") == pgrecall_template.name
    assert any("older than 1.18" in note for note in make(pgbouncer_version="1.17").notes)
    with pytest.raises(InvalidInput, match="no version"):
        make(pgbouncer_version="newest")


def test_without_a_pgbouncer_here_the_files_fit_all(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgrecall.ops.pooler.version.find_program", lambda: None)
    report = make(pgbouncer_version=None)
    assert report.pgbouncer_version is None
    assert "--pgbouncer-version" in report.notes[0]
    assert "auth_dbname" not in report.configuration.read_text()


def test_everything_can_be_chosen(make: Callable[..., Any], pgrecall_template: Template) -> None:
    report = make(
        listen_addr="0.0.0.0",
        listen_port=7000,
        max_client_conn=20,
        default_pool_size=3,
        admin_users=(f"{pgrecall_template.name}_owner",),
        settings=parse_settings(["reserve_pool_size=2", "pool_mode = session", "auth_file=/x/u"]),
    )
    values = {
        "listen_addr": "0.0.0.0",
        "listen_port": "7000",
        "max_client_conn": "20",
        "default_pool_size": "3",
        "admin_users": f"{pgrecall_template.name}_owner",
        "reserve_pool_size": "2",
        "pool_mode": "session",
        "auth_file": "/x/u",
    }
    assert {key: setting(report.configuration, key) for key in values} == values
    assert report.dsn == (
        f"postgresql://{pgrecall_template.name}_app@POOLER_HOST:7000/{pgrecall_template.name}"
    )
    for wrong in ("x", "Pool=1", "a=b\nc=d", "=1"):
        with pytest.raises(InvalidInput, match="no setting"):
            parse_settings([wrong])
    for option in (
        {"listen_port": 0},
        {"default_pool_size": 0},
        {"host": "a,b"},
        {"owner": "nobody-of-that-name"},
    ):
        with pytest.raises(InvalidInput):
            make(**option)


def test_tls_is_carried_over(
    make: Callable[..., Any], pgrecall_template: Template, directory: Path
) -> None:
    def request(**parameters: str) -> PoolerRequest:
        return PoolerRequest(
            admin_dsn=make_conninfo(pgrecall_template.admin_dsn, **parameters),
            database=pgrecall_template.name,
            directory=directory,
            pgbouncer_version=VERSION,
        )

    def run(**parameters: str) -> Any:
        return configure(request(**parameters), settings=pgrecall_template.settings)

    # This server has no TLS, so only these two connect; the way is what is looked at.
    assert setting(run(sslmode="disable").configuration, "server_tls_sslmode") == "disable"
    report = run(sslmode="prefer", sslrootcert="/etc/ca.crt", channel_binding="disable")
    assert setting(report.configuration, "server_tls_sslmode") == "prefer"
    assert setting(report.configuration, "server_tls_ca_file") == "/etc/ca.crt"
    assert any("channel_binding=disable" in note for note in report.notes)


def test_several_hosts_are_refused(
    make: Callable[..., Any], pgrecall_template: Template, directory: Path
) -> None:
    way = conninfo_to_dict(pgrecall_template.admin_dsn)
    dsn = make_conninfo(
        pgrecall_template.admin_dsn, host="127.0.0.1,127.0.0.1", port=f"{way['port']},{way['port']}"
    )
    settings = pgrecall_template.settings
    make()  # whose password is kept for the one host

    def request(**options: Any) -> PoolerRequest:
        return PoolerRequest(
            admin_dsn=dsn,
            database=pgrecall_template.name,
            directory=directory / "other",
            pgbouncer_version=VERSION,
            **options,
        )

    with pytest.raises(OperationRefused, match="several hosts") as caught:
        configure(request(), settings=settings)
    assert "--host and --port" in str(caught.value)
    assert not (directory / "other").exists()
    report = configure(request(host="127.0.0.1", port=int(str(way["port"]))), settings=settings)
    assert f"host=127.0.0.1 port={way['port']} " in report.configuration.read_text()


def test_files_of_others_are_left_alone(make: Callable[..., Any], directory: Path) -> None:
    (directory / "pgbouncer.ini").write_text("[databases]\nmine = host=x\n")
    with pytest.raises(OperationRefused, match="was not made by pgrecall"):
        make()
    assert (directory / "pgbouncer.ini").read_text() == "[databases]\nmine = host=x\n"
    assert not (directory / "userlist.txt").exists()


def test_what_is_not_there(make: Callable[..., Any], pgrecall_template: Template) -> None:
    with pytest.raises(OperationRefused, match="no database 'nowhere'"):
        make(also=("nowhere",))
    with pytest.raises(OperationRefused, match="cannot command the pooler"):
        make(admin_users=("postgres",))
    settings = pgrecall_template.settings.model_copy(update={"database": "template1"})
    with pytest.raises(OperationRefused, match="pgrecall init"):
        generate(pgrecall_template.admin_dsn, settings, Path("/nowhere"))


def test_a_password_that_is_not_known_here(
    make: Callable[..., Any], pgrecall_template: Template
) -> None:
    make()
    file = pgrecall_template.settings.password_file
    kept = file.read_text()
    try:
        lines = [line for line in kept.splitlines() if "_pooler:" not in line]
        file.write_text("\n".join(lines) + "\n")
        with pytest.raises(OperationRefused, match="--reset-password"):
            make()
        assert make(reset_password=True).changed
    finally:
        written = file.read_text()
    assert written.count("_pooler:") == 1
    assert written != kept
    make()


def test_destroy_takes_it_away_everywhere(
    admin_dsn: str, tmp_path: Path, directory: Path, other_database: str
) -> None:
    name = f"pgrecall_pooled_{secrets.token_hex(3)}"
    settings = load_settings(config_dir=tmp_path, database=name)
    init(admin_dsn, database=name, dimensions=8, settings=settings)
    generate(admin_dsn, settings, directory, also=(other_database,), pgbouncer_version=VERSION)
    twin = f"{name}_2"
    others = load_settings(config_dir=tmp_path / "2", database=twin)
    init(admin_dsn, database=twin, dimensions=8, settings=others)
    generate(admin_dsn, others, directory / "2", also=(other_database,), pgbouncer_version=VERSION)
    lookup = "SELECT to_regprocedure('pgrecall_pooler.lookup(text)') IS NOT NULL"
    try:
        with psycopg.connect(make_conninfo(admin_dsn, dbname=other_database)) as admin:
            report = destroy(admin_dsn, database=name, settings=settings)
            assert f"role {name}_pooler" in report.dropped
            assert "_pooler" not in settings.password_file.read_text()
            # The other memory's pooler still looks users up there.
            assert admin.execute(lookup).fetchone() == (True,)
    finally:
        destroy(admin_dsn, database=twin, settings=others)
    with psycopg.connect(make_conninfo(admin_dsn, dbname=other_database)) as admin:
        assert admin.execute(
            "SELECT to_regnamespace('pgrecall_pooler') IS NULL,"
            " (SELECT count(*) FROM pg_roles WHERE starts_with(rolname, %s))",
            [name],
        ).fetchone() == (True, 0)


@pytest.mark.root
def test_the_files_are_given_to_the_user_of_the_pooler(make: Callable[..., Any]) -> None:
    report = make(owner="nobody")
    assert report.users.owner() == report.configuration.owner() == "nobody"
    assert f"pgbouncer -q -u nobody {report.configuration}" == report.start
    again = make(owner=None, default_pool_size=3)
    assert again.users.owner() == "nobody"
    assert os.geteuid() == 0


EXAMPLE = Path(__file__).parents[3] / "deploy" / "pgbouncer" / "pgbouncer.ini"


def test_the_example_is_what_would_be_written(
    make: Callable[..., Any], pgrecall_template: Template
) -> None:
    """Written for ``deploy/pgbouncer/README.md``, which says with which command."""
    report = make(
        host="postgres.example.com",
        port=5432,
        pgbouncer_version="1.24.0",
        unchecked=True,
        settings=parse_settings(
            [
                "auth_file=/etc/pgbouncer/userlist.txt",
                "server_tls_sslmode=verify-full",
                "server_tls_ca_file=/etc/pgbouncer/ca.crt",
            ]
        ),
    )
    text = report.configuration.read_text().replace(pgrecall_template.name, "agent_memory")
    assert setting(report.configuration, "listen_addr") == "0.0.0.0"
    assert text == EXAMPLE.read_text()
