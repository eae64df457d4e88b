"""``pgrecall episodes import`` and ``export``: JSON Lines in and out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgrecall.cli import options
from pgrecall.cli.opening import open_memory
from pgrecall.cli.output import Printer, note, printer, progress_bar

if TYPE_CHECKING:
    from pgrecall.ops.transfer import ExportProgress, ExportReport, ImportReport, Progress


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("import")(import_)
    app.command("export")(export)


def import_(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="JSON Lines, packed with gzip or not; - reads stdin."),
    ],
    project: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Project of lines that name none; others are rejected."),
    ] = None,
    rejects: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where bad lines go; FILE.rejects.jsonl unless given."),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(metavar="N", help="Lines written in one transaction.")
    ] = 256,
    embed: Annotated[
        str,
        typer.Option(metavar="now|later", help="Whether to make missing vectors now."),
    ] = "now",
    dsn: options.Dsn = None,
    embedder: options.EmbedderName = None,
    as_json: options.JsonFlag = None,
) -> None:
    """Record the episodes of a JSON Lines file; it can be repeated, and goes on where it stopped.

    A line is an object with the keys of episodes record. Bad lines are kept in the rejects file
    with their number and the reason, never stop the others, and make the exit code 1.
    """
    from pgrecall.errors import InvalidInput
    from pgrecall.ops.transfer import import_episodes

    show = printer(as_json)
    if file != "-" and not Path(file).is_file():
        raise InvalidInput(f"there is no file {file}", hint="give a file, or - for standard input")
    with open_memory(dsn, embedder) as memory, _importing() as on_progress:
        report = import_episodes(
            memory,
            sys.stdin.buffer if file == "-" else Path(file),
            project_id=project,
            rejects=rejects,
            batch_size=batch_size,
            embed=embed,  # type: ignore[arg-type]
            on_progress=on_progress,
        )
    if show.as_json:
        show.data(_with_rate(report))
    else:
        _show_import(show, report)
    if report.rejected:
        raise typer.Exit(1)


@contextmanager
def _importing() -> Iterator[Callable[[Progress], None]]:
    with progress_bar("importing") as advance:

        def tell(progress: Progress) -> None:
            counts = f"{progress.read:,} read"
            if progress.rejected:
                counts += f", {progress.rejected:,} bad"
            advance(progress.bytes_read, progress.total_bytes, counts, progress.rate)

        yield tell


def _show_import(show: Printer, report: ImportReport) -> None:
    show.fields(
        [
            ("read", f"{report.read:,} in {report.seconds:.1f} s ({report.rate:,.0f} a second)"),
            ("new", f"{report.created:,}"),
            ("there already", f"{report.existing:,}"),
            ("outcome added", f"{report.updated:,}"),
            ("bad", f"{report.rejected:,}"),
        ]
    )
    for reject in report.first_rejects:
        show.line(f"line {reject.line}: {reject.reason}")
    if report.rejects is not None:
        show.line(f"bad lines are kept in {report.rejects}")


def _with_rate(report: Any) -> dict[str, Any]:
    from dataclasses import fields

    values = {field.name: getattr(report, field.name) for field in fields(report)}
    return {**values, "rate": round(report.rate, 1)}


def export(
    file: Annotated[
        str,
        typer.Argument(
            metavar="[FILE]", help="The file to write, packed if it ends in .gz; - is stdout."
        ),
    ] = "-",
    project: options.Project = None,
    since: options.Since = None,
    until: options.Until = None,
    sprint: options.Sprint = None,
    decision_source: options.Source = None,
    agent_version: options.AgentVersion = None,
    min_quality: options.MinQuality = None,
    max_quality: options.MaxQuality = None,
    with_outcome: options.WithOutcome = None,
    with_embeddings: Annotated[
        bool, typer.Option("--with-embeddings", help="Write the vectors too.")
    ] = False,
    dsn: options.Dsn = None,
    as_json: options.JsonFlag = None,
) -> None:
    """Write episodes as JSON Lines, newest first, in the form that import reads.

    On standard output are the lines and nothing else; the report goes to stderr.
    """
    from pgrecall.ops.transfer import export_episodes

    show = printer(as_json)
    filters = options.episode_filters(
        project_id=project,
        since=since,
        until=until,
        sprint_id=sprint,
        decision_source=decision_source,
        agent_version=agent_version,
        min_quality=min_quality,
        max_quality=max_quality,
        with_outcome=with_outcome,
    )
    to_stdout = file == "-"
    with open_memory(dsn) as memory, _exporting(hidden=to_stdout) as on_progress:
        report = export_episodes(
            memory,
            sys.stdout.buffer if to_stdout else Path(file),
            with_embeddings=with_embeddings,
            on_progress=on_progress,
            **filters,
        )
    _show_export(show, report, with_embeddings=with_embeddings)


def _show_export(show: Printer, report: ExportReport, *, with_embeddings: bool) -> None:
    told = f"{report.written:,} episodes in {report.seconds:.1f} s"
    if with_embeddings:
        told += f", {report.vectors:,} with vectors"
    if report.path is None:
        note(told)
    elif show.as_json:
        show.data(_with_rate(report))
    else:
        show.line(f"{told}: {report.path}")


@contextmanager
def _exporting(*, hidden: bool) -> Iterator[Callable[[ExportProgress], None]]:
    with progress_bar("exporting", hidden=hidden and sys.stdout.isatty()) as advance:

        def tell(progress: ExportProgress) -> None:
            counts = f"{progress.written:,} written"
            advance(progress.written, progress.total, counts, progress.rate)

        yield tell
