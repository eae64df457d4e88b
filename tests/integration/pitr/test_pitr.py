"""Recovery to a point in time, on servers of the tests' own."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from tests.postgresql_17 import programs
from typer.testing import CliRunner

from pgrecall.cli import pitr as commands
from pgrecall.config import Settings, load_settings
from pgrecall.engine import EmbeddedServer
from pgrecall.engine.osuser import server_user
from pgrecall.errors import BackupDamaged, BackupError, InvalidInput, OperationRefused
from pgrecall.ops import pitr
from pgrecall.ops.provision import init

DATABASE = "moments"
ROOMS = (Path("/dev/shm"), Path(tempfile.gettempdir()))


def silent(_text: str) -> None:
    """Take no notice of progress."""


@contextmanager
def directory() -> Iterator[Path]:
    """Give a directory that every user can enter, in memory where there is room."""
    room = next(r for r in ROOMS if os.access(r, os.W_OK) and shutil.disk_usage(r).free > 2**31)
    made = Path(tempfile.mkdtemp(prefix="pgr-", dir=room))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made)


@dataclass
class Original:
    """A server with a memory, and a table in it that says what was there when."""

    settings: Settings
    server: EmbeddedServer
    folder: Path

    @property
    def place(self) -> pitr.Place:
        return pitr.place_of(self.settings, None)

    @property
    def where(self) -> tuple[str, str]:
        return ("--data-dir", str(self.settings.data_dir))

    def ask(self, query: str) -> list[Any]:
        return ask(self.server, query)

    def say(self, text: str) -> datetime:
        """Write a row, and return a time after it and before all that follows."""
        self.ask(f"INSERT INTO said VALUES ('{text}') RETURNING text")
        return datetime.fromisoformat(str(self.ask("SELECT clock_timestamp()::text")[0]))

    def base(self, *, full: bool = False) -> pitr.Base:
        return pitr.base_backup(self.settings, full=full, progress=silent).backup

    def status(self) -> pitr.StatusReport:
        return pitr.status(self.settings, progress=silent)

    @contextmanager
    def recovered(self, time: datetime) -> Iterator[tuple[pitr.RecoverReport, EmbeddedServer]]:
        into = self.folder / "recovered"
        server = EmbeddedServer(into, pg_bin=self.settings.pg_bin)
        try:
            yield pitr.recover(self.settings, time_=time, into=into, progress=silent), server
        finally:
            if into.exists():
                server.destroy(force=True)

    def refused(self, time: datetime) -> None:
        """Try to recover, and see that nothing is left of it."""
        into = self.folder / "refused"
        try:
            pitr.recover(self.settings, time_=time, into=into, progress=silent)
        finally:
            assert not into.exists()


def ask(server: EmbeddedServer, query: str) -> list[Any]:
    with psycopg.connect(server.admin_dsn(DATABASE), autocommit=True) as connection:
        return [row[0] for row in connection.execute(query.encode()).fetchall()]


def said(server: EmbeddedServer) -> list[str]:
    return ask(server, "SELECT text FROM said ORDER BY number")


@contextmanager
def original(pg_bin: Path | None = None) -> Iterator[Original]:
    with directory() as folder:
        settings = load_settings(
            data_dir=folder / "data",
            config_dir=folder / "config",
            database=DATABASE,
            pg_bin=pg_bin,
        )
        server = EmbeddedServer(settings.data_dir, pg_bin=pg_bin)
        server.start()
        try:
            dsn = server.admin_dsn()
            init(dsn, database=DATABASE, dimensions=8, settings=settings)
            with psycopg.connect(server.admin_dsn(DATABASE), autocommit=True) as connection:
                connection.execute(
                    "CREATE TABLE said (text text, number int GENERATED ALWAYS AS IDENTITY)"
                )
            yield Original(settings, server, folder)
        finally:
            server.destroy(force=True)


@dataclass
class Moments:
    """A server with a chain of backups, and times at which something was known."""

    original: Original
    full: pitr.Base
    incremental: pitr.Base
    after_full: datetime
    before_delete: datetime


@pytest.fixture(scope="module")
def moments() -> Iterator[Moments]:
    """Rows, a full backup, rows, an incremental one, rows; then all of them are deleted."""
    with original() as made:
        pitr.setup(made.settings, progress=silent)
        made.say("before")
        full = made.base()
        after_full = made.say("after the full one")
        incremental = made.base()
        before_delete = made.say("after the incremental one")
        made.ask("DELETE FROM said RETURNING text")
        made.say("too late")
        yield Moments(made, full, incremental, after_full, before_delete)


def segments(made: Original) -> list[Path]:
    """Return the archived segments, oldest first."""
    return sorted(entry for entry in made.place.wal.iterdir() if len(entry.name) == 24)


def number(entry: Path) -> int:
    return int(entry.name[8:16], 16) * 256 + int(entry.name[16:], 16)


def flip(file: Path, place: int) -> None:
    with file.open("r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([byte ^ 1]))


def test_setup_refuses_to_cut_clients_off() -> None:
    with original() as made:
        with (
            psycopg.connect(made.server.admin_dsn(DATABASE)),
            pytest.raises(OperationRefused, match=r"1 client\(s\) are connected"),
        ):
            pitr.setup(made.settings, progress=silent)
        assert made.ask("SHOW archive_library") == [""]
        assert not made.place.directory.exists()
        with pytest.raises(OperationRefused, match="not set up"):
            made.base()

        with psycopg.connect(made.server.admin_dsn(DATABASE)) as client:
            report = pitr.setup(made.settings, force=True, progress=silent)
            with pytest.raises(psycopg.OperationalError):
                client.execute("SELECT 1")
        assert report.restarted
        assert report.segment is not None
        assert (report.directory / "wal" / report.segment).is_file()
        assert report.directory.stat().st_mode & 0o077 == (0o011 if os.geteuid() == 0 else 0)
        for part in ("wal", "base"):
            status = (report.directory / part).stat()
            assert (status.st_mode & 0o777, status.st_uid) == (0o700, server_user().uid)

        again = pitr.setup(made.settings, progress=silent)
        assert (again.changed, again.restarted) == ((), False)


def test_setup_leaves_other_archiving_alone() -> None:
    with original() as made:
        made.server.stop()
        conf = made.settings.data_dir / "cluster" / "postgresql.auto.conf"
        with conf.open("a", encoding="utf-8") as stream:
            stream.write("archive_mode = on\narchive_command = '/bin/true'\n")
        made.server.start()
        with pytest.raises(OperationRefused, match=r"archives its WAL already.*/bin/true"):
            pitr.setup(made.settings, progress=silent)
        assert made.ask("SHOW archive_library") == [""]


def test_a_chain_is_recorded(moments: Moments) -> None:
    assert (moments.full.kind, moments.incremental.kind) == ("full", "incremental")
    assert moments.incremental.parent == moments.full.name
    assert moments.incremental.bytes < moments.full.bytes
    runs = moments.original.ask(
        "SELECT detail->>'kind' FROM pgrecall.task_runs WHERE task = 'base_backup' AND succeeded"
        " AND bytes > 0 ORDER BY finished_at"
    )
    assert runs[:2] == ["full", "incremental"]


def test_the_moment_before_a_delete(moments: Moments) -> None:
    with moments.original.recovered(moments.before_delete) as (report, server):
        assert said(server) == ["before", "after the full one", "after the incremental one"]
        assert report.backups == (moments.full.name, moments.incremental.name)
        assert report.last_commit is not None
        assert report.last_commit <= moments.before_delete
        (memory,) = [found for found in report.databases if found.name == DATABASE]
        assert memory.rows["public.said"] == 3
        assert next(iter(memory.rows)) == "public.agent_episodes"

        # It is an embedded server like any other, and writes nothing into the original's archive.
        assert ask(server, "SHOW archive_mode") == ["off"]
        assert ask(server, "SHOW restore_command") == [""]
        assert ask(server, "INSERT INTO said VALUES ('of the copy') RETURNING text")
        assert server.stop()
        server.start()
        assert said(server)[-1] == "of the copy"
        wal = moments.original.place.wal
        assert not [entry.name for entry in wal.iterdir() if entry.name.startswith("00000002")]
    assert said(moments.original.server) == ["too late"]


def test_a_moment_between_the_backups(moments: Moments) -> None:
    with moments.original.recovered(moments.after_full) as (report, server):
        assert said(server) == ["before", "after the full one"]
        assert report.backups == (moments.full.name,)


def test_without_the_original(moments: Moments) -> None:
    made = moments.original
    pitr.setup(made.settings, progress=silent)  # so that the last segments are archived
    made.server.stop()
    lost = made.folder / "lost"
    made.settings.data_dir.rename(lost)
    try:
        report = made.status()
        assert report.archiver is None
        assert moments.before_delete in report.windows[0]
        with made.recovered(moments.before_delete) as (_, server):
            assert said(server) == ["before", "after the full one", "after the incremental one"]
    finally:
        lost.rename(made.settings.data_dir)
        made.server.start()


def test_postgresql_17() -> None:
    with original(programs()) as made:
        pitr.setup(made.settings, progress=silent)
        made.base()
        made.say("first")
        made.base()
        moment = made.say("second")
        made.ask("DELETE FROM said RETURNING text")
        with made.recovered(moment) as (report, server):
            assert [b.rpartition("-")[2] for b in report.backups] == ["full", "incremental"]
            assert said(server) == ["first", "second"]
        pitr.prune(made.settings, keep=1, progress=silent)
        with pytest.raises(OperationRefused, match="are of PostgreSQL 17, and the one installed"):
            pitr.recover(
                load_settings(data_dir=made.settings.data_dir),
                time_=moment,
                into=made.folder / "other",
                progress=silent,
            )


@pytest.mark.root
def test_into_a_directory_that_the_servers_user_cannot_enter(moments: Moments) -> None:
    closed = moments.original.folder / "closed"
    closed.mkdir(mode=0o700)
    server = EmbeddedServer(closed / "recovered")
    pitr.recover(
        moments.original.settings,
        time_=moments.after_full,
        into=server.data_dir,
        progress=silent,
    )
    try:
        assert said(server) == ["before", "after the full one"]
    finally:
        server.destroy(force=True)


def test_times_outside_of_the_window(moments: Moments) -> None:
    made = moments.original
    with pytest.raises(InvalidInput, match="before the first base backup, which ended at"):
        made.refused(moments.full.ended - timedelta(milliseconds=1))
    with pytest.raises(InvalidInput, match="after what is archived") as caught:
        made.refused(datetime.now(UTC) + timedelta(hours=1))
    assert "what can be recovered: " in str(caught.value.hint)
    (window,) = made.status().windows
    assert window.since == moments.full.ended
    assert moments.before_delete in window


def test_a_directory_that_holds_something(moments: Moments, tmp_path: Path) -> None:
    kept = tmp_path / "mine"
    kept.write_text("mine", encoding="utf-8")
    with pytest.raises(OperationRefused, match="holds something"):
        pitr.recover(
            moments.original.settings,
            time_=moments.before_delete,
            into=tmp_path,
            progress=silent,
        )
    assert kept.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("which", ["full", "incremental"])
def test_a_flipped_byte_is_found_by_name(moments: Moments, which: str) -> None:
    backup: pitr.Base = getattr(moments, which)
    folder = moments.original.place.backup(backup.name)
    file = max((folder / "base").rglob("*"), key=lambda path: path.stat().st_size)
    place = file.stat().st_size // 2
    flip(file, place)
    try:
        with pytest.raises(BackupDamaged, match=backup.name) as caught:
            moments.original.refused(moments.before_delete)
        assert f'"{file.relative_to(folder)}"' in str(caught.value)
    finally:
        flip(file, place)


def test_a_missing_segment_is_named(moments: Moments) -> None:
    made = moments.original
    for _ in range(2):  # two more after it, so that it is a gap and not the end
        pitr.setup(made.settings, progress=silent)
    gone = next(entry for entry in segments(made) if number(entry) > moments.incremental.stop)
    aside = made.folder / gone.name
    gone.rename(aside)
    try:
        with pytest.raises(BackupDamaged, match=f"WAL segment {gone.name} is missing"):
            made.refused(moments.before_delete)
        assert gone.name in [window.missing for window in made.status().windows]
        shown = CliRunner().invoke(commands.app, ["status", "--table", *made.where])
        assert shown.exit_code == 1
        assert f"WAL segment {gone.name} is missing" in shown.stdout
    finally:
        aside.rename(gone)


def test_an_unreadable_segment_is_named(moments: Moments) -> None:
    file = segments(moments.original)[-1]
    whole = file.read_bytes()
    file.write_bytes(b"\0" * len(whole))
    try:
        with pytest.raises(BackupDamaged, match=rf"{file.name}.*cannot be read"):
            moments.original.status()
    finally:
        file.write_bytes(whole)


def test_an_archive_that_cannot_be_written(moments: Moments) -> None:
    made = moments.original
    pitr.setup(made.settings, progress=silent)
    before = [backup.name for backup in made.place.backups()]
    made.place.wal.chmod(0o500)
    try:
        # What is archived already can still be recovered.
        with made.recovered(moments.after_full) as (_, server):
            assert said(server) == ["before", "after the full one"]
        with pytest.raises(BackupError, match="did not arrive in"):
            made.base()
    finally:
        made.place.wal.chmod(0o700)
    assert [backup.name for backup in made.place.backups()] == before
    assert not made.place.unfinished()
    failed = made.ask(
        "SELECT detail->>'error' FROM pgrecall.task_runs"
        " WHERE task = 'base_backup' AND NOT succeeded"
    )
    assert "did not arrive" in failed[-1]
    # The server tries again by itself, in a minute at the latest; what had waited arrives.
    pitr.setup(made.settings, progress=silent)
    assert made.status().windows[-1].missing is None


def test_prune_keeps_what_is_needed() -> None:
    with original() as made:
        pitr.setup(made.settings, progress=silent)
        old = made.base()
        first = made.say("first")
        made.base()
        new = made.base(full=True)
        second = made.say("second")
        made.ask("DELETE FROM said RETURNING text")
        left = made.place.base / "20260101T000000Z-full"
        left.mkdir()
        server_user().own(left)

        planned = pitr.prune(made.settings, keep=1, dry_run=True, progress=silent)
        assert left.exists()
        done = pitr.prune(made.settings, keep=1, progress=silent)
        assert done.deleted[0] == old.name
        assert len(done.deleted) == 2
        assert (planned.deleted, planned.segments) == (done.deleted, done.segments)
        assert (done.kept, done.unfinished) == ((new.name,), (left.name,))
        assert done.segments > 0
        assert [entry.name for entry in made.place.base.iterdir()] == [new.name]
        with pytest.raises(InvalidInput, match="before the first base backup"):
            made.refused(first)
        with made.recovered(second) as (_, server):
            assert said(server) == ["first", "second"]
        again = pitr.prune(made.settings, keep=1, progress=silent)
        assert (again.deleted, again.segments) == ((), 0)


def test_another_server_by_its_connection_string() -> None:
    """The embedded server, as if it were one that we know nothing of but how to connect."""
    with original() as made, directory() as elsewhere:
        at, dsn = elsewhere / "pitr", made.server.admin_dsn()
        with pytest.raises(InvalidInput, match="no directory"):
            pitr.setup(made.settings, dsn=dsn, progress=silent)
        report = pitr.setup(made.settings, dsn=dsn, at=at, progress=silent)
        assert not report.restarted
        assert report.segment is None
        assert report.restart_with is not None
        assert report.restart_with.endswith(f"restart -D {made.settings.data_dir}/cluster")
        with pytest.raises(OperationRefused, match="does not archive"):
            pitr.base_backup(made.settings, dsn=dsn, at=at, progress=silent)
        made.server.stop()
        made.server.start()
        assert pitr.setup(made.settings, dsn=dsn, at=at, progress=silent).segment
        backup = pitr.base_backup(made.settings, dsn=dsn, at=at, progress=silent).backup
        assert not backup.embedded
        moment = made.say("there")
        made.ask("DELETE FROM said RETURNING text")
        server = EmbeddedServer(elsewhere / "recovered")
        pitr.recover(
            made.settings, time_=moment, into=server.data_dir, dsn=dsn, at=at, progress=silent
        )
        try:
            assert said(server) == ["there"]
            # The administrator's password is its own: the original's need not be known.
            own, others = (conninfo_to_dict(d)["password"] for d in (server.admin_dsn(), dsn))
            assert own != others
            assert server.stop()
            server.start()
        finally:
            server.destroy(force=True)


def test_the_commands(moments: Moments) -> None:
    made = moments.original

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(commands.app, [*arguments, *made.where])
        assert done.exit_code == 0, done.output
        return done.stdout

    seen = json.loads(run("status", "--json"))
    assert seen["backups"][0]["name"] == moments.full.name
    assert seen["archiver"]["failing"] is False
    assert "can be recovered: " in run("status", "--table")
    assert "files of WAL would be deleted" in run("prune", "--dry-run", "--table")
    told = run("base", "--table", "--database", DATABASE)
    assert "compared with its manifest" in told
    assert "could not be recorded" not in told
    assert " arrived in " in run("setup", "--table")
    into = made.folder / "by-command"
    told = run(
        "recover", "--table", "--time", moments.after_full.isoformat(), "--into", str(into),
        "--database", DATABASE,
    )  # fmt: skip
    try:
        assert "public.said: 2 rows" in told
    finally:
        EmbeddedServer(into).destroy(force=True)
