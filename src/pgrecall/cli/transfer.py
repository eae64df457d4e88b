"""``pgrecall episodes import`` and ``export``: JSON Lines in and out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgrecall.cli import options
from pgrecall.cli.opening import open_memory
from pgrecall.cli.output import Printer, note, printer, progress_bar, working

if TYPE_CHECKING:
    from pgrecall.ops.transfer import ExportProgress, ExportReport, ImportReport, Plan, Progress


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("import")(import_)
    app.command("export")(export)


def import_(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]", help="JSON Lines, packed with gzip or not; - reads stdin."
        ),
    ] = None,
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
    index: Annotated[
        str,
        typer.Option(
            metavar="auto|keep|defer",
            help="Whether to put the vector index off and build it at the end.",
        ),
    ] = "auto",
    connections: Annotated[
        int | None,
        typer.Option(metavar="N", help="How many write at once; chosen unless given."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how it would load, and write nothing.")
    ] = False,
    finish: Annotated[
        bool,
        typer.Option("--finish", help="Only build the index that an import has put off."),
    ] = False,
    dsn: options.Dsn = None,
    owner_dsn: options.OwnerDsn = None,
    embedder: options.EmbedderName = None,
    as_json: options.JsonFlag = None,
) -> None:
    """Record the episodes of a JSON Lines file; it can be repeated, and goes on where it stopped.

    A line is an object with the keys of episodes record. Bad lines are kept in the rejects file
    with their number and the reason, never stop the others, and make the exit code 1.

    Where many vectors come, the vector index is put off and built at the end, if that is expected
    to be faster. Recalls stay right meanwhile.
    """
    from pgrecall.errors import InvalidInput
    from pgrecall.ops.transfer import import_episodes, plan_import

    show = printer(as_json)
    if finish == (file is not None):
        raise InvalidInput("it is not clear what to do", hint="give a file, or --finish")
    if file is None:
        _finish(show, owner_dsn)
        return
    if not Path(file).is_file() and (file != "-" or dry_run):
        raise InvalidInput(
            f"there is no file {file}", hint="give a file; or - for standard input, but no dry run"
        )
    owner = _owner(dsn, owner_dsn, index)
    with open_memory(dsn, embedder) as memory:
        if dry_run:
            plan = plan_import(
                memory,
                Path(file),
                project_id=project,
                embed=embed,  # type: ignore[arg-type]
                index=index,  # type: ignore[arg-type]
                connections=connections,
                owner_dsn=owner,
            )
            _show_plan(show, plan)
            return
        with _importing() as on_progress:
            report = import_episodes(
                memory,
                sys.stdin.buffer if file == "-" else Path(file),
                project_id=project,
                rejects=rejects,
                batch_size=batch_size,
                embed=embed,  # type: ignore[arg-type]
                index=index,  # type: ignore[arg-type]
                connections=connections,
                owner_dsn=owner,
                on_progress=on_progress,
                on_plan=_note_plan,
            )
    if show.as_json:
        show.data(_with_rate(report))
    else:
        _show_import(show, report)
    if report.rejected:
        raise typer.Exit(1)


def _owner(dsn: str | None, owner_dsn: str | None, index: str) -> str | None:
    """Return the owner's connection string, or None where the import can do without."""
    from pgrecall.config import load_settings
    from pgrecall.errors import ConfigurationError
    from pgrecall.targets import direct_owner_dsn

    if index == "keep":
        return None
    try:
        return direct_owner_dsn(load_settings(dsn=dsn, owner_dsn=owner_dsn))
    except ConfigurationError:
        if index == "defer":
            raise
        return None  # the plan says that nobody named the owner


def _finish(show: Printer, owner_dsn: str | None) -> None:
    from pgrecall.config import load_settings
    from pgrecall.ops.transfer import finish_import
    from pgrecall.targets import direct_owner_dsn

    with working("opening the memory", at_once=False) as progress:
        target = direct_owner_dsn(load_settings(owner_dsn=owner_dsn), progress=progress)
    with progress_bar("building") as advance:
        built = finish_import(
            target,
            on_building=lambda one: advance(
                one.done, one.total, f"{one.index}: {one.phase}", one.rate
            ),
        )
    if show.as_json:
        show.data({"built": built})
    else:
        show.line(f"built: {', '.join(built)}" if built else "no index is put off")


@contextmanager
def _importing() -> Iterator[Callable[[Progress], None]]:
    with progress_bar("importing") as advance:

        def tell(progress: Progress) -> None:
            if (one := progress.building) is not None:
                advance(one.done, one.total, f"{one.index}: {one.phase}", one.rate)
                return
            counts = f"loading: {progress.read:,} read"
            if progress.rejected:
                counts += f", {progress.rejected:,} bad"
            advance(progress.bytes_read, progress.total_bytes, counts, progress.rate)

        yield tell


def _note_plan(plan: Plan) -> None:
    if plan.index != "keep" or plan.connections > 1:
        note(f"vector index: {plan.index} ({plan.why}); connections: {plan.connections}")


def _show_plan(show: Printer, plan: Plan) -> None:
    if show.as_json:
        show.data(asdict(plan))
        return

    def seconds(value: float | None) -> str | None:
        return None if value is None else f"about {value:,.0f} s"

    show.fields(
        [
            ("vector index", plan.index),
            ("because", plan.why),
            ("connections", plan.connections),
            ("vectors to come", f"about {plan.rows:,}"),
            ("vectors there", None if plan.present is None else f"about {plan.present:,}"),
            ("keeping the index", seconds(plan.keep_seconds)),
            ("building it", seconds(plan.defer_seconds)),
            ("server measured", plan.measured),
        ]
    )


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
    if report.built:
        show.line(f"{', '.join(report.built)} built in {report.build_seconds:.1f} s of these")
    for reject in report.first_rejects:
        show.line(f"line {reject.line}: {reject.reason}")
    if report.rejects is not None:
        show.line(f"bad lines are kept in {report.rejects}")


def _with_rate(report: Any) -> dict[str, Any]:
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
