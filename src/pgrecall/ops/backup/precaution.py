"""The backup before a change: the specification's pre-deployment backup, which nobody forgets."""

from __future__ import annotations

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgrecall.config import Settings
from pgrecall.errors import BackupError, ConfigurationError, OperationRefused
from pgrecall.ops.backup.create import BackupRequest, create
from pgrecall.ops.backup.session import open_session
from pgrecall.ops.provision import InitReport
from pgrecall.targets import Progress

_CHANGES = ("database", "revision")
"""Steps of ``init`` that change a server which may hold data."""


def back_up(
    dsn: str, *, settings: Settings, memory: bool = True, progress: Progress | None = None
) -> str:
    """Back up a database before it is changed, and return the backup's name.

    Args:
        dsn: Connection string of a role that sees everything.
        settings: Name where backups go and whom they are encrypted to.
        memory: Whether it is a memory, not an application's database.
        progress: Called with a line of text as it goes on.

    Raises:
        OperationRefused: It could not be made; the change was not begun.
        DatabaseError: The server failed.
    """
    try:
        report = create(
            BackupRequest(
                dsn=dsn,
                location=settings.backup_location,
                recipients=settings.recipients,
                memory=memory,
            ),
            settings=settings,
            progress=progress,
        )
    except (BackupError, ConfigurationError) as error:
        hint = f"{error.hint}; " if error.hint else ""
        raise OperationRefused(
            f"no backup could be made before the change: {error.message}",
            hint=f"{hint}to go on without one: --no-backup",
        ) from error
    return report.manifest.name


def is_wanted(foretold: InitReport) -> bool:
    """Whether ``init`` is about to do what a backup should stand before."""
    return any(step.what in _CHANGES and step.state.startswith("would") for step in foretold.steps)


def before_init(
    admin_dsn: str,
    foretold: InitReport,
    *,
    settings: Settings,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Back up what a run of ``init`` could reach, and return the names of the backups.

    Args:
        admin_dsn: The administrator's connection string; the database in it is taken for the
            application's, if it holds tables.
        foretold: What a dry run reported.
        settings: As for :func:`back_up`.
        progress: As for :func:`back_up`.

    Raises:
        OperationRefused: A backup could not be made; nothing was changed.
        DatabaseError: The server failed.
    """
    names = []
    if foretold.revision is not None or foretold.adopted:
        dsn = make_conninfo(admin_dsn, dbname=foretold.database)
        names.append(back_up(dsn, settings=settings, progress=progress))
    if conninfo_to_dict(admin_dsn).get("dbname") != foretold.database and _holds_tables(admin_dsn):
        names.append(back_up(admin_dsn, settings=settings, memory=False, progress=progress))
    return tuple(names)


def _holds_tables(dsn: str) -> bool:
    with open_session(dsn) as session:
        return bool(session.rows("tables"))
