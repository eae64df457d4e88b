"""``pgrecall recall-check``: how much of the truth recalls find."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgrecall.cli import options
from pgrecall.cli.output import Column, Printer, faint, printer, progress_bar, shorten, working

if TYPE_CHECKING:
    from rich.text import Text

    from pgrecall.ops.recall_check import Measured, Report, Share

_FILTER_LENGTH = 40


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("recall-check")(recall_check)


def recall_check(
    queries: Annotated[
        int,
        typer.Option(
            metavar="N", help="Queries at most: the newest of agents, then stored vectors."
        ),
    ] = 20,
    budget: Annotated[
        float, typer.Option(metavar="SECONDS", help="When to stop, whatever was measured.")
    ] = 60.0,
    ef_search: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...", help="Search the index with these values of hnsw.ef_search besides."
        ),
    ] = None,
    least: Annotated[
        float, typer.Option(metavar="R", help="Mean recall below which the exit code is 1.")
    ] = 0.95,
    dsn: options.Dsn = None,
    as_json: options.JsonFlag = None,
) -> None:
    """Compare recalls with exact searches, and write down how much of the truth they find.

    Exit code 1 if that is less than --least. Queries are those that agents posed, of which
    PGRECALL_RECALL_SAMPLE_RATE says how many are kept; where they are too few, stored vectors
    stand for queries.
    """
    from pgrecall.config import load_settings
    from pgrecall.core.checks import check_fraction
    from pgrecall.ops.recall_check import recall_check as run
    from pgrecall.targets import resolve_dsn

    show = printer(as_json)
    least = check_fraction(least, "--least") or 0.0
    values = _numbers(ef_search)
    settings = load_settings(dsn=dsn)
    with working("opening the memory", at_once=False) as progress:
        target = resolve_dsn(settings, progress=progress)
    with progress_bar("checking recall") as advance:
        report = run(
            target,
            queries=queries,
            budget_seconds=budget,
            ef_search=values,
            on_progress=advance,
        )
    if show.as_json:
        show.data(_as_dict(report))
    else:
        _show(show, report)
    if report.total.recall is not None and report.total.recall < least:
        raise typer.Exit(1)


def _numbers(text: str | None) -> list[int]:
    from pgrecall.errors import InvalidInput

    try:
        return [int(part) for part in (text or "").split(",") if part.strip()]
    except ValueError as error:
        raise InvalidInput(
            f"--ef-search is {text!r}", hint="give numbers with commas between, as in 100,200,400"
        ) from error


def _as_dict(report: Report) -> dict[str, Any]:
    return {
        "queries": [asdict(one) for one in report.measured],
        "total": asdict(report.total),
        "exact_ms": report.exact_ms,
        "routes": [asdict(share) for share in report.routes],
        "ef_search": report.ef_search,
        "ef_searches": [asdict(share) for share in report.settings],
        "enough": None if report.enough is None else int(report.enough.name),
        "cut_short": report.cut_short,
        "recorded": report.recorded,
    }


def _show(show: Printer, report: Report) -> None:
    if not report.measured:
        show.line("Nothing to check: no episode has a vector yet.")
        return
    show.table(
        [
            Column(name="kind", from_width=100),
            Column(name="query", from_width=72),
            Column(name="filter", wraps=True),
            Column(name="route"),
            Column(name="found", right=True),
            Column(name="right", right=True),
            Column(name="recall", right=True),
            Column(name="ms", right=True),
            Column(name="exact ms", right=True, from_width=72),
        ],
        [_row(one) for one in report.measured],
    )
    show.line()
    show.line(_summary(report))
    for share in report.routes:
        show.line(faint(f"  {share.name}: {_reached(share)} ({share.queries} queries)"))
    stored = sum(not one.posed for one in report.measured)
    if stored:
        show.line(
            faint(
                f"{stored} of {len(report.measured)} are stored vectors: too few queries that "
                "agents posed are kept"
            )
        )
    if report.cut_short:
        show.line(
            faint(f"the budget ended it after {len(report.measured)} of {report.wanted} queries")
        )
    if not report.recorded:
        show.line(faint("nothing was written down: no query has matches, or this is a standby"))
    if any(one.tried for one in report.measured):
        _show_settings(show, report)


def _row(one: Measured) -> list[Any]:
    recall = one.recall
    return [
        one.kind,
        "posed" if one.posed else faint("stored"),
        _filter(one.filter),
        one.route,
        one.found,
        one.right,
        faint("no match") if recall is None else _graded(recall),
        f"{one.milliseconds:.1f}",
        f"{one.exact_ms:.1f}",
    ]


def _filter(values: dict[str, Any]) -> str | Text:
    if not values:
        return faint("none")
    return shorten(", ".join(f"{name}={value}" for name, value in values.items()), _FILTER_LENGTH)


def _graded(recall: float) -> Text:
    from rich.text import Text

    from pgrecall.ops.recall_check import GOOD

    style = "green" if recall >= GOOD else "yellow" if recall >= 0.9 else "red"
    return Text(f"{recall:.3f}", style=style)


def _summary(report: Report) -> str:
    total = report.total
    if total.recall is None:
        return f"none of {len(report.measured)} queries has anything that matches it"
    nothing = (
        f"{total.nothing_right} found nothing right"
        if total.nothing_right
        else "each found something right"
    )
    return (
        f"mean recall {total.recall:.3f}, precision {total.precision:.3f}; of {total.queries} "
        f"queries {nothing}; median {total.median_ms:.1f} ms, exact {report.exact_ms:.1f} ms"
    )


def _reached(share: Share) -> str:
    if share.recall is None:
        return "nothing matches"
    return f"recall {share.recall:.3f}, median {share.median_ms:.1f} ms"


def _show_settings(show: Printer, report: Report) -> None:
    show.line()
    show.table(
        [
            Column(name="ef_search", right=True),
            Column(name="queries", right=True),
            Column(name="recall", right=True),
            Column(name="precision", right=True, from_width=72),
            Column(name="nothing right", right=True),
            Column(name="ms", right=True),
        ],
        [
            (
                share.name,
                share.queries,
                None if share.recall is None else _graded(share.recall),
                None if share.precision is None else f"{share.precision:.2f}",
                share.nothing_right,
                None if share.median_ms is None else f"{share.median_ms:.1f}",
            )
            for share in report.settings
        ],
    )
    show.line()
    show.line(_verdict(report))


def _verdict(report: Report) -> str:
    from pgrecall.ops.recall_check import GOOD

    now = next((one for one in report.settings if one.name == str(report.ef_search)), None)
    enough = report.enough
    if enough is None:
        return (
            f"No ef_search of these reaches {GOOD}. `pgrecall doctor` proposes how to build the "
            "index anew."
        )
    text = (
        f"ef_search {enough.name} is the smallest of these that reaches {GOOD}: {_reached(enough)}"
    )
    if now is not None and now.name != enough.name:
        return f"{text}, where {now.name}, which is set, has {_reached(now)}"
    return f"{text}; {report.ef_search} is set"
