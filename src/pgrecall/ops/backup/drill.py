"""``backup verify``: restores a backup where it harms nobody, and compares it with its source.

A backup that was never restored is a hope; this is the specification's restore test, whole.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

from pgrecall.config import Settings
from pgrecall.errors import BackupError, ConfigurationError, PgrecallError
from pgrecall.ops.backup import comparison, stored
from pgrecall.ops.backup.create import record_run
from pgrecall.ops.backup.manifest import Database, Manifest
from pgrecall.ops.backup.rebuild import Rebuilder
from pgrecall.ops.backup.restore import fetch_and_rebuild
from pgrecall.ops.backup.scratch import scratch_server
from pgrecall.ops.backup.session import open_session
from pgrecall.ops.backup.storage import Storage, open_storage
from pgrecall.ops.checks import Check, Seen
from pgrecall.targets import Progress, silent

Scratch: TypeAlias = Literal["server", "database"]

_NOT_RESTORED = Seen("failed", "nothing was restored to compare", "see the check above")


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillRequest:
    """What to try out, and where.

    Attributes:
        location: Where the backups are.
        name: Of the backup; None takes the newest.
        source_dsn: Connection string of the backup role of the source, whose tables are compared
            with the backup's and where the result is recorded; None when it is gone.
        identity: File with the private key.
        scratch: ``"server"`` restores into an embedded server of its own, ``"database"`` into a
            new database of the server at ``admin_dsn``.
        admin_dsn: Connection string of an administrator, for ``"database"``.
        jobs: Parallel connections.
    """

    location: str
    name: str | None = None
    source_dsn: str | None = None
    identity: Path | None = None
    scratch: Scratch = "server"
    admin_dsn: str | None = None
    jobs: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillReport:
    """How a drill went.

    Attributes:
        backup: Name of the backup.
        checks: What was looked at, for each of its databases.
        succeeded: Whether no check failed.
        restore_seconds: How long the restore alone took.
        duration_seconds: How long all of it took.
        recorded: Whether the result could be recorded at the source.
        notes: What turned out otherwise than at the source.
    """

    backup: str
    checks: tuple[Check, ...]
    succeeded: bool
    restore_seconds: float
    duration_seconds: float
    recorded: bool
    notes: tuple[str, ...]


def drill(
    request: DrillRequest, *, settings: Settings, progress: Progress | None = None
) -> DrillReport:
    """Restore a backup into a scratch place, compare, record the result, and clean up.

    Args:
        request: What and where.
        settings: Name where PostgreSQL's programs are.
        progress: Called with a line of text as it goes on.

    Returns:
        What was found; damage is a failed check, not an error.

    Raises:
        NotFound: There is no such backup.
        ConfigurationError: A program or key is missing.
        PgrecallError: The scratch place could not be had, or a server failed.
    """
    say = progress or silent
    began, started = datetime.now(UTC), time.monotonic()
    storage = open_storage(request.location)
    try:
        made = stored.load(storage, request.name)
    except BackupError as error:
        failed = Seen("failed", error.message, error.hint)
        outcome = _Outcome([_check("manifest", failed)])
        return _report(request, began, started, request.name or "", outcome)
    try:
        outcome = _try_out(request, made, storage, settings, say)
    except PgrecallError as error:
        _record(request, began, error=error)
        raise
    return _report(request, began, started, made.name, outcome, size=made.bytes)


@dataclass(frozen=True, slots=True)
class _Outcome:
    checks: list[Check]
    restore_seconds: float = 0.0
    notes: tuple[str, ...] = ()


def _try_out(
    request: DrillRequest, made: Manifest, storage: Storage, settings: Settings, say: Progress
) -> _Outcome:
    checks = list(_live(request, made))
    restoring = 0.0
    with _place(request, settings, say) as admin_dsn:
        rebuilder = Rebuilder(admin_dsn, made, settings, request.jobs, say, [])
        rebuilder.check_server()
        for database in made.databases:
            name = f"{database.name[:40]}_drill_{secrets.token_hex(4)}"
            begun = time.monotonic()
            failure = _rebuild(rebuilder, storage, database, name, request.identity)
            seconds = time.monotonic() - begun
            restoring += seconds
            checks.append(_restored(database, failure, seconds))
            try:
                checks += _compare(admin_dsn, database, name if failure is None else None, say)
            finally:
                if failure is None:
                    rebuilder.drop(name)
    return _Outcome(checks, restoring, tuple(rebuilder.notes))


def _rebuild(
    rebuilder: Rebuilder, storage: Storage, database: Database, name: str, identity: Path | None
) -> BackupError | None:
    """Restore; damage is what a drill is there to find, so it is returned."""
    try:
        fetch_and_rebuild(rebuilder, storage, database, name, identity)
    except BackupError as error:
        return error
    return None


@contextmanager
def _place(request: DrillRequest, settings: Settings, say: Progress) -> Iterator[str]:
    if request.scratch == "server":
        with scratch_server(settings, say) as server:
            yield server.admin_dsn()
        return
    if request.admin_dsn is None:
        raise ConfigurationError(
            "a scratch database needs an administrator of the server",
            hint="give --dsn or PGRECALL_ADMIN_DSN; or leave --scratch at server",
        )
    yield request.admin_dsn


def _live(request: DrillRequest, made: Manifest) -> Iterator[Check]:
    """Compare the tables in the manifest with those that the source has today."""
    if request.source_dsn is None:
        unseen = "the source was not named, so its tables were not looked at"
        yield _check("live-catalog", Seen("not configured", unseen))
        return
    for database in made.databases:
        with open_session(request.source_dsn, database.name) as session:
            live = {f"{row['schema']}.{row['name']}" for row in session.rows("tables")}
            hidden = [row["name"] for row in session.rows("hides_rows")]
        held = {table.full_name for table in database.tables}
        problems = [f"{name} is not in the backup" for name in sorted(live - held)]
        if hidden:
            problems.append(
                f"row-level security hides rows of {', '.join(hidden)} from the role that makes "
                "backups"
            )
        seen = Seen("passed", f"all {len(live)} tables are in the backup")
        if problems:
            remedy = "make a new backup, as a role that sees everything"
            seen = Seen("failed", "; ".join(problems), remedy)
        yield _check("live-catalog", seen, database)


def _restored(database: Database, error: BackupError | None, seconds: float) -> Check:
    if error is not None:
        seen = Seen("failed", error.message, error.hint)
    else:
        seen = Seen("passed", f"{database.bytes / 1e6:,.1f} MB in {seconds:.1f} s")
    return _check("restore", seen, database, seconds * 1000)


def _compare(
    admin_dsn: str, database: Database, name: str | None, say: Progress
) -> Iterator[Check]:
    if name is None:
        for id_, _, _ in comparison.FINDINGS:
            yield _check(id_, _NOT_RESTORED, database)
        return
    say(f"comparing {database.name} with the manifest")
    with open_session(admin_dsn, name) as session:
        restored = comparison.look(session, database)
        for id_, _, look in comparison.FINDINGS:
            begun = time.monotonic()
            seen = look(restored)
            yield _check(id_, seen, database, (time.monotonic() - begun) * 1000)


_TITLES = {
    "manifest": "the manifest can be read",
    "live-catalog": "every table of the source is in the backup",
    "restore": "the backup can be restored",
    **{id_: title for id_, title, _ in comparison.FINDINGS},
}


def _check(
    id_: str, seen: Seen, database: Database | None = None, duration_ms: float | None = None
) -> Check:
    also = database is not None and database.kind == "also"
    return Check(
        id=f"{id_}:{database.name}" if also and database is not None else id_,
        title=_TITLES[id_],
        status=seen.status,
        evidence=seen.evidence,
        remedy=seen.remedy,
        duration_ms=duration_ms,
    )


def _report(
    request: DrillRequest,
    began: datetime,
    started: float,
    backup: str,
    outcome: _Outcome,
    *,
    size: int | None = None,
) -> DrillReport:
    failed = [check for check in outcome.checks if check.status == "failed"]
    problem = "; ".join(f"{check.id}: {check.evidence}" for check in failed)
    recorded = _record(
        request,
        began,
        size=size,
        detail={"name": backup, "restore_seconds": round(outcome.restore_seconds, 3)},
        error=BackupError(problem) if failed else None,
    )
    return DrillReport(
        backup=backup,
        checks=tuple(outcome.checks),
        succeeded=not failed,
        restore_seconds=outcome.restore_seconds,
        duration_seconds=time.monotonic() - started,
        recorded=recorded,
        notes=outcome.notes,
    )


def _record(
    request: DrillRequest,
    began: datetime,
    *,
    size: int | None = None,
    detail: dict[str, object] | None = None,
    error: PgrecallError | None = None,
) -> bool:
    if request.source_dsn is None:
        return False
    with open_session(request.source_dsn) as session:
        return record_run(
            session.connection, "restore_drill", began, bytes_=size, detail=detail, error=error
        )
