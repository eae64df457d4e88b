"""``pgrecall embeddings``: what is embedded, making what is missing, changing the model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pgrecall.cli import options, output
from pgrecall.cli.output import Column, Printer, faint, note, printer, progress_bar, working

if TYPE_CHECKING:
    from pgrecall.config import Settings
    from pgrecall.ops.embeddings import Comparison, Status, Storage, Switch, SwitchReport

app = typer.Typer(no_args_is_help=True)

OwnerDsn = Annotated[
    str | None,
    typer.Option(
        "--owner-dsn",
        envvar="PGRECALL_OWNER_DSN",
        metavar="DSN",
        help="Connection string of the owner role, past a pooler.",
    ),
]


@app.callback()
def embeddings(as_json: options.JsonFlag = None) -> None:
    """Embeddings: what has its vector, making what is missing, changing the model."""
    output.choose(as_json)


@app.command("status")
def status(dsn: options.Dsn = None, as_json: options.JsonFlag = None) -> None:
    """Show the model, rows with and without a vector, what waits, and a change under way."""
    from pgrecall.config import load_settings
    from pgrecall.ops.embeddings import status as look
    from pgrecall.targets import resolve_dsn

    show = printer(as_json)
    settings = load_settings(dsn=dsn)
    with working("looking at the memory", at_once=False) as progress:
        found = look(resolve_dsn(settings, progress=progress))
    if show.as_json:
        show.data(asdict(found))
    else:
        _show_status(show, found)


@app.command("backfill")
def backfill(
    loop: Annotated[
        bool, typer.Option("--loop", help="Go on when nothing is left, until stopped.")
    ] = False,
    batch_size: Annotated[
        int, typer.Option(metavar="N", min=1, max=1000, help="Texts taken at a time.")
    ] = 32,
    lease: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=1, help="When others may take the texts of a worker that died."
        ),
    ] = 60.0,
    give_up_after: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="How long to try without embedder or server."),
    ] = 600.0,
    retry_refused: Annotated[
        bool, typer.Option("--retry-refused", help="Try refused texts again as well.")
    ] = False,
    dsn: options.Dsn = None,
    embedder: options.EmbedderName = None,
    as_json: options.JsonFlag = None,
) -> None:
    """Make the vectors that are missing; any number of these may run at once.

    Exit code 1 if texts were refused. With --loop it never gives up.
    """
    from pgrecall.cli.stopping import stopped_by_signals
    from pgrecall.config import load_settings
    from pgrecall.ops.embeddings import Backfill, retry
    from pgrecall.ops.embeddings import backfill as run
    from pgrecall.targets import resolve_dsn

    show = printer(as_json)
    settings = load_settings(dsn=dsn, embedder=embedder)
    with working("opening the memory", at_once=False) as progress:
        target = resolve_dsn(settings, progress=progress)
    if retry_refused:
        retry(target)
    with stopped_by_signals() as stop, progress_bar("embedding") as advance:
        report = run(
            target,
            Backfill(
                settings=settings,
                batch=batch_size,
                lease=lease,
                loop=loop,
                patience=None if loop else give_up_after,
                stop=stop,
                on_progress=advance,
            ),
        )
    if show.as_json:
        show.data(asdict(report))
    else:
        show.line(
            f"{report.stored:,} vectors stored in {report.seconds:.1f} s, {report.refused:,} texts "
            f"refused, {report.empty:,} rows say nothing, {report.left:,} wait"
        )
    if report.refused:
        raise typer.Exit(1)


@app.command("switch")
def switch(
    to: Annotated[
        str | None,
        typer.Option(
            metavar="EMBEDDER", help="The new embedder, such as ollama:mxbai-embed-large."
        ),
    ] = None,
    renderer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What is to make the texts: python:MODULE:FUNCTION."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="How vectors are stored: vector, or halfvec, in half the space.",
        ),
    ] = None,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Prepare and compare only; change over later.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Change over without asking.")] = False,
    back: Annotated[bool, typer.Option("--back", help="Let the old model serve again.")] = False,
    finish: Annotated[bool, typer.Option("--finish", help="Drop what the old model made.")] = False,
    abort: Annotated[
        bool, typer.Option("--abort", help="Give the change up, wherever it is.")
    ] = False,
    queries: Annotated[
        int, typer.Option(metavar="N", min=0, help="Queries to compare the two by.")
    ] = 30,
    batch_size: Annotated[
        int, typer.Option(metavar="N", min=1, max=1000, help="Texts embedded at a time.")
    ] = 32,
    owner_dsn: OwnerDsn = None,
    as_json: options.JsonFlag = None,
) -> None:
    """Change the embedding model, while agents go on reading and writing.

    Vectors of the new model are made beside the old ones, and indexed; the two are compared; then
    names change in one moment. Interrupted anywhere, the same command goes on. The old vectors are
    kept until --finish; until then --back and --abort undo the change.
    """
    from pgrecall.errors import InvalidInput

    show = printer(as_json)
    forward = to is not None or renderer is not None or storage is not None
    if sum((forward, back, finish, abort)) != 1:
        raise InvalidInput(
            "it is not clear what to do",
            hint="give --to, --renderer or --storage, or one of --back, --finish, --abort",
        )
    with _switching(owner_dsn, batch_size) as work:
        if not forward:
            report = work.back() if back else work.finish() if finish else work.abort()
        else:
            report = work.prepare(to, renderer, storage=_storage(storage), queries=queries)
            if report.state == "ready" and report.beside is not None and not prepare:
                if report.comparison is not None and not show.as_json:
                    _show_comparison(show, report.comparison)
                if yes or _asked(report):
                    compared = report.comparison
                    report = work.change_over()
                    report = _with(report, compared)
    if show.as_json:
        show.data(asdict(report))
    else:
        _show_report(show, report)


def _storage(name: str | None) -> Storage | None:
    from pgrecall.errors import InvalidInput

    known: dict[str, Storage] = {"vector": "vector", "halfvec": "halfvec"}
    if name is None or name in known:
        return None if name is None else known[name]
    raise InvalidInput(
        f"vectors cannot be stored as {name!r}", hint="give --storage vector or --storage halfvec"
    )


def _with(report: SwitchReport, comparison: Comparison | None) -> SwitchReport:
    from dataclasses import replace

    return replace(report, comparison=comparison)


def _asked(report: SwitchReport) -> bool:
    """Ask whether to change over; where nobody can be asked, the answer is no."""
    return sys.stdin.isatty() and typer.confirm(f"Let {report.beside} serve now?", err=True)


@contextmanager
def _switching(owner_dsn: str | None, batch: int) -> Iterator[Switch]:
    from pgrecall.cli.stopping import stopped_by_signals
    from pgrecall.config import load_settings
    from pgrecall.ops.embeddings import Switch

    settings = load_settings(owner_dsn=owner_dsn)
    target = _owner(settings)
    with stopped_by_signals() as stop, progress_bar("embedding") as advance:
        yield Switch(
            dsn=target,
            settings=settings,
            say=note,
            on_progress=advance,
            stop=stop,
            batch=batch,
        )


def _owner(settings: Settings) -> str:
    from pgrecall.targets import resolve_dsn

    with working("opening the memory", at_once=False) as progress:
        return resolve_dsn(settings, "owner", progress=progress)


def _show_status(show: Printer, found: Status) -> None:
    for model in found.models:
        waiting = f"{model.waiting:,}" + (
            f", since {model.oldest:%F %T %Z}" if model.oldest else ""
        )
        show.fields(
            [
                ("model", model.identity or faint("not named yet")),
                ("role", "serves" if model.serving else "stands beside"),
                ("embedder", model.embedder),
                ("texts made by", model.renderer),
                ("revision", model.revision),
                ("dimensions", model.dimensions),
                ("stored as", model.storage),
                *[
                    (one.relation, f"{one.embedded:,} of {one.rows:,} rows have a vector")
                    for one in model.tables
                ],
                ("waiting", waiting),
                ("refused", model.refused),
                ("rate", None if model.rate is None else f"{model.rate:.1f} a second"),
            ]
        )
    if len(found.models) > 1:
        new, old = sorted(found.models, key=lambda model: -model.number)
        show.line(
            f"A change from {old.title} to {new.title} "
            + ("was made; end it with --finish or --back." if new.serving else "is under way.")
        )
    if found.refused:
        show.table(
            [Column(name="refused"), Column(name="id"), Column(name="reason", wraps=True)],
            [(one.kind, str(one.id), one.reason) for one in found.refused],
        )


def _show_comparison(show: Printer, found: Comparison) -> None:
    def share(value: float | None) -> str | None:
        return None if value is None else f"{value:.3f}"

    def milliseconds(value: float | None) -> str | None:
        return None if value is None else f"{value:.1f} ms"

    show.table(
        [Column(name="measure"), Column(name="old", right=True), Column(name="new", right=True)],
        [
            ("search, median", milliseconds(found.old_ms), milliseconds(found.new_ms)),
            (
                "embedding a query",
                milliseconds(found.old_embed_ms),
                milliseconds(found.new_embed_ms),
            ),
            ("of the nearest, found by the index", None, share(found.recall)),
            ("of the ten found, the same", None, share(found.overlap)),
        ],
    )
    stored = found.queries - found.posed
    show.line(
        f"By {found.posed} queries of agents and {stored} situations of stored episodes, "
        "themselves left out; without filters."
    )


def _show_report(show: Printer, report: SwitchReport) -> None:
    show.fields(
        [
            ("state", report.state),
            ("serves", report.serving),
            ("beside", report.beside),
            ("refused", report.refused),
            ("writers held up", None if report.held_ms is None else f"{report.held_ms:.0f} ms"),
        ]
    )
    if report.state == "switched":
        show.line("The old vectors are kept: --back lets them serve again, --finish drops them.")
    elif report.state == "ready" and report.beside is not None:
        show.line(
            "Nothing has changed for agents; run the command again with --yes to change over."
        )
