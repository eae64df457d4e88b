"""``pgrecall backup pitr``: recover the memory as it was at a moment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from pgrecall.cli.options import AdminDsn, Database, DataDir, JsonFlag, PgBin, parse_time
from pgrecall.cli.output import Column, Printer, choose, printer, working

if TYPE_CHECKING:
    from pgrecall.ops.pitr import RecoverReport, SetupReport, StatusReport

app = typer.Typer(no_args_is_help=True)

At: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--at",
        metavar="DIR",
        help="Directory of WAL archive and base backups, on the server's host; the embedded "
        "server's data directory with -pitr behind it unless given.",
        show_default=False,
    ),
]


@app.callback()
def pitr(as_json: JsonFlag = None) -> None:
    """Recover the whole server as it was at a moment: base backups and archived WAL."""
    choose(as_json)


@app.command("setup")
def setup(
    at: At = None,
    dsn: AdminDsn = None,
    archive_timeout: Annotated[
        int,
        typer.Option(
            metavar="SECONDS",
            min=1,
            help="Archive WAL at least this often: the most work that is lost with the server.",
        ),
    ] = 300,
    force: Annotated[
        bool,
        typer.Option("--force", help="Restart the server even though clients are connected."),
    ] = False,
    data_dir: DataDir = None,
    pg_bin: PgBin = None,
    as_json: JsonFlag = None,
) -> None:
    """Let the server archive its WAL, and see a segment arrive.

    The embedded server is restarted if that is needed; for another the command to do so is printed.
    """
    from pgrecall.config import load_settings
    from pgrecall.ops import pitr as ops

    show = printer(as_json)
    settings = load_settings(data_dir=data_dir, pg_bin=pg_bin)
    with working("setting archiving up") as progress:
        report = ops.setup(
            settings,
            dsn=dsn,
            at=at,
            archive_timeout=archive_timeout,
            force=force,
            progress=progress,
        )
    if show.as_json:
        show.data(report)
    else:
        _show_setup(show, report)


@app.command("base")
def base(
    full: Annotated[
        bool,
        typer.Option("--full", help="Copy everything, instead of what changed since the last."),
    ] = False,
    at: At = None,
    dsn: AdminDsn = None,
    database: Database = None,
    data_dir: DataDir = None,
    pg_bin: PgBin = None,
    as_json: JsonFlag = None,
) -> None:
    """Take a base backup, of what changed since the last or of everything, and check it."""
    from pgrecall.config import load_settings
    from pgrecall.ops import pitr as ops

    show = printer(as_json)
    settings = load_settings(data_dir=data_dir, pg_bin=pg_bin, database=database)
    with working("taking a base backup") as progress:
        report = ops.base_backup(settings, dsn=dsn, at=at, full=full, progress=progress)
    if show.as_json:
        show.data(report)
        return
    made = report.backup
    why = f" ({report.note})" if report.note else ""
    show.line(
        f"base backup {made.name}{why}: {_size(made.bytes)}, compared with its manifest "
        f"({report.duration_seconds:.1f} s)"
    )
    if not report.recorded:
        show.line("worth a look: the run could not be recorded in the database")


@app.command("status")
def status(
    at: At = None,
    dsn: AdminDsn = None,
    data_dir: DataDir = None,
    pg_bin: PgBin = None,
    as_json: JsonFlag = None,
) -> None:
    """Say how archiving goes and which times can be recovered.

    Exit code 1 if archiving fails or WAL is missing.
    """
    from pgrecall.config import load_settings
    from pgrecall.ops import pitr as ops

    show = printer(as_json)
    settings = load_settings(data_dir=data_dir, pg_bin=pg_bin)
    with working("looking") as progress:
        report = ops.status(settings, dsn=dsn, at=at, progress=progress)
    if show.as_json:
        show.data(report)
    else:
        _show_status(show, report)
    failing = report.archiver is not None and report.archiver.failing
    raise typer.Exit(1 if failing or any(one.missing for one in report.windows) else 0)


@app.command("recover")
def recover(
    time: Annotated[
        str, typer.Option(metavar="TIME", help="The moment, in ISO 8601; local time without zone.")
    ],
    into: Annotated[
        Path,
        typer.Option(metavar="DIR", help="A new directory, which becomes an embedded server's."),
    ],
    database: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Count rows of this database afterwards; repeatable. The memory unless given.",
        ),
    ] = None,
    at: At = None,
    dsn: AdminDsn = None,
    data_dir: DataDir = None,
    pg_bin: PgBin = None,
    as_json: JsonFlag = None,
) -> None:
    """Make a second server that holds what was committed until a moment; the first is not touched.

    It runs afterwards, and PGRECALL_DATA_DIR names it to the other commands.
    """
    from pgrecall.config import load_settings
    from pgrecall.ops import pitr as ops

    show = printer(as_json)
    settings = load_settings(data_dir=data_dir, pg_bin=pg_bin)
    moment = parse_time(time, "--time")
    with working("recovering") as progress:
        report = ops.recover(
            settings,
            time_=moment,
            into=into,
            dsn=dsn,
            at=at,
            databases=tuple(database or ()),
            progress=progress,
        )
    if show.as_json:
        show.data(report)
    else:
        _show_recovered(show, report)


@app.command("prune")
def prune(
    keep: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Chains to keep: a full base backup and what builds on it."
        ),
    ] = 2,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be deleted, and do nothing.")
    ] = False,
    at: At = None,
    data_dir: DataDir = None,
    pg_bin: PgBin = None,
    as_json: JsonFlag = None,
) -> None:
    """Delete old chains of base backups, and the WAL that no kept one needs."""
    from pgrecall.config import load_settings
    from pgrecall.ops import pitr as ops

    show = printer(as_json)
    settings = load_settings(data_dir=data_dir, pg_bin=pg_bin)
    with working("deleting") as progress:
        report = ops.prune(settings, at=at, keep=keep, dry_run=dry_run, progress=progress)
    if show.as_json:
        show.data(report)
        return
    gone = "would be deleted" if dry_run else "deleted"
    rows = [(name, gone) for name in report.deleted]
    rows += [(name, f"{gone}: never finished") for name in report.unfinished]
    rows += [(name, "kept") for name in report.kept]
    show.table([Column(name="base backup"), Column(name="fate")], rows)
    show.line(f"{report.segments} files of WAL {gone}")


def _show_setup(show: Printer, report: SetupReport) -> None:
    for name in report.changed:
        show.line(f"set {name}")
    if report.restarted:
        show.line("the server was restarted")
    if report.restart_with is not None:
        show.line("the server has to be restarted before anything is archived:")
        show.line(f"  {report.restart_with}")
        show.line("or as its service. Then run this again, to see a segment arrive.")
        return
    show.line(f"WAL segment {report.segment} arrived in {report.directory}")
    show.line(f"at most {report.archive_timeout} s of work are lost with the server")
    show.line("next   pgrecall backup pitr base --full")


def _show_status(show: Printer, report: StatusReport) -> None:
    archiver = report.archiver
    pairs: list[tuple[str, Any]] = [("directory", str(report.directory))]
    if archiver is None:
        pairs.append(("archiving", "the server does not run"))
    else:
        pairs += [
            ("archiving", "fails: see the server's log" if archiver.failing else "works"),
            ("last segment", archiver.last_segment),
            ("archived at", archiver.last_time),
        ]
    show.fields(pairs)
    if not report.backups:
        show.line("There is no base backup yet; take one with: pgrecall backup pitr base")
        return
    show.table(
        [Column(name="base backup"), Column(name="ended"), Column(name="size", right=True)],
        [(one.name, _exactly(one.ended), _size(one.bytes)) for one in report.backups],
    )
    for window in report.windows:
        if window.until is not None:
            show.line(f"can be recovered: {_exactly(window.since)} to {_exactly(window.until)}")
        if window.missing is not None:
            show.line(f"worth a look: WAL segment {window.missing} is missing")
    for name in report.unfinished:
        show.line(f"worth a look: {name} was interrupted; prune deletes it")


def _show_recovered(show: Printer, report: RecoverReport) -> None:
    for found in report.databases:
        show.line(f"{found.name}: {_size(found.bytes)}")
        for table, rows in found.rows.items():
            show.line(f"  {table}: {rows:,} rows")
    if report.last_commit is not None:
        show.line(f"its last commit is of {_exactly(report.last_commit)}")
    show.line(
        f"recovered {_exactly(report.time)} from {', '.join(report.backups)} "
        f"({report.duration_seconds:.1f} s)"
    )
    show.line(f"it runs on 127.0.0.1:{report.port}; its data: {report.directory}")
    show.line(f"stop it   pgrecall stop --data-dir {report.directory}")


def _exactly(moment: Any) -> str:
    return str(moment.astimezone().isoformat(sep=" ", timespec="milliseconds"))


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
