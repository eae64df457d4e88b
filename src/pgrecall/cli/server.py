"""``pgrecall start``, ``stop``, ``status`` and ``logs``: the embedded server."""

from __future__ import annotations

from typing import Annotated

import typer

from pgrecall.cli.options import DataDir, JsonFlag, PgBin
from pgrecall.cli.output import printer, working


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("start")(start)
    app.command("stop")(stop)
    app.command("status")(status)
    app.command("logs")(logs)


def start(data_dir: DataDir = None, pg_bin: PgBin = None, as_json: JsonFlag = None) -> None:
    """Start the embedded server, creating it at the first time."""
    from pgrecall.config import load_settings
    from pgrecall.ops import embedded

    show = printer(as_json)
    settings = load_settings(data_dir=data_dir, pg_bin=pg_bin)
    with working("starting the server") as progress:
        info = embedded.start(settings, progress=progress)
    if show.as_json:
        show.data(info)
        return
    verb = "started" if info.started else "runs already"
    show.line(f"PostgreSQL {info.version} {verb} on {info.host}:{info.port}")
    show.line(f"its data: {info.data_dir}")


def stop(
    force: Annotated[
        bool, typer.Option("--force", help="Stop it even though clients are connected.")
    ] = False,
    data_dir: DataDir = None,
    as_json: JsonFlag = None,
) -> None:
    """Stop the embedded server; what was committed stays."""
    from pgrecall.config import load_settings
    from pgrecall.ops import embedded

    show = printer(as_json)
    server = embedded.server_of(load_settings(data_dir=data_dir))
    with working("stopping the server"):
        stopped = server.stop(force=force)
    if show.as_json:
        show.data({"stopped": stopped})
    else:
        show.line("stopped" if stopped else "it was not running")


def status(data_dir: DataDir = None, as_json: JsonFlag = None) -> None:
    """Say whether the embedded server runs, and where; changes nothing."""
    from pgrecall.config import load_settings
    from pgrecall.ops import embedded

    show = printer(as_json)
    seen = embedded.server_of(load_settings(data_dir=data_dir)).status()
    if show.as_json:
        show.data(seen)
        return
    if not seen.created:
        show.line(f"There is no embedded server in {seen.data_dir} yet; pgrecall start makes one.")
        return
    show.fields(
        [
            ("state", "running" if seen.running else seen.phase),
            ("version", seen.version and f"PostgreSQL {seen.version}"),
            ("address", seen.port and f"127.0.0.1:{seen.port}"),
            ("process", seen.pid),
            ("since", seen.since),
            ("connections", seen.connections),
            ("data", str(seen.data_dir)),
        ]
    )


def logs(
    lines: Annotated[int, typer.Option(metavar="N", min=1, help="How many of the last.")] = 100,
    data_dir: DataDir = None,
    as_json: JsonFlag = None,
) -> None:
    """Print the last lines of the embedded server's log; plain text unless --json is given."""
    from pgrecall.config import load_settings
    from pgrecall.ops import embedded

    show = printer(as_json)
    found = embedded.server_of(load_settings(data_dir=data_dir)).logs(lines)
    if show.asked_for_json:
        show.data(found)
    elif found:
        show.plain("\n".join(found))
