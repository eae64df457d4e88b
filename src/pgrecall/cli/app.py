"""The ``pgrecall`` command: its nouns, and what becomes of errors."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pgrecall.cli import (
    backup,
    database,
    demo,
    embeddings,
    episodes,
    health,
    keys,
    knowledge,
    mcp,
    metrics,
    monitor,
    output,
    pooler,
    recall_check,
    retention,
    serve,
    server,
    sessions,
    transfer,
)
from pgrecall.errors import PgrecallError

_INTERRUPTED = 130
_BROKEN_PIPE = 141


class Commands(TyperGroup):
    """The root of all commands: turns errors of ours into messages and exit codes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _hide_derived_variables(self)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        output.forget()
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except PgrecallError as error:
            if os.environ.get("PGRECALL_DEBUG", "") not in ("", "0"):
                raise
            raise typer.Exit(output.report(error)) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(_INTERRUPTED) from error
        except BrokenPipeError as error:
            # Whoever read has seen enough. The interpreter would complain at its last flush.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(_BROKEN_PIPE) from error
        return result


def _hide_derived_variables(command: Any) -> None:
    """Show in the help only variables that are settings; every flag has a derived one besides."""
    for parameter in command.params:
        if getattr(parameter, "envvar", None) is None:
            parameter.show_envvar = False
    for child in getattr(command, "commands", {}).values():
        _hide_derived_variables(child)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"auto_envvar_prefix": "PGRECALL", "help_option_names": ["--help", "-h"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from pgrecall import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    as_json: Annotated[
        bool | None,
        typer.Option(
            "--json/--table",
            envvar="PGRECALL_JSON",
            help="Print JSON, or tables; before or after the subcommand. A terminal gets tables "
            "and a pipe JSON unless told otherwise.",
            show_default=False,
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool,
        typer.Option(
            "--version",
            callback=_version,
            is_eager=True,
            allow_from_autoenv=False,  # deployments tend to have a PGRECALL_VERSION
            help="Print the version.",
        ),
    ] = False,
) -> None:
    """Agent memory you can operate, on the PostgreSQL you already run."""
    output.choose(as_json)


database.register(app)
server.register(app)
health.register(app)
recall_check.register(app)
serve.register(app)
mcp.register(app)
app.add_typer(episodes.app, name="episodes")
app.add_typer(knowledge.app, name="knowledge")
app.add_typer(sessions.app, name="sessions")
app.add_typer(keys.app, name="keys")
app.add_typer(embeddings.app, name="embeddings")
app.add_typer(metrics.app, name="metrics")
app.add_typer(monitor.app, name="monitor")
app.add_typer(pooler.app, name="pooler")
app.add_typer(backup.app, name="backup")
transfer.register(episodes.app)
retention.register(episodes.app)
demo.register(app)
