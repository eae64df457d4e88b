"""``pgrecall mcp``: the memory as a server of the Model Context Protocol, over stdio."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from pgrecall.cli.options import Dsn, EmbedderName, JsonFlag


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("mcp")(mcp)


def mcp(
    project: Annotated[
        str | None,
        typer.Option(
            "--project",
            "-p",
            metavar="ID",
            help="Serve this project alone; tools then need no project_id.",
        ),
    ] = None,
    dsn: Dsn = None,
    embedder: EmbedderName = None,
    as_json: JsonFlag = None,  # noqa: ARG001 - as of every command; what is printed is JSON
) -> None:
    """Serve the memory to an MCP client over standard input and output, until the client goes.

    Whoever starts it may do all with the memory. Logs go to standard error.
    """
    from pgrecall.cli.opening import quiet
    from pgrecall.config import load_settings
    from pgrecall.serving.mcp import load_stdio
    from pgrecall.telemetry.logs import configure

    settings = quiet(load_settings(dsn=dsn, embedder=embedder))
    configure(settings)
    asyncio.run(load_stdio().serve(settings, project))
