"""``pgrecall demo``: an agent that plans sprints with a memory, played before your eyes."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgrecall.cli.options import JsonFlag
from pgrecall.cli.output import Printer, printer, progress_bar, working

if TYPE_CHECKING:
    from pgrecall.cli.output import Advance
    from pgrecall.config import Settings
    from pgrecall.demo import DemoResult
    from pgrecall.ops.provision import Progress

DATABASE = "pgrecall_demo"
"""Where the demo plays if the memory that is configured is not on the embedded server."""


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("demo")(demo)


def demo(
    decisions: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many sprints the agent plans.")
    ] = 300,
    seed: Annotated[int, typer.Option(metavar="S", help="Another world, with other luck.")] = 7,
    as_json: JsonFlag = None,
) -> None:
    """Play an agent that plans sprints and learns from its memory, on the embedded server.

    Each run is a project of its own, which stays afterwards: list it, or recall from it. A server
    of yours is never touched. The tables come in a pipe too, unless --json is given.
    """
    from pgrecall import Memory
    from pgrecall.cli.opening import quiet
    from pgrecall.config import load_settings
    from pgrecall.demo import play

    show = printer(as_json)
    settings = quiet(load_settings())
    with working("opening the memory") as progress:
        target, database = _target(settings, progress)
    with (
        Memory.open(target, embedder="builtin", settings=settings) as memory,
        progress_bar("deciding") as advance,
    ):
        result = play(memory, decisions=decisions, seed=seed, on_step=_follow(advance, decisions))
    if show.asked_for_json:
        show.data(_summary(result, database))
        return
    from pgrecall.demo.present import show as show_result

    show_result(result, show.console)
    _tell_next(show, result, database)


def _target(settings: Settings, progress: Progress) -> tuple[str, str]:
    """Return where to play, and the database's name: always the embedded server."""
    from pgrecall.config import load_settings
    from pgrecall.ops import embedded
    from pgrecall.ops.provision import dsn_for
    from pgrecall.targets import resolve_dsn

    if settings.dsn is None and (
        not settings.service_file.exists() or embedded.is_configured(settings)
    ):
        return resolve_dsn(settings, progress=progress), settings.database
    # The services of the memory that is configured must go on leading there.
    aside = load_settings(config_dir=settings.config_dir / "demo", database=DATABASE)
    embedded.provision(aside, dimensions=384, progress=progress)
    return dsn_for(aside, "app"), DATABASE


def _follow(advance: Advance, decisions: int) -> Any:
    import time

    started = time.monotonic()
    done = 0

    def step(_: object) -> None:
        nonlocal done
        done += 1
        rate = done / max(time.monotonic() - started, 1e-9)
        advance(done, decisions, f"{done:,} decisions", rate)

    return step


def _summary(result: DemoResult, database: str) -> dict[str, Any]:
    return {
        "database": database,
        "project_id": result.project_id,
        "seed": result.seed,
        "decisions": len(result.steps),
        "seconds": round(result.seconds, 3),
        "recall_ms": {"median": result.recall_ms(0.5), "p95": result.recall_ms(0.95)},
        "thirds": result.thirds(),
        "lessons": {
            kind: {
                practice: {"count": count, "mean_quality": quality}
                for practice, (count, quality) in practices.items()
            }
            for kind, practices in result.lessons().items()
        },
    }


def _tell_next(show: Printer, result: DemoResult, database: str) -> None:
    show.line()
    if database == DATABASE:
        show.line(f"The memory that is configured was not touched; this was database {DATABASE}.")
        return
    show.line("These decisions stay in the memory. Ask it yourself:")
    situation = shlex.quote(result.steps[-1].situation.describe())
    show.plain(f"  pgrecall episodes recall {situation} --project {result.project_id}")
