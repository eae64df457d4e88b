"""``pgrecall verify`` and ``doctor``: whether all is well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from pgrecall.cli.options import DirectDsn, JsonFlag, OwnerDsn
from pgrecall.cli.output import NARROW, Column, Printer, clean, faint, printer, state, working

if TYPE_CHECKING:
    from rich.text import Text

    from pgrecall.ops.checks import Check, Status


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("verify")(verify)
    app.command("doctor")(doctor)


def verify(
    owner_dsn: OwnerDsn = None, direct_dsn: DirectDsn = None, as_json: JsonFlag = None
) -> None:
    """Check the database against the specification; leaves nothing behind.

    Exit code 1 if any check fails.
    """
    from pgrecall.config import load_settings
    from pgrecall.ops.verify import verify as run
    from pgrecall.targets import direct_owner_dsn

    show = printer(as_json)
    settings = load_settings(owner_dsn=owner_dsn, direct_dsn=direct_dsn)
    with working("verifying") as progress:
        target = direct_owner_dsn(settings, progress=progress)
        checks = run(
            target,
            pooler_dsn=None if settings.dsn is None else settings.dsn.get_secret_value(),
            # A way around a pooler was named, so the ordinary way leads through it.
            pooler_claimed=settings.direct_dsn is not None,
        )
    _show(show, checks)


def doctor(
    owner_dsn: OwnerDsn = None,
    direct_dsn: DirectDsn = None,
    sizing: Annotated[
        bool, typer.Option("--sizing", help="Plan memory, disk and time instead.")
    ] = False,
    rows: Annotated[
        list[int] | None,
        typer.Option(
            "--rows", metavar="N", min=1, help="With --sizing: episodes to plan for; repeatable."
        ),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(
            "--memory",
            metavar="GIB",
            min=0.1,
            help="With --sizing: memory of the server's machine.",
        ),
    ] = None,
    as_json: JsonFlag = None,
) -> None:
    """Look for what endangers or slows the memory: versions, indexes, rights, settings.

    Exit code 1 if anything is broken; warnings alone give 0. With --sizing it plans instead: what
    the memory takes at a number of rows, for each way to store its vectors.
    """
    from pgrecall.config import load_settings
    from pgrecall.errors import InvalidInput
    from pgrecall.ops.doctor import doctor as run
    from pgrecall.ops.embedded import wanted_dimensions
    from pgrecall.targets import direct_owner_dsn

    show = printer(as_json)
    settings = load_settings(owner_dsn=owner_dsn, direct_dsn=direct_dsn)
    if sizing:
        from pgrecall.cli.sizing import show_sizing

        show_sizing(show, settings, rows, memory)
        return
    if rows is not None or memory is not None:
        raise InvalidInput("--rows and --memory say nothing here", hint="add --sizing")
    with working("examining") as progress:
        target = direct_owner_dsn(settings, progress=progress)
        checks = run(target, settings=settings, embedder_dimensions=wanted_dimensions(settings))
    _show(show, checks)


def _show(show: Printer, checks: Sequence[Check]) -> None:
    from pgrecall.ops.checks import exit_code

    if show.as_json:
        show.data([check.as_dict for check in checks])
    else:
        print_checks(show, checks)
    raise typer.Exit(exit_code(checks))


def print_checks(show: Printer, checks: Sequence[Check]) -> None:
    """Print what was looked at, as wide as the terminal allows, and the counts below."""
    if show.width < NARROW:
        _list(show, checks)
    else:
        _table(show, checks)
    show.line()
    counts = Counter(check.status for check in checks)
    order: tuple[Status, ...] = ("passed", "warning", "failed", "not configured")
    show.line(", ".join(f"{counts[name]} {name}" for name in order if counts[name]))


def _list(show: Printer, checks: Sequence[Check]) -> None:
    """Print checks below each other, where columns would leave no room for the evidence."""
    from rich.text import Text

    for check in checks:
        show.line(Text.assemble(state(check.status), " ", (clean(check.id), "bold")))
        show.indented(Text(clean(check.title), style="dim"))
        show.indented(_evidence(check))


def _table(show: Printer, checks: Sequence[Check]) -> None:
    columns = [
        Column(name="check", wraps=True, share=3),
        Column(name="status"),
        Column(name="evidence", wraps=True, share=5),
    ]
    rows = [[_titled(check), state(check.status), _evidence(check)] for check in checks]
    if any(check.duration_ms is not None for check in checks):
        columns.append(Column(name="ms", right=True, from_width=90))
        for row, check in zip(rows, checks, strict=True):
            row.append(faint(f"{check.duration_ms:.1f}" if check.duration_ms else ""))
    show.table(columns, rows)


def _titled(check: Check) -> Text:
    from rich.text import Text

    return Text.assemble((clean(check.id), "bold"), "\n", (clean(check.title), "dim"))


def _evidence(check: Check) -> Text:
    from rich.text import Text

    text = Text(clean(check.evidence))
    if check.remedy and check.status != "passed":
        text.append(f"\n→ {clean(check.remedy)}", style="cyan")
    return text
