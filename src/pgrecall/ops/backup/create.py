"""``backup create``: one snapshot, dumped, described, encrypted and stored in a stream."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from itertools import count
from typing import Any, BinaryIO, cast

import psycopg
from psycopg.types.json import Jsonb

from pgrecall.config import Settings
from pgrecall.errors import InvalidInput, PgrecallError
from pgrecall.ops.backup import description, encryption, manifest, tools
from pgrecall.ops.backup.manifest import Database, Manifest, Role, Surroundings, Table
from pgrecall.ops.backup.session import QUERIES, Session, open_session
from pgrecall.ops.backup.storage import Storage, open_storage
from pgrecall.ops.pace import Pace
from pgrecall.targets import Progress, silent

_CHUNK = 1 << 20
_LOCK_WAIT = "60s"
_EXCLUDED = "pgrecall_pooler"
"""Belongs to a superuser and to PgBouncer's configuration; `pooler config` makes it anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupRequest:
    """What to back up, and how.

    Attributes:
        dsn: Connection string of a role that sees everything, past a pooler.
        location: Where it goes.
        also: Other databases of the server to dump beside it.
        recipients: age public keys; none leaves it unencrypted.
        compress: pg_dump's method and level. gzip is what every build of pg_restore reads.
        memory: Whether the database that ``dsn`` names is an agent memory; else it is an
            application's, and its run is not recorded.
        record: Whether to record the run in the memory.
    """

    dsn: str
    location: str
    also: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    compress: str = "gzip:1"
    memory: bool = True
    record: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateReport:
    """A backup that was made.

    Attributes:
        manifest: What it says of itself.
        location: Where it is.
        duration_seconds: How long it took.
        recorded: Whether the run could be recorded in the database.
    """

    manifest: Manifest
    location: str
    duration_seconds: float
    recorded: bool


def create(
    request: BackupRequest, *, settings: Settings, progress: Progress | None = None
) -> CreateReport:
    """Back up a memory, and other databases of its server if asked to.

    Args:
        request: What to back up.
        settings: Name the embedder and where PostgreSQL's programs are.
        progress: Called with a line of text as it goes on.

    Raises:
        ConfigurationError: A program, key or location is missing or wrong.
        OperationRefused: The connection leads through a pooler.
        InvalidInput: ``also`` names the memory itself.
        BackupError: It could not be made; nothing counts as a backup.
        DatabaseError: The server failed.
    """
    say = progress or silent
    started = time.monotonic()
    storage = open_storage(request.location)
    recipients = encryption.parse_recipients(request.recipients)
    with open_session(request.dsn) as session:
        began = datetime.now(UTC)
        try:
            made = _create(session, request, recipients, storage, settings, say)
        except PgrecallError as error:
            if request.memory and request.record:
                record_run(session.connection, "backup", began, error=error)
            raise
        recorded = (
            request.memory
            and request.record
            and record_run(
                session.connection,
                "backup",
                began,
                bytes_=made.bytes,
                detail={
                    "name": made.name,
                    "location": storage.address,
                    "databases": [database.name for database in made.databases],
                },
            )
        )
    return CreateReport(
        manifest=made,
        location=storage.address,
        duration_seconds=time.monotonic() - started,
        recorded=recorded,
    )


def _create(
    session: Session,
    request: BackupRequest,
    recipients: list[object],
    storage: Storage,
    settings: Settings,
    say: Progress,
) -> Manifest:
    server = session.one("server")
    if server["database"] in request.also:
        raise InvalidInput(f"--also {server['database']} is the database that is backed up anyway")
    pg_dump = tools.find("pg_dump", settings, server_major=server["major"])
    began: datetime = server["now"]
    name = _unused(storage, f"{server['database']}-{began.astimezone(UTC):%Y%m%dT%H%M%SZ}")
    databases: list[Database] = []
    roles: dict[str, Role] = {}
    try:
        for number, database in enumerate((None, *request.also)):
            kind = "memory" if number == 0 and request.memory else "also"
            with _opened(session, request.dsn, database) as one:
                dump = _Dump(one, kind, name, pg_dump, request.compress, recipients, settings)
                databases.append(dump.run(storage, say))
                roles |= {role.name: role for role in dump.roles}
        from pgrecall import __version__

        made = Manifest(
            name=name,
            started_at=began,
            finished_at=datetime.now(UTC),
            pgrecall=__version__,
            pg_dump=pg_dump.version,
            server=server["version"],
            recipients=request.recipients,
            databases=tuple(databases),
            roles=tuple(roles.values()),
        )
        with storage.open_write(name, manifest.FILE) as stream:
            stream.write(manifest.dump(made))
    except BaseException:
        if name in storage.folders():
            storage.delete(name)
        raise
    return made


@contextmanager
def _opened(session: Session, dsn: str, database: str | None) -> Iterator[Session]:
    if database is None:
        yield session
        return
    with open_session(dsn, database) as other:
        yield other


class _Dump:
    """One database on its way into the storage."""

    def __init__(
        self,
        session: Session,
        kind: str,
        backup: str,
        pg_dump: tools.Program,
        compress: str,
        recipients: list[object],
        settings: Settings,
    ) -> None:
        self._session = session
        self._kind = kind
        self._backup = backup
        self._pg_dump = pg_dump
        self._compress = compress
        self._recipients = recipients
        self._settings = settings
        self.roles = description.roles(session)

    def run(self, storage: Storage, say: Progress) -> Database:
        """Dump, describe and store; the description is of the very snapshot that is dumped."""
        session = self._session
        name = session.connection.info.dbname
        file = f"{name}.dump" + (".age" if self._recipients else "")
        session.rows("plain_output")
        session.connection.execute(session.texts["snapshot"])
        try:
            snapshot = session.one("export_snapshot")["snapshot"]
            description.refuse_hidden_rows(session)
            revision, dimensions = description.revision(session)
            memory = self._kind == "memory" and dimensions is not None
            sizes = session.rows("sizes")
            expected = sum(row["bytes"] for row in sizes if row["is_table"])
            with self._counting() as counted:
                length, sha256 = self._store(storage, file, snapshot, expected, say)
                say(f"{name}: counting rows and summing them up")
                tables = counted.result()
            return Database(
                **_fields(description.surroundings(session)),
                name=name,
                kind=cast("manifest.Kind", self._kind),
                file=file,
                bytes=length,
                sha256=sha256,
                revision=revision,
                dimensions=dimensions,
                embedder=self._settings.embedder if memory else None,
                tables=tables,
                indexes=tuple(row["name"] for row in session.rows("indexes") if row["valid"]),
                constraints=tuple(row["name"] for row in session.rows("constraints")),
                probes=description.probes(session) if memory else (),
                sizes={row["name"]: row["bytes"] for row in sizes},
            )
        finally:
            session.connection.rollback()

    @contextmanager
    def _counting(self) -> Iterator[Future[tuple[Table, ...]]]:
        """Count and sum up in the same snapshot while pg_dump reads; both take about as long."""
        with ThreadPoolExecutor(1, "counting") as pool:
            try:
                yield pool.submit(lambda: tuple(description.tables(self._session)))
            except BaseException:
                self._session.connection.cancel_safe()
                raise

    def _store(
        self, storage: Storage, file: str, snapshot: str, expected: int, say: Progress
    ) -> tuple[int, str]:
        """Send pg_dump's output into the storage; return its length and SHA-256 there."""
        arguments = [
            "--format=custom",
            f"--compress={self._compress}",
            f"--snapshot={snapshot}",
            f"--lock-wait-timeout={_LOCK_WAIT}",
            f"--exclude-schema={_EXCLUDED}",
        ]
        connection = self._session.connection
        doing = f"dump {connection.info.dbname}"
        with (
            tools.environment(connection) as env,
            tempfile.TemporaryFile() as words,
            storage.open_write(self._backup, file) as stream,
        ):
            counted = _Counted(stream, say, connection.info.dbname, expected)
            process = subprocess.Popen(  # noqa: S603
                [self._pg_dump.path, *arguments], env=env, stdout=subprocess.PIPE, stderr=words
            )
            source = cast("BinaryIO", process.stdout)
            try:
                if self._recipients:
                    encryption.encrypt(source, cast("BinaryIO", counted), self._recipients)
                else:
                    shutil.copyfileobj(source, counted, _CHUNK)
            except BaseException:
                process.kill()
                raise
            finally:
                source.close()
                code = process.wait()
            if code != 0:
                words.seek(0)
                said = words.read().decode("utf-8", "replace")
                raise tools.failed(self._pg_dump, doing, code, said)
        return counted.bytes, counted.sha256


def _fields(surroundings: Surroundings) -> dict[str, Any]:
    return {field.name: getattr(surroundings, field.name) for field in fields(surroundings)}


class _Counted:
    """A stream that counts and hashes what is written to it, and says so now and then."""

    def __init__(self, stream: BinaryIO, say: Progress, name: str, expected: int) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._say = say
        self._name = name
        self._pace = Pace(expected)
        self._said = time.monotonic()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        """Write all of it."""
        self._stream.write(data)
        self._hash.update(data)
        self.bytes += len(data)
        now = time.monotonic()
        if now - self._said > 0.5:
            self._said = now
            self._say(f"dumping {self._name}: {self._pace.at(self.bytes)}")
        return len(data)

    def flush(self) -> None:
        """Flush what is below."""
        self._stream.flush()

    @property
    def sha256(self) -> str:
        """Of all that was written, in hexadecimal."""
        return self._hash.hexdigest()


def _unused(storage: Storage, name: str) -> str:
    """Return the name, or the name with a number if another backup began in the same second."""
    taken = set(storage.folders())
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(candidate for candidate in names if candidate not in taken)


def record_run(
    connection: psycopg.Connection[dict[str, object]],
    task: str,
    started_at: datetime,
    *,
    bytes_: int | None = None,
    detail: dict[str, object] | None = None,
    error: PgrecallError | None = None,
) -> bool:
    """Record a run in the memory, where its alerts look; after an error on the way, best effort.

    Returns:
        Whether it was recorded; not on a standby, before revision 1.2.0, or without the right.
    """
    session = Session(connection, QUERIES)
    if connection.broken or connection.closed:
        return False
    try:
        connection.rollback()
        if session.one("server")["in_recovery"] or not session.value("can_record"):
            return False
        session.rows(
            "record_run",
            {
                "task": task,
                "started_at": started_at,
                "succeeded": error is None,
                "bytes": bytes_,
                "detail": Jsonb({"error": error.message} if error is not None else detail or {}),
            },
        )
    except psycopg.Error:
        if error is None:
            raise
        return False  # the error that is being recorded is on its way to the caller
    return True
