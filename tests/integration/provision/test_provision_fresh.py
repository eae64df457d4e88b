"""A database made from nothing: what is in it, who may do what, and that a second run is idle."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from pgrecall.config import Settings, load_settings
from pgrecall.migrations import HEAD, REVISIONS
from pgrecall.ops.provision import ROLES, dsn_for, init
from pgrecall.ops.provision.credentials import find_password, read_services

DENIED = psycopg.errors.InsufficientPrivilege


@pytest.fixture(scope="module")
def database(module_server: Any, module_settings: Settings) -> str:
    name = str(module_server.name())
    report = init(module_server.dsn, database=name, settings=module_settings)
    idle = [step.what for step in report.steps if step.state == "unchanged"]
    assert idle == ["ownership"]
    assert (report.dimensions, report.revision, report.adopted) == (1536, HEAD, False)
    return name


@pytest.fixture
def as_role(database: str, module_settings: Settings) -> Callable[[str], Any]:
    def connect(role: str) -> Any:
        return psycopg.connect(dsn_for(module_settings, role), autocommit=True)

    return connect


def test_the_database_is_as_specified(module_server: Any, database: str) -> None:
    tables = module_server.rows(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1", database
    )
    assert [row["tablename"] for row in tables] == [
        "agent_episodes",
        "agent_knowledge",
        "agent_memory_metrics",
        "agent_working_memory",
        "schema_version",
    ]
    indexes = module_server.rows(
        "SELECT indexname FROM pg_indexes WHERE indexdef LIKE '%hnsw%' ORDER BY 1", database
    )
    assert [row["indexname"] for row in indexes] == [
        "idx_episodes_embedding",
        "idx_knowledge_embedding",
    ]
    versions = module_server.rows("SELECT version FROM schema_version ORDER BY 1", database)
    assert tuple(row["version"] for row in versions) == REVISIONS
    assert module_server.value("SHOW server_encoding", database) == "UTF8"
    owners = module_server.rows(
        "SELECT DISTINCT pg_get_userbyid(relowner) AS owner FROM pg_class "
        "WHERE relname ~ '^(agent_|v_|schema_version|alembic|memory_size)'",
        database,
    )
    assert [row["owner"] for row in owners] == [f"{database}_owner"]


def test_a_second_run_changes_nothing(
    module_server: Any, module_settings: Settings, database: str
) -> None:
    before = module_server.snapshot(database)
    files = (module_settings.service_file, module_settings.password_file)
    stamps = [file.stat().st_mtime_ns for file in files]
    assert len(before) > 100
    report = init(module_server.dsn, database=database, settings=module_settings)
    assert {step.state for step in report.steps} == {"unchanged"}
    assert not report.changed
    assert module_server.snapshot(database) == before
    assert [file.stat().st_mtime_ns for file in files] == stamps


def test_the_snapshot_can_tell(module_server: Any, database: str) -> None:
    before = module_server.snapshot(database)
    module_server.run(f'GRANT SELECT ON agent_episodes TO "{database}_app"', database)
    assert module_server.snapshot(database) != before


@pytest.mark.parametrize("role", ROLES)
def test_each_role_logs_in(as_role: Callable[[str], Any], database: str, role: str) -> None:
    with as_role(role) as connection:
        row = connection.execute("SELECT current_user, current_database()").fetchone()
    assert row == (f"{database}_{role}", database)


@pytest.mark.parametrize("role", ROLES)
def test_stored_passwords_are_the_servers(
    module_server: Any, module_settings: Settings, database: str, role: str
) -> None:
    """The server may let anyone in without asking, so its verifier is computed anew."""
    stored = module_server.value(
        f"SELECT rolpassword FROM pg_authid WHERE rolname = '{database}_{role}'"
    )
    kind, parameters, keys = stored.split("$")
    iterations, salt = parameters.split(":")
    assert kind == "SCRAM-SHA-256"
    password = conninfo_to_dict(dsn_for(module_settings, role))["password"]
    salted = hashlib.pbkdf2_hmac(
        "sha256", str(password).encode(), base64.b64decode(salt), int(iterations)
    )
    client = hmac.digest(salted, b"Client Key", "sha256")
    assert base64.b64encode(hashlib.sha256(client).digest()).decode() == keys.split(":")[0]


def test_files_are_private(module_settings: Settings, database: str) -> None:
    assert module_settings.config_dir.stat().st_mode & 0o777 == 0o700
    for file in (module_settings.service_file, module_settings.password_file):
        assert file.stat().st_mode & 0o777 == 0o600


def test_services_work_for_every_client_of_libpq(
    module_settings: Settings, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSERVICEFILE", str(module_settings.service_file))
    with psycopg.connect("service=pgrecall_app") as connection:
        assert connection.info.user == f"{database}_app"
        assert connection.info.dbname == database


@pytest.mark.parametrize("role", ["owner", "app", "readonly"])
def test_roles_carry_the_settings(as_role: Callable[[str], Any], role: str) -> None:
    with as_role(role) as connection:
        values = [
            connection.execute(f"SHOW {name}").fetchone()[0]
            for name in ("hnsw.iterative_scan", "hnsw.ef_search", "plan_cache_mode")
        ]
    assert values == ["relaxed_order", "100", "force_custom_plan"]


RECORD = (
    "INSERT INTO agent_episodes (project_id, perception, reasoning, action, agent_version) "
    "VALUES ('p', '{}', '{}', '{}', '1')"
)


def allowed(connection: Any, statement: str) -> bool:
    """Try a statement, and take it back."""
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(statement)
    except DENIED:
        return False
    return True


RIGHTS = {
    # statement: the roles that may
    RECORD: {"owner", "app"},
    "UPDATE agent_knowledge SET confidence = 1": {"owner", "app"},
    "DELETE FROM agent_working_memory": {"owner", "app"},
    "SELECT record_memory_operation('x', 1, 1)": {"owner", "app"},
    "SELECT cleanup_expired_working_memory()": {"owner", "app"},
    "CREATE TEMP TABLE staging (line text)": {"owner", "app"},
    "SELECT * FROM agent_episodes": {"owner", "app", "readonly", "backup"},
    "SELECT * FROM schema_version": {"owner", "app", "readonly", "backup"},
    "SELECT * FROM pgrecall.alembic_version": {"owner", "app", "readonly", "backup"},
    "SELECT * FROM v_strategy_effectiveness": {"owner", "app", "readonly", "backup"},
    "SELECT * FROM v_memory_system_health": {"owner", "app", "readonly", "backup", "monitor"},
    "SELECT * FROM pgrecall.memory_size": {"owner", "app", "readonly", "backup", "monitor"},
    "SELECT pg_ls_waldir()": {"monitor"},
    "INSERT INTO schema_version VALUES ('9', now(), '')": {"owner"},
    "UPDATE pgrecall.alembic_version SET version_num = '9'": {"owner"},
    "TRUNCATE agent_episodes": {"owner"},
    "CREATE TABLE mine (id int)": {"owner"},
    "CREATE TABLE pgrecall.mine (id int)": {"owner"},
    "DROP TABLE agent_memory_metrics CASCADE": {"owner"},
    "CREATE ROLE another": set(),
}


@pytest.mark.parametrize("statement", RIGHTS, ids=lambda text: text[:40])
def test_each_role_may_do_what_it_needs(as_role: Callable[[str], Any], statement: str) -> None:
    may = set()
    for role in ROLES:
        with as_role(role) as connection:
            if allowed(connection, statement):
                may.add(role)
    assert may == RIGHTS[statement]


def test_backups_see_rows_under_row_level_security(
    module_server: Any, as_role: Callable[[str], Any], database: str
) -> None:
    module_server.run(f'SET ROLE "{database}_owner"; {RECORD}', database)
    module_server.run(
        "ALTER TABLE agent_episodes ENABLE ROW LEVEL SECURITY;"
        "ALTER TABLE agent_episodes FORCE ROW LEVEL SECURITY",
        database,
    )
    try:
        with as_role("backup") as connection:
            (seen,) = connection.execute("SELECT count(*) FROM agent_episodes").fetchone()
        with as_role("app") as connection:
            (hidden,) = connection.execute("SELECT count(*) FROM agent_episodes").fetchone()
    finally:
        module_server.run(
            "ALTER TABLE agent_episodes NO FORCE ROW LEVEL SECURITY;"
            "ALTER TABLE agent_episodes DISABLE ROW LEVEL SECURITY;"
            "DELETE FROM agent_episodes",
            database,
        )
    assert (seen, hidden) == (1, 0)


def test_later_objects_are_granted(
    module_server: Any, as_role: Callable[[str], Any], database: str
) -> None:
    module_server.run(
        f'SET ROLE "{database}_owner"; CREATE TABLE pgrecall.later (id int);'
        "CREATE TABLE public.later (id int)",
        database,
    )
    try:
        with as_role("app") as connection:
            assert allowed(connection, "INSERT INTO pgrecall.later VALUES (1)")
            assert allowed(connection, "SELECT * FROM public.later")
        with as_role("readonly") as connection:
            assert allowed(connection, "SELECT * FROM pgrecall.later")
            assert not allowed(connection, "INSERT INTO pgrecall.later VALUES (1)")
    finally:
        module_server.run("DROP TABLE pgrecall.later, public.later", database)


def test_strangers_stay_out(module_server: Any, database: str) -> None:
    stranger = module_server.role("stranger")
    assert not module_server.value(
        f"SELECT has_database_privilege('{stranger}', '{database}', 'CONNECT')"
    )


def test_surplus_rights_of_our_roles_are_taken_back(
    module_server: Any, module_settings: Settings, database: str
) -> None:
    module_server.run(
        f'GRANT DELETE ON agent_episodes TO "{database}_readonly";'
        f'REVOKE INSERT ON agent_episodes FROM "{database}_app"',
        database,
    )
    report = init(module_server.dsn, database=database, settings=module_settings)
    changed = {step.target: step.detail for step in report.steps if step.state == "changed"}
    assert changed == {
        f"{database}_readonly": "revoke DELETE on table public.agent_episodes",
        f"{database}_app": "grant INSERT on table public.agent_episodes",
    }
    again = init(module_server.dsn, database=database, settings=module_settings)
    assert not again.changed


def test_an_operators_setting_is_kept(
    module_server: Any, module_settings: Settings, database: str
) -> None:
    module_server.run(
        f'SELECT \'[1]\'::vector; ALTER ROLE "{database}_app" IN DATABASE "{database}" '
        "SET hnsw.ef_search = 250",
        database,
    )
    report = init(module_server.dsn, database=database, settings=module_settings)
    assert not report.changed
    with psycopg.connect(dsn_for(module_settings, "app")) as connection:
        assert connection.execute("SHOW hnsw.ef_search").fetchone() == ("250",)
    module_server.run(
        f'SELECT \'[1]\'::vector; ALTER ROLE "{database}_app" IN DATABASE "{database}" '
        "SET hnsw.ef_search = 100",
        database,
    )


def test_new_passwords_on_request(
    module_server: Any, module_settings: Settings, database: str
) -> None:
    old = dsn_for(module_settings, "app")
    report = init(
        module_server.dsn, database=database, settings=module_settings, reset_passwords=True
    )
    changed = [step.what for step in report.steps if step.state == "changed"]
    assert changed == ["passwords", *["role"] * 5]
    assert dsn_for(module_settings, "app") != old
    assert any("pgrecall pooler config" in note for note in report.notes)


def test_a_lost_password_is_reported(
    module_server: Any, module_settings: Settings, database: str
) -> None:
    text = module_settings.password_file.read_text()
    before = module_server.snapshot(database)
    module_settings.password_file.unlink()
    try:
        report = init(module_server.dsn, database=database, settings=module_settings)
        (note,) = [note for note in report.notes if "--reset-passwords" in note]
        assert f"{database}_app" in note
        assert not report.changed
        assert module_server.snapshot(database) == before
    finally:
        module_settings.password_file.write_text(text)
        module_settings.password_file.chmod(0o600)


def test_no_password_is_told(module_server: Any, module_settings: Settings, database: str) -> None:
    lines: list[str] = []
    report = init(
        module_server.dsn,
        database=database,
        settings=module_settings,
        reset_passwords=True,
        progress=lines.append,
    )
    services = read_services(module_settings.service_file)
    told = repr(report) + "".join(lines)
    for service in services.values():
        password = find_password(module_settings.password_file, service)
        assert password
        assert password not in told
        assert "password" not in service


def test_dry_run_from_nothing_creates_nothing(server: Any, settings: Settings) -> None:
    user = server.role("chronicle")
    before = server.snapshot()
    report = init(
        server.dsn, database=server.name(), grant_to=[user], settings=settings, dry_run=True
    )
    assert report.dry_run
    assert report.revision is None
    assert {step.state for step in report.steps} == {"would create", "would change"}
    assert {"role", "database", "extension", "revision", "grants", "services"} <= {
        step.what for step in report.steps
    }
    assert server.snapshot() == before
    assert not settings.config_dir.exists()


def test_the_single_user_of_the_specification(server: Any, settings: Settings) -> None:
    user, database = server.role("chronicle"), server.name()
    init(server.dsn, database=database, grant_to=[user], settings=settings)
    with server.connect(database) as connection:
        connection.execute(f'SET SESSION AUTHORIZATION "{user}"')
        connection.execute("CREATE TABLE test_table (id int)")
        connection.execute("DROP TABLE test_table")
        connection.execute(RECORD)
        connection.execute("ALTER TABLE agent_episodes ADD COLUMN extra int")
    granted = server.rows(
        "SELECT defaclobjtype::text AS kind, string_agg(privilege_type, ' ' "
        "ORDER BY privilege_type) AS rights FROM pg_default_acl, aclexplode(defaclacl) "
        f"WHERE grantee = '\"{user}\"'::regrole GROUP BY 1 ORDER BY 1",
        database,
    )
    assert granted == [
        {"kind": "S", "rights": "SELECT UPDATE USAGE"},
        {
            "kind": "r",
            "rights": "DELETE INSERT MAINTAIN REFERENCES SELECT TRIGGER TRUNCATE UPDATE",
        },
    ]
    assert not init(server.dsn, database=database, grant_to=[user], settings=settings).changed


@pytest.mark.parametrize("suffix", ["-Memory 2", 'quo"te', "Straße"])
def test_any_name_is_quoted(server: Any, settings: Settings, suffix: str) -> None:
    database, user = server.name(suffix), server.role('o"wner Two')
    init(server.dsn, database=database, grant_to=[user], settings=settings)
    second = init(server.dsn, database=database, grant_to=[user], settings=settings)
    assert not second.changed
    with psycopg.connect(dsn_for(settings, "app")) as connection:
        connection.execute(RECORD)
        assert connection.info.dbname == database


@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_locale(server: Any, settings: Settings, locale: str) -> None:
    init(server.dsn, database=server.name(), locale=locale, settings=settings)
    row = server.rows(
        "SELECT datlocale, datlocprovider::text AS provider FROM pg_database "
        "WHERE datname = current_database()",
        server.name(),
    )
    assert row == [{"datlocale": locale, "provider": "b"}]


def test_an_empty_database_is_taken(server: Any, settings: Settings) -> None:
    database = server.name()
    server.run(f"CREATE DATABASE \"{database}\" TEMPLATE template0 ENCODING 'UTF8'")
    report = init(server.dsn, database=database, dimensions=384, settings=settings)
    assert report.dimensions == 384
    assert not report.adopted
    stranger = server.role("stranger")
    assert not server.value(f"SELECT has_database_privilege('{stranger}', '{database}', 'CONNECT')")
    assert init(server.dsn, database=database, settings=settings).dimensions == 384


def test_extensions_may_lie_in_another_schema(server: Any, settings: Settings) -> None:
    database = server.name()
    server.run(f"CREATE DATABASE \"{database}\" TEMPLATE template0 ENCODING 'UTF8'")
    server.run("CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions;", database)
    server.run("GRANT USAGE ON SCHEMA extensions TO PUBLIC", database)
    init(server.dsn, database=database, dimensions=3, settings=settings)
    with psycopg.connect(dsn_for(settings, "app")) as connection:
        connection.execute("SELECT '[1,2,3]'::vector <=> '[1,2,4]'::vector")
    assert not init(server.dsn, database=database, settings=settings).changed


def test_a_public_schema_of_the_old_kind(server: Any, settings: Settings) -> None:
    database = server.name()
    server.run(f"CREATE DATABASE \"{database}\" TEMPLATE template0 ENCODING 'UTF8'")
    server.run("ALTER SCHEMA public OWNER TO CURRENT_USER", database)
    report = init(server.dsn, database=database, dimensions=3, settings=settings)
    assert ("schema", "public") in {(step.what, step.target) for step in report.steps}
    assert not init(server.dsn, database=database, settings=settings).changed


def test_a_locale_that_came_too_late_is_noted(server: Any, settings: Settings) -> None:
    for _ in range(2):
        report = init(server.dsn, database=server.name(), locale="C", settings=settings)
        assert report.notes == ()
    report = init(server.dsn, database=server.name(), locale="C.UTF-8", settings=settings)
    assert "stays C" in report.notes[0]
    assert not report.changed


class Killed(BaseException):
    """Stands for the end of the process."""


def test_stopped_after_any_step_the_next_run_completes(server: Any, settings: Settings) -> None:
    """Each run dies after the first thing that it changed."""
    database, user = server.name(), server.role("chronicle")
    changes: list[str] = []

    def die(line: str) -> None:
        if ": unchanged" not in line:
            changes.append(line)
            raise Killed

    for _ in range(60):
        try:
            init(server.dsn, database=database, grant_to=[user], settings=settings, progress=die)
        except Killed:
            continue
        break
    assert len(changes) > 20
    assert len(changes) == len(set(changes))
    before = server.snapshot(database)
    assert not init(server.dsn, database=database, grant_to=[user], settings=settings).changed
    assert server.snapshot(database) == before
    assert not server.value(
        "SELECT has_database_privilege('pg_monitor', current_database(), 'CONNECT')", database
    )
    with psycopg.connect(dsn_for(settings, "app")) as connection:
        connection.execute(RECORD)


def test_two_at_once(server: Any, settings: Settings, tmp_path: Any) -> None:
    reports: list[Any] = []

    def run(number: int) -> None:
        own = load_settings(config_dir=tmp_path / str(number))
        try:
            reports.append(init(server.dsn, database=server.name(), settings=own))
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            reports.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [getattr(report, "revision", report) for report in reports] == [HEAD, HEAD]
