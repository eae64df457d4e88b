"""``pgrecall metrics``: what the memory's operations cost, as rows."""

from __future__ import annotations

from typing import Annotated

import typer

from pgrecall.cli import options
from pgrecall.cli.opening import open_memory
from pgrecall.cli.output import choose, printer

app = typer.Typer(no_args_is_help=True)


@app.callback()
def metrics(as_json: options.JsonFlag = None) -> None:
    """Keep the table of measured operations small."""
    choose(as_json)


@app.command("prune")
def prune(
    keep_days: Annotated[
        float | None,
        typer.Option(
            envvar="PGRECALL_METRICS_KEEP_DAYS",
            metavar="DAYS",
            help="Days that metrics are kept, 30 unless given.",
        ),
    ] = None,
    dsn: options.Dsn = None,
    as_json: options.JsonFlag = None,
) -> None:
    """Delete older metrics, for memories whose agents don't: those that use SQL alone.

    The client does the same once an hour. With 0 days metrics are kept for ever, and nothing is
    deleted.
    """
    from pgrecall.config import load_settings

    show = printer(as_json)
    days = load_settings(metrics_keep_days=keep_days).metrics_keep_days
    deleted = 0
    if days > 0:
        with open_memory(dsn) as memory:
            deleted = memory.metrics.prune(keep=days * 86_400)
    if show.as_json:
        show.data({"deleted": deleted, "keep_days": days})
    else:
        show.line(f"deleted {deleted} metric{'s' if deleted != 1 else ''}")
