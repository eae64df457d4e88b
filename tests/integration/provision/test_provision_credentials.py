"""The service and password files: ours are found, others' are kept, none is readable by others."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgrecall.config import Settings, load_settings
from pgrecall.driver import connect
from pgrecall.errors import ConfigurationError
from pgrecall.ops.provision import dsn_for
from pgrecall.ops.provision.credentials import (
    carried_parameters,
    find_password,
    new_password,
    read_services,
    write_passwords,
    write_services,
)

SERVICE = {"host": "db.example", "port": "5433", "dbname": "mem", "user": "mem_app"}


def test_what_others_wrote_is_kept(settings: Settings) -> None:
    settings.config_dir.mkdir()
    settings.service_file.write_text("# mine\n[other]\nhost=h\n\n[pgrecall_app]\nhost=old\n")
    settings.password_file.write_text("# mine\n*:*:*:me:sec\\:ret\n")
    assert write_services(settings.service_file, {"pgrecall_app": SERVICE})
    assert write_passwords(settings.password_file, [(SERVICE, "a:b\\c")])
    assert settings.service_file.read_text() == (
        "# mine\n[other]\nhost=h\n\n[pgrecall_app]\n"
        "host=db.example\nport=5433\ndbname=mem\nuser=mem_app\n"
    )
    assert settings.password_file.read_text() == (
        "db.example:5433:mem:mem_app:a\\:b\\\\c\n# mine\n*:*:*:me:sec\\:ret\n"
    )
    assert find_password(settings.password_file, SERVICE) == "a:b\\c"
    assert find_password(settings.password_file, {**SERVICE, "user": "me"}) == "sec:ret"
    assert find_password(settings.password_file, {**SERVICE, "user": "you"}) is None
    for file in (settings.service_file, settings.password_file):
        assert file.stat().st_mode & 0o777 == 0o600


def test_writing_the_same_again_touches_nothing(settings: Settings) -> None:
    for expected in (True, False):
        assert write_services(settings.service_file, {"pgrecall_app": SERVICE}) is expected
        assert write_passwords(settings.password_file, [(SERVICE, "secret")]) is expected
    settings.password_file.chmod(0o644)
    assert write_passwords(settings.password_file, [(SERVICE, "secret")])
    assert settings.password_file.stat().st_mode & 0o777 == 0o600
    assert list(settings.config_dir.glob(".*")) == []


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ({"host": "db.example", "port": "5433"}, {"host": "db.example", "port": "5433"}),
        ({"host": "/run/a dir", "port": "5433"}, {"host": "/run/a dir", "port": "5433"}),
        ({"host": "::1", "port": "5433"}, {"host": "::1", "port": "5433"}),
        ({"host": "a,b", "port": "1,2"}, {"host": "a,b", "port": "1,2"}),
        ({"host": "a,b", "port": "1"}, {"host": "a,b", "port": "1,1"}),
        (
            {"host": "h", "port": "1", "sslmode": "verify-full", "sslrootcert": "/a b/ca.pem"},
            {"sslmode": "verify-full", "sslrootcert": "/a b/ca.pem"},
        ),
    ],
)
def test_the_connection_string(
    settings: Settings, way: dict[str, str], expected: dict[str, str]
) -> None:
    service = {**way, "dbname": 'My "d/b"', "user": "My app"}
    write_services(settings.service_file, {"pgrecall_app": service})
    write_passwords(settings.password_file, [(service, "p@ss/wörd:%")])
    parts = conninfo_to_dict(dsn_for(settings, "app"))
    assert expected.items() <= parts.items()
    assert (parts["dbname"], parts["user"]) == ('My "d/b"', "My app")
    assert parts["password"] == "p@ss/wörd:%"


def test_what_is_carried(admin_dsn: str) -> None:
    with psycopg.connect(admin_dsn) as connection:
        info = connection.info
        several = f"host=10.255.255.1,{info.host} port=1,{info.port} user=me password=secret"
        carried = carried_parameters(f"{several} sslmode=require", connection)
        assert carried["host"] == f"10.255.255.1,{info.host}"
        assert carried["port"] == f"1,{info.port}"
        assert not {"user", "password", "dbname", "application_name"} & carried.keys()
        bare = carried_parameters("user=me", connection)
        assert (bare["host"], bare["port"]) == (info.host, str(info.port))


def test_missing_entries_name_the_command(settings: Settings) -> None:
    with pytest.raises(ConfigurationError) as error:
        dsn_for(settings, "app")
    assert "pgrecall init" in str(error.value.hint)
    write_services(settings.service_file, {"pgrecall_app": SERVICE})
    with pytest.raises(ConfigurationError) as error:
        dsn_for(settings, "app")
    assert "--reset-passwords" in str(error.value.hint)
    with pytest.raises(ConfigurationError, match="'boss'"):
        dsn_for(settings, "boss")


def test_passwords_differ_and_need_no_quoting() -> None:
    passwords = {new_password() for _ in range(100)}
    assert len(passwords) == 100
    assert all(
        len(password) >= 32 and not set(password) & set(":\\'\" /@") for password in passwords
    )


def test_a_directory_is_made_private(tmp_path: Path) -> None:
    settings = load_settings(config_dir=tmp_path / "a" / "b")
    write_services(settings.service_file, {"pgrecall_app": SERVICE})
    assert settings.config_dir.stat().st_mode & 0o777 == 0o700
    assert read_services(settings.service_file)["pgrecall_app"] == SERVICE


def test_what_we_add_ourselves_is_not_carried(admin_dsn: str) -> None:
    # A driver that isn't libpq refuses parameters that it doesn't know.
    with connect(admin_dsn, purpose="test") as connection:
        assert connection.info.get_parameters()["tcp_user_timeout"] == "60000"
        names = carried_parameters(admin_dsn, connection)
        assert not {name for name in names if name.startswith(("keepalives", "tcp_"))}
        stated = f"{make_conninfo(admin_dsn)} keepalives_idle=77"
    with connect(stated, purpose="test") as connection:
        assert carried_parameters(stated, connection)["keepalives_idle"] == "77"
