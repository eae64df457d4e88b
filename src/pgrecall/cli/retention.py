"""``pgrecall episodes prune``: deletes what is older than it need be."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pgrecall.cli import options
from pgrecall.cli.output import printer, progress_bar, working

if TYPE_CHECKING:
    from pgrecall.ops.retention import Pruned


def register(episodes: typer.Typer) -> None:
    """Add the command of this file."""
    episodes.command("prune")(prune)


def prune(
    older_than: Annotated[
        float,
        typer.Option(
            "--older-than", metavar="DAYS", min=0, help="Delete episodes from before so many days."
        ),
    ],
    project: options.Project = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    batch_size: Annotated[
        int, typer.Option(metavar="N", min=1, max=10_000, help="Episodes deleted at a time.")
    ] = 200,
    share: Annotated[
        float,
        typer.Option(metavar="SHARE", min=0.01, max=1, help="Share of the time to work in."),
    ] = 0.5,
    dsn: options.Dsn = None,
    as_json: options.JsonFlag = None,
) -> None:
    """Delete old episodes while agents go on.

    What knowledge rests on as evidence is kept, and what somebody is at work on is left for the
    next time. It may be stopped anywhere.
    """
    from datetime import UTC, datetime, timedelta

    from pgrecall.cli.stopping import stopped_by_signals
    from pgrecall.config import load_settings
    from pgrecall.ops.retention import Retention
    from pgrecall.ops.retention import prune as run
    from pgrecall.targets import resolve_dsn

    show = printer(as_json)
    settings = load_settings(dsn=dsn)
    with working("looking at the memory", at_once=False) as progress:
        target = resolve_dsn(settings, progress=progress)
    with stopped_by_signals() as stop, progress_bar("deleting", hidden=dry_run) as advance:
        done = run(
            target,
            Retention(
                before=datetime.now(UTC) - timedelta(days=older_than),
                project_id=project,
                batch=batch_size,
                share=share,
                stop=stop,
                on_progress=advance,
            ),
            dry_run=dry_run,
        )
    if show.as_json:
        show.data({**asdict(done), "left": done.left, "dry_run": dry_run})
    else:
        show.line(_told(done, dry_run=dry_run))


def _told(done: Pruned, *, dry_run: bool) -> str:
    if dry_run:
        return f"{done.old:,} episodes are old enough; nothing was changed"
    text = f"deleted {done.deleted:,} of {done.old:,}"
    if done.evidence:
        text += f", kept {done.evidence:,} on which knowledge rests"
    return text + (f", left {done.left:,} for the next time" if done.left else "")
