"""``backup restore``: a backup as a database again, beside the others or in place of one."""

from __future__ import annotations

import secrets
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgrecall.config import Settings
from pgrecall.errors import BackupDamaged, InvalidInput, OperationRefused
from pgrecall.ops.backup import comparison, stored
from pgrecall.ops.backup.create import BackupRequest, CreateReport, create
from pgrecall.ops.backup.manifest import Database, Manifest
from pgrecall.ops.backup.rebuild import Rebuilder, check_room
from pgrecall.ops.backup.session import open_session
from pgrecall.ops.backup.storage import Storage, open_storage
from pgrecall.targets import Progress, silent

_LONGEST_NAME = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """What to restore, and where.

    Attributes:
        admin_dsn: Connection string of an administrator of the server.
        location: Where the backups are.
        name: Of the backup; None takes the newest.
        source: Which of its databases; None takes the memory.
        to: Name of the database to make.
        replace: Whether it may take the place of one that exists, which is backed up first.
        recipients: age public keys for that backup.
        identity: File with the private key.
        jobs: Parallel connections.
    """

    admin_dsn: str
    location: str
    to: str
    name: str | None = None
    source: str | None = None
    replace: bool = False
    recipients: tuple[str, ...] = ()
    identity: Path | None = None
    jobs: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreReport:
    """A database that was restored.

    Attributes:
        backup: Name of the backup.
        database: Name of the database.
        revision: Of its schema; None for an application's database.
        tables: Number of its tables.
        rows: Number of its rows.
        replaced: The backup that was made of what stood there before.
        notes: What turned out otherwise than at the source.
        duration_seconds: How long it took.
    """

    backup: str
    database: str
    revision: str | None
    tables: int
    rows: int
    replaced: str | None
    notes: tuple[str, ...]
    duration_seconds: float


def restore(
    request: RestoreRequest, *, settings: Settings, progress: Progress | None = None
) -> RestoreReport:
    """Restore a database and make sure that it holds what was backed up.

    It appears under its name only when it is complete and was compared with the manifest.

    Args:
        request: What and where.
        settings: Name where PostgreSQL's programs are.
        progress: Called with a line of text as it goes on.

    Raises:
        InvalidInput: The name cannot be.
        NotFound: There is no such backup.
        OperationRefused: The database exists, and ``replace`` was not given.
        BackupDamaged: The backup is not what was stored, or what came back differs.
        BackupError: It could not be restored; nothing was changed.
        PgrecallError: The server failed or refused.
    """
    say = progress or silent
    started = time.monotonic()
    if not 0 < len(request.to.encode()) <= _LONGEST_NAME:
        raise InvalidInput(
            f"{request.to!r} cannot name a database",
            hint=f"give 1 to {_LONGEST_NAME} bytes",
        )
    storage = open_storage(request.location)
    made = stored.load(storage, request.name)
    database = stored.database_of(made, request.source)
    exists = _exists(request)
    rebuilder = Rebuilder(request.admin_dsn, made, settings, request.jobs, say, [])
    rebuilder.check_server()
    temporary = f"{request.to[:40]}_restoring_{secrets.token_hex(4)}"
    rebuild_checked(rebuilder, storage, database, temporary, request.identity)
    try:
        before = _replace(request, temporary, settings, say) if exists else None
        if before is None:
            _rename(request, temporary)
    except BaseException:
        rebuilder.drop(temporary)
        raise
    return RestoreReport(
        backup=made.name,
        database=request.to,
        revision=database.revision,
        tables=len(database.tables),
        rows=database.rows,
        replaced=before.manifest.name if before is not None else None,
        notes=tuple(rebuilder.notes),
        duration_seconds=time.monotonic() - started,
    )


def rebuild_checked(
    rebuilder: Rebuilder, storage: Storage, database: Database, name: str, identity: Path | None
) -> None:
    """Make a database, and refuse it unless it holds what the manifest says.

    Raises:
        BackupDamaged: Rows, vectors, indexes or constraints differ; the database was dropped.
    """
    fetch_and_rebuild(rebuilder, storage, database, name, identity)
    try:
        _require_same(rebuilder, database, name)
    except BaseException:
        rebuilder.drop(name)
        raise


def _require_same(rebuilder: Rebuilder, database: Database, name: str) -> None:
    rebuilder.say(f"comparing {name} with the manifest")
    with open_session(rebuilder.admin_dsn, name) as session:
        restored = comparison.look(session, database)
        seen = [look(restored) for _, _, look in comparison.FINDINGS]
    problems = [one.evidence for one in seen if one.status == "failed"]
    if problems:
        raise BackupDamaged(
            f"backup {rebuilder.made.name} does not hold what it says: {'; '.join(problems)}",
            hint="use another backup; `pgrecall backup list` shows them",
        )


def fetch_and_rebuild(
    rebuilder: Rebuilder, storage: Storage, database: Database, name: str, identity: Path | None
) -> None:
    """Read the dump, decrypted if need be, and make a database of it."""
    made: Manifest = rebuilder.made
    with tempfile.TemporaryDirectory(prefix="pgrecall-") as text:
        folder = Path(text)
        if made.recipients or storage.path(made.name, database.file) is None:
            check_room(folder, database.bytes, f"a copy of {database.file}")
        with stored.dump_file(
            storage, made, database, folder=folder, identity=identity, say=rebuilder.say
        ) as dump:
            rebuilder.rebuild(database, name, dump)


def _exists(request: RestoreRequest) -> bool:
    with open_session(request.admin_dsn) as admin:
        exists = bool(admin.value("database_exists", {"database": request.to}))
    if exists and not request.replace:
        raise OperationRefused(
            f"the database {request.to} exists",
            hint="give another name with --to; or --replace, which backs it up first",
        )
    return exists


def _rename(request: RestoreRequest, temporary: str) -> None:
    with open_session(request.admin_dsn, "postgres") as admin:
        new, name = sql.Identifier(temporary), sql.Identifier(request.to)
        admin.run("rename_database", database=new, name=name)


def _replace(
    request: RestoreRequest, temporary: str, settings: Settings, say: Progress
) -> CreateReport:
    """Stop writes to the database that is there, back it up, and exchange the two.

    Both names change in one transaction. Until then a failure leaves everything as it was.
    """
    new, name = sql.Identifier(temporary), sql.Identifier(request.to)
    old = sql.Identifier(f"{request.to[:40]}_replaced_{secrets.token_hex(4)}")
    with open_session(request.admin_dsn, "postgres") as admin:
        say(f"backing up {request.to} before it is replaced; it is read-only meanwhile")
        admin.run("stop_writes", database=name)
        try:
            admin.rows("end_sessions", {"database": request.to})
            before = _back_up(request, settings, say)
            admin.run("close_to_new_sessions", database=name, allowed=sql.Literal(False))
            admin.rows("end_sessions", {"database": request.to})
            with admin.connection.transaction():
                admin.run("rename_database", database=name, name=old)
                admin.run("rename_database", database=new, name=name)
        except BaseException:
            admin.run("close_to_new_sessions", database=name, allowed=sql.Literal(True))
            admin.run("allow_writes", database=name)
            raise
        admin.run("drop_database", database=old)
    return before


def _back_up(request: RestoreRequest, settings: Settings, say: Progress) -> CreateReport:
    return create(
        BackupRequest(
            dsn=make_conninfo(request.admin_dsn, dbname=request.to),
            location=request.location,
            recipients=request.recipients,
            record=False,
        ),
        settings=settings,
        progress=say,
    )
