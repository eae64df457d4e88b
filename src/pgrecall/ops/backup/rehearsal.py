"""``backup rehearse``: an upgrade tried out on a copy, before production sees it."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgrecall.config import Settings
from pgrecall.ops import migrate
from pgrecall.ops.backup import stored
from pgrecall.ops.backup.rebuild import Rebuilder
from pgrecall.ops.backup.restore import rebuild_checked
from pgrecall.ops.backup.scratch import scratch_server
from pgrecall.ops.backup.session import open_session
from pgrecall.ops.backup.storage import open_storage
from pgrecall.ops.checks import Check
from pgrecall.ops.verify import verify
from pgrecall.targets import Progress, silent


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsalReport:
    """How an upgrade went on a copy.

    Attributes:
        backup: Name of the backup.
        revision_before: Of the schema in the backup.
        revision_after: Of the schema that it was migrated to.
        applied: The revisions that were applied.
        checks: What ``verify`` found afterwards.
        succeeded: Whether no check failed.
        restore_seconds: How long the restore took.
        migrate_seconds: How long the migration took.
        notes: What turned out otherwise than at the source.
    """

    backup: str
    revision_before: str | None
    revision_after: str
    applied: tuple[str, ...]
    checks: tuple[Check, ...]
    succeeded: bool
    restore_seconds: float
    migrate_seconds: float
    notes: tuple[str, ...]


def rehearse(
    location: str,
    *,
    name: str | None = None,
    identity: Path | None = None,
    jobs: int = 2,
    settings: Settings,
    progress: Progress | None = None,
) -> RehearsalReport:
    """Restore a memory into a scratch server, migrate it there, and verify it.

    Args:
        location: Where the backups are.
        name: Of the backup; None takes the newest.
        identity: File with the private key.
        jobs: Parallel connections of the restore.
        settings: Name the embedder and where PostgreSQL's programs are.
        progress: Called with a line of text as it goes on.

    Raises:
        NotFound: There is no such backup.
        BackupError: It could not be restored.
        MigrationError: A revision failed: it would in production, too.
        PgrecallError: The scratch server failed.
    """
    say = progress or silent
    storage = open_storage(location)
    made = stored.load(storage, name)
    database = made.memory
    with scratch_server(settings, say) as server:
        rebuilder = Rebuilder(server.admin_dsn(), made, settings, jobs, say, [])
        rebuilder.check_server()
        started = time.monotonic()
        rebuild_checked(rebuilder, storage, database, database.name, identity)
        restored = time.monotonic()
        owner_dsn = _as_owner(server.admin_dsn(database.name), database.owner)
        say("migrating")
        report = migrate.upgrade(owner_dsn, settings=settings, backup=False, progress=say)
        migrated = time.monotonic()
        say("verifying")
        checks = tuple(verify(owner_dsn))
    return RehearsalReport(
        backup=made.name,
        revision_before=database.revision,
        revision_after=report.revision,
        applied=report.applied,
        checks=checks,
        succeeded=not any(check.status == "failed" for check in checks),
        restore_seconds=restored - started,
        migrate_seconds=migrated - restored,
        notes=tuple(rebuilder.notes),
    )


def _as_owner(admin_dsn: str, owner: str) -> str:
    """Let the owner log in on the scratch server, with a password that ends with it."""
    password = secrets.token_urlsafe(24)
    with open_session(admin_dsn) as admin:
        verifier = admin.verifier(owner, password)
        admin.run("set_password", role=sql.Identifier(owner), verifier=verifier)
    return make_conninfo(admin_dsn, user=owner, password=password)
