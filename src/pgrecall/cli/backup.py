"""``pgrecall backup``: made, listed, proved, restored, kept by a schedule."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from pgrecall.cli import pitr
from pgrecall.cli.health import print_checks
from pgrecall.cli.options import AdminDsn, JsonFlag
from pgrecall.cli.output import Cell, Column, Printer, choose, printer, state, working

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgrecall.config import Settings
    from pgrecall.ops.backup import DrillReport, RehearsalReport, Stored
    from pgrecall.targets import Progress

app = typer.Typer(no_args_is_help=True)
app.add_typer(pitr.app, name="pitr")

Name: TypeAlias = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="The backup; the newest unless given.", show_default=False),
]
From: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--from",
        envvar="PGRECALL_BACKUPS",
        metavar="LOCATION",
        help="Where the backups are: a directory or s3://BUCKET/PREFIX.",
    ),
]
To: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--to",
        envvar="PGRECALL_BACKUPS",
        metavar="LOCATION",
        help="Where it goes: a directory or s3://BUCKET/PREFIX.",
    ),
]
Identity: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--identity",
        envvar="PGRECALL_BACKUP_IDENTITY",
        metavar="FILE",
        help="File with the age private key, for an encrypted backup.",
    ),
]
BackupDsn: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--backup-dsn",
        envvar="PGRECALL_BACKUP_DSN",
        metavar="DSN",
        help="Connection string of the backup role, instead of what init wrote.",
    ),
]
Jobs: TypeAlias = Annotated[
    int, typer.Option("--jobs", metavar="N", min=1, help="Connections that restore in parallel.")
]


@app.callback()
def backup(as_json: JsonFlag = None) -> None:
    """Back up the memory, prove it by restoring, and restore it."""
    choose(as_json)


@app.command("create")
def create(
    to: To = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATABASE", help="Another database of the server to dump beside it; repeatable."
        ),
    ] = None,
    recipient: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="age public key to encrypt to; repeatable. PGRECALL_BACKUP_RECIPIENTS unless "
            "given.",
        ),
    ] = None,
    compress: Annotated[
        str, typer.Option(metavar="METHOD", help="pg_dump's compression, such as zstd:3 or none.")
    ] = "gzip:1",
    backup_dsn: BackupDsn = None,
    as_json: JsonFlag = None,
) -> None:
    """Make a backup of one consistent moment, with a manifest to compare a restore by."""
    from pgrecall.ops import backup as ops

    show = printer(as_json)
    settings = _settings(backups=to, backup_dsn=backup_dsn)
    with working("backing up") as progress:
        request = ops.BackupRequest(
            dsn=_backup_dsn(settings, progress),
            location=settings.backup_location,
            also=tuple(also or ()),
            recipients=tuple(recipient or settings.recipients),
            compress=compress,
        )
        report = ops.create(request, settings=settings, progress=progress)
    made = report.manifest
    if show.as_json:
        show.data(
            {
                "name": made.name,
                "location": report.location,
                "bytes": made.bytes,
                "databases": [
                    {"name": one.name, "rows": one.rows, "bytes": one.bytes}
                    for one in made.databases
                ],
                "encrypted": bool(made.recipients),
                "duration_seconds": round(report.duration_seconds, 3),
                "recorded": report.recorded,
            }
        )
        return
    for one in made.databases:
        show.line(f"{one.name}: {one.rows:,} rows, {_size(one.bytes)}")
    kind = "encrypted" if made.recipients else "not encrypted"
    show.line(
        f"backup {made.name} is in {report.location}, {kind} ({report.duration_seconds:.1f} s)"
    )
    if not report.recorded:
        show.line("worth a look: the run could not be recorded in the database")
    show.line("prove it   pgrecall backup verify")


@app.command("list")
def list_(from_: From = None, as_json: JsonFlag = None) -> None:
    """List the backups, and the remains of those that were interrupted."""
    from pgrecall.ops import backup as ops

    show = printer(as_json)
    settings = _settings(backups=from_)
    found = ops.list_backups(ops.open_storage(settings.backup_location))
    if show.as_json:
        show.data([_listed(entry) for entry in found])
        return
    if not found:
        show.line(f"There is no backup in {settings.backup_location}.")
        return
    show.table(
        [
            Column(name="backup"),
            Column(name="made"),
            Column(name="rows", right=True),
            Column(name="size", right=True),
            Column(name="revision", from_width=90),
            Column(name="encrypted", from_width=90),
            Column(name="state", wraps=True),
        ],
        [_row(entry) for entry in found],
    )


@app.command("verify")
def verify(
    name: Name = None,
    from_: From = None,
    identity: Identity = None,
    scratch: Annotated[
        Literal["server", "database"],
        typer.Option(
            metavar="PLACE",
            help="Where to restore: `server`, an embedded one of its own; or `database`, a new one "
            "on the server of --dsn.",
        ),
    ] = "server",
    source: Annotated[
        bool,
        typer.Option(
            "--source/--no-source",
            help="Whether to compare with the source's tables and record the result there.",
        ),
    ] = True,
    dsn: AdminDsn = None,
    backup_dsn: BackupDsn = None,
    jobs: Jobs = 2,
    as_json: JsonFlag = None,
) -> None:
    """Restore a backup where it harms nobody, compare it with its source, and clean up.

    Exit code 1 if anything differs.
    """
    from pgrecall.ops import backup as ops
    from pgrecall.targets import admin_dsn

    show = printer(as_json)
    settings = _settings(backups=from_, backup_identity=identity, backup_dsn=backup_dsn)
    with working("restoring for trial") as progress:
        request = ops.DrillRequest(
            location=settings.backup_location,
            name=name,
            source_dsn=_backup_dsn(settings, progress) if source else None,
            identity=settings.backup_identity,
            scratch=scratch,
            admin_dsn=admin_dsn(settings, dsn, progress=progress)
            if scratch == "database"
            else None,
            jobs=jobs,
        )
        report = ops.drill(request, settings=settings, progress=progress)
    _show_drill(show, report)
    raise typer.Exit(0 if report.succeeded else 1)


@app.command("restore")
def restore(
    to: Annotated[
        str, typer.Option("--to", metavar="DATABASE", help="Name of the database to make.")
    ],
    name: Name = None,
    from_: From = None,
    identity: Identity = None,
    dsn: AdminDsn = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="DATABASE", help="Which of the backup's databases; the memory unless given."
        ),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Take the place of a database that exists, after a backup of it."
        ),
    ] = False,
    jobs: Jobs = 2,
    as_json: JsonFlag = None,
) -> None:
    """Restore a backup as a database, which appears only when it is complete and compared."""
    from pgrecall.ops import backup as ops
    from pgrecall.targets import admin_dsn

    show = printer(as_json)
    settings = _settings(backups=from_, backup_identity=identity)
    with working("restoring") as progress:
        request = ops.RestoreRequest(
            admin_dsn=admin_dsn(settings, dsn, progress=progress),
            location=settings.backup_location,
            name=name,
            source=source,
            to=to,
            replace=replace,
            recipients=settings.recipients,
            identity=settings.backup_identity,
            jobs=jobs,
        )
        report = ops.restore(request, settings=settings, progress=progress)
    if show.as_json:
        show.data(report)
        return
    if report.replaced is not None:
        show.line(f"what stood there before is kept in backup {report.replaced}")
    for text in report.notes:
        show.line(f"worth a look: {text}")
    show.line(
        f"{report.database} holds backup {report.backup}: {report.tables} tables, "
        f"{report.rows:,} rows, compared with the manifest ({report.duration_seconds:.1f} s)"
    )


@app.command("rehearse")
def rehearse(
    name: Name = None,
    from_: From = None,
    identity: Identity = None,
    jobs: Jobs = 2,
    as_json: JsonFlag = None,
) -> None:
    """Try an upgrade out: restore into a scratch server, migrate it there, and verify it.

    Exit code 1 if any check fails.
    """
    from pgrecall.ops import backup as ops

    show = printer(as_json)
    settings = _settings(backups=from_, backup_identity=identity)
    with working("rehearsing") as progress:
        report = ops.rehearse(
            settings.backup_location,
            name=name,
            identity=settings.backup_identity,
            jobs=jobs,
            settings=settings,
            progress=progress,
        )
    _show_rehearsal(show, report)
    raise typer.Exit(0 if report.succeeded else 1)


@app.command("prune")
def prune(
    from_: From = None,
    keep_daily: Annotated[
        int, typer.Option(metavar="N", min=0, help="Days to keep the last backup of.")
    ] = 7,
    keep_weekly: Annotated[
        int, typer.Option(metavar="N", min=0, help="Weeks to keep the last backup of.")
    ] = 4,
    keep_monthly: Annotated[
        int, typer.Option(metavar="N", min=0, help="Months to keep the last backup of.")
    ] = 12,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be deleted, and do nothing.")
    ] = False,
    as_json: JsonFlag = None,
) -> None:
    """Delete backups that are not asked for any more; never the newest of a memory."""
    from pgrecall.ops import backup as ops

    show = printer(as_json)
    settings = _settings(backups=from_)
    fates = ops.prune(
        settings.backup_location,
        daily=keep_daily,
        weekly=keep_weekly,
        monthly=keep_monthly,
        dry_run=dry_run,
    )
    if show.as_json:
        show.data(fates)
        return
    gone = "would be deleted" if dry_run else "deleted"
    show.table(
        [Column(name="backup"), Column(name="fate"), Column(name="reason", wraps=True)],
        [(fate.name, "kept" if fate.kept else gone, fate.reason) for fate in fates],
    )


def _settings(**given: object) -> Settings:
    from pgrecall.config import load_settings

    return load_settings(**given)


def _backup_dsn(settings: Settings, progress: Progress) -> str:
    from pgrecall.targets import resolve_dsn

    return resolve_dsn(settings, "backup", progress=progress)


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count / 1e3:,.1f} kB"


def _listed(entry: Stored) -> dict[str, object]:
    made = entry.manifest
    facts: dict[str, object] = {"name": entry.name, "problem": entry.problem}
    if made is not None:
        facts |= {
            "started_at": made.started_at,
            "duration_seconds": (made.finished_at - made.started_at).total_seconds(),
            "bytes": made.bytes,
            "server": made.server,
            "encrypted": bool(made.recipients),
            "databases": [
                {"name": one.name, "rows": one.rows, "revision": one.revision}
                for one in made.databases
            ],
        }
    return facts


def _row(entry: Stored) -> Sequence[Cell]:
    made = entry.manifest
    verdict = state("passed" if entry.problem is None else "failed")
    if entry.problem is not None:
        verdict.append(f": {entry.problem}")
    else:
        verdict = state("whole")
    if made is None:
        return (entry.name, None, None, None, None, None, verdict)
    return (
        entry.name,
        made.started_at,
        f"{sum(one.rows for one in made.databases):,}",
        _size(made.bytes),
        made.memory.revision,
        bool(made.recipients),
        verdict,
    )


def _show_drill(show: Printer, report: DrillReport) -> None:
    if show.as_json:
        show.data(
            {
                "backup": report.backup,
                "succeeded": report.succeeded,
                "restore_seconds": round(report.restore_seconds, 3),
                "duration_seconds": round(report.duration_seconds, 3),
                "recorded": report.recorded,
                "notes": report.notes,
                "checks": [check.as_dict for check in report.checks],
            }
        )
        return
    print_checks(show, report.checks)
    verdict = "is the same as its source" if report.succeeded else "CANNOT BE RELIED ON"
    show.line(
        f"backup {report.backup} {verdict}; restored in {report.restore_seconds:.1f} s, "
        f"{report.duration_seconds:.1f} s in all"
    )


def _show_rehearsal(show: Printer, report: RehearsalReport) -> None:
    if show.as_json:
        show.data(
            {
                "backup": report.backup,
                "succeeded": report.succeeded,
                "revision_before": report.revision_before,
                "revision_after": report.revision_after,
                "applied": report.applied,
                "restore_seconds": round(report.restore_seconds, 3),
                "migrate_seconds": round(report.migrate_seconds, 3),
                "notes": report.notes,
                "checks": [check.as_dict for check in report.checks],
            }
        )
        return
    print_checks(show, report.checks)
    applied = ", ".join(report.applied) or "nothing to apply"
    show.line(
        f"backup {report.backup}: restored in {report.restore_seconds:.1f} s; "
        f"{report.revision_before} to {report.revision_after} ({applied}) in "
        f"{report.migrate_seconds:.1f} s"
    )
