"""A restored database is one that people can go on working with."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.integration.backup.conftest import EPISODES, Create, databases, file_of

from pgrecall import Memory
from pgrecall.embedding.base import Embedder
from pgrecall.errors import BackupDamaged, InvalidInput, NotFound, OperationRefused
from pgrecall.ops import backup
from pgrecall.ops.verify import verify
from pgrecall.testing import Database


def request_for(database: Database, location: str, **options: Any) -> backup.RestoreRequest:
    return backup.RestoreRequest(
        **{"admin_dsn": database.admin_dsn, "location": location, **options}
    )


def test_into_a_new_database(
    filled: Database,
    create: Create,
    location: str,
    new_name: str,
    pgrecall_embedder: Embedder,
) -> None:
    create(filled)
    report = backup.restore(request_for(filled, location, to=new_name), settings=filled.settings)
    assert report.database == new_name
    assert report.notes == ()
    # The same roles may use it, with what they carried, and it is what the specification says.
    dsn = make_conninfo(filled.dsn, dbname=new_name)
    with Memory.open(dsn, embedder=pgrecall_embedder, settings=filled.settings) as memory:
        assert len(memory.episodes.list(limit=1000).items) == EPISODES
        memory.episodes.record(
            project_id="p0", agent_version="1", perception={}, reasoning={}, action={"new": True}
        )
    checks = verify(make_conninfo(filled.owner_dsn, dbname=new_name))
    assert [check for check in checks if check.status == "failed"] == []
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SHOW hnsw.ef_search").fetchone()
        assert row == ("100",)
    with psycopg.connect(make_conninfo(filled.admin_dsn, dbname=new_name)) as admin:
        row = admin.execute(
            "SELECT pg_get_userbyid(datdba), has_database_privilege('public', oid, 'CONNECT')"
            " FROM pg_database WHERE datname = current_database()"
        ).fetchone()
    assert row == (conninfo_to_dict(filled.owner_dsn)["user"], False)


def test_statistics_are_there_at_once(
    filled: Database, create: Create, location: str, new_name: str
) -> None:
    create(filled)
    backup.restore(request_for(filled, location, to=new_name), settings=filled.settings)
    with psycopg.connect(make_conninfo(filled.admin_dsn, dbname=new_name)) as admin:
        row = admin.execute(
            "SELECT reltuples, relallvisible > 0 FROM pg_class"
            " WHERE oid = 'agent_episodes'::regclass"
        ).fetchone()
    assert row == (EPISODES, True)


def test_not_over_one_that_exists(filled: Database, create: Create, location: str) -> None:
    create(filled)
    before = databases(filled.admin_dsn)
    with pytest.raises(OperationRefused, match=f"{filled.name} exists"):
        backup.restore(request_for(filled, location, to=filled.name), settings=filled.settings)
    assert databases(filled.admin_dsn) == before
    assert len(backup.list_backups(backup.open_storage(location))) == 1


def test_in_place_of_one_that_is_kept(
    filled: Database, create: Create, location: str, admin_dsn: str
) -> None:
    first = create(filled).manifest
    with psycopg.connect(filled.owner_dsn, autocommit=True) as owner:
        owner.execute("DELETE FROM agent_episodes")
        others = databases(admin_dsn)
        report = backup.restore(
            request_for(
                filled, location, to=filled.name, name=first.name, replace=True,
                admin_dsn=admin_dsn,
            ),
            settings=filled.settings,
        )  # fmt: skip
        with pytest.raises(psycopg.OperationalError):
            owner.execute("SELECT 1")  # whoever was connected has been asked to come again
    assert databases(admin_dsn) == others
    with psycopg.connect(filled.dsn) as connection:
        assert connection.execute("SELECT count(*) FROM agent_episodes").fetchone() == (EPISODES,)
        assert connection.execute("SHOW default_transaction_read_only").fetchone() == ("off",)
    found = {
        entry.name: entry.manifest for entry in backup.list_backups(backup.open_storage(location))
    }
    kept = found[str(report.replaced)]
    assert kept is not None
    assert {table.name: table.rows for table in kept.memory.tables}["agent_episodes"] == 0


def test_a_damaged_one_replaces_nothing(
    filled: Database, create: Create, location: str, admin_dsn: str
) -> None:
    report = create(filled)
    file = file_of(location, report)
    data = bytearray(file.read_bytes())
    data[-2000] ^= 1
    file.write_bytes(data)
    before = databases(admin_dsn)
    with pytest.raises(BackupDamaged, match="not what was stored"):
        backup.restore(
            request_for(filled, location, to=filled.name, replace=True, admin_dsn=admin_dsn),
            settings=filled.settings,
        )
    assert databases(admin_dsn) == before
    with psycopg.connect(filled.dsn) as connection:
        assert connection.execute("SELECT count(*) FROM agent_episodes").fetchone() == (EPISODES,)


def test_a_comparison_that_breaks_off_leaves_nothing(
    filled: Database, create: Create, location: str, new_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(filled)
    before = databases(filled.admin_dsn)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pgrecall.ops.backup.comparison.look", interrupted)
    with pytest.raises(KeyboardInterrupt):
        backup.restore(request_for(filled, location, to=new_name), settings=filled.settings)
    assert databases(filled.admin_dsn) == before


def test_a_failed_exchange_leaves_it_writable(
    filled: Database, create: Create, location: str, admin_dsn: str, tmp_path: Path
) -> None:
    create(filled)
    before = databases(admin_dsn)
    with pytest.raises(Exception, match="no public key"):
        backup.restore(
            request_for(
                filled, location, to=filled.name, replace=True, admin_dsn=admin_dsn,
                recipients=("age1nonsense",),
            ),
            settings=filled.settings,
        )  # fmt: skip
    assert databases(admin_dsn) == before
    with psycopg.connect(filled.dsn, autocommit=True) as connection:
        assert connection.execute("DELETE FROM agent_episodes").rowcount == EPISODES


def test_on_a_server_that_knows_no_one(filled: Database, create: Create, location: str) -> None:
    """Disaster: nothing is left but the backup."""
    from pgrecall.config import load_settings
    from pgrecall.ops.backup.scratch import scratch_server
    from pgrecall.ops.provision import dsn_for, init

    create(filled)
    with scratch_server(filled.settings, lambda _: None) as server:
        report = backup.restore(
            backup.RestoreRequest(
                admin_dsn=server.admin_dsn(), location=location, to="agent_memory"
            ),
            settings=filled.settings,
        )
        assert any("init" in note for note in report.notes)
        with psycopg.connect(server.admin_dsn("agent_memory")) as admin:
            row = admin.execute(
                "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
            ).fetchone()
            assert row == (conninfo_to_dict(filled.owner_dsn)["user"],)
        # `init` then takes it over, under the names of its own roles.
        settings = load_settings(config_dir=Path(location) / "config", database="agent_memory")
        init(server.admin_dsn(), settings=settings, dimensions=64)
        with psycopg.connect(dsn_for(settings, "app")) as connection:
            row = connection.execute("SELECT count(*) FROM agent_episodes").fetchone()
            assert row == (EPISODES,)


def test_names(filled: Database, create: Create, location: str) -> None:
    with pytest.raises(NotFound, match="no backup"):
        backup.restore(request_for(filled, location, to="x"), settings=filled.settings)
    create(filled)
    with pytest.raises(NotFound, match="no backup 'nonesuch'"):
        backup.restore(
            request_for(filled, location, to="x", name="nonesuch"), settings=filled.settings
        )
    with pytest.raises(NotFound, match="holds no database 'other'"):
        backup.restore(
            request_for(filled, location, to="x", source="other"), settings=filled.settings
        )
    with pytest.raises(InvalidInput, match="cannot name a database"):
        backup.restore(request_for(filled, location, to="x" * 64), settings=filled.settings)


def test_an_application_of_another_locale(
    filled: Database, create: Create, location: str, admin_dsn: str
) -> None:
    source, target = (f"app_{secrets.token_hex(4)}" for _ in range(2))
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'").format(
                sql.Identifier(source)
            )
        )
        try:
            admin.execute(
                sql.SQL("ALTER DATABASE {} SET search_path = app, public").format(
                    sql.Identifier(source)
                )
            )
            create(filled, also=(source,))
            backup.restore(
                request_for(filled, location, to=target, source=source), settings=filled.settings
            )
            with psycopg.connect(make_conninfo(admin_dsn, dbname=target)) as connection:
                assert connection.execute("SHOW server_encoding").fetchone() == ("LATIN1",)
                assert connection.execute("SHOW search_path").fetchone() == ("app, public",)
        finally:
            for name in (source, target):
                admin.execute(
                    sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
                )
