"""``pgrecall serve``: the memory and its embedder over HTTP."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from pgrecall.cli.options import Dsn, EmbedderName, JsonFlag
from pgrecall.cli.output import printer
from pgrecall.errors import PgrecallError

if TYPE_CHECKING:
    from pgrecall.config import Settings


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("serve")(serve)


def serve(
    host: Annotated[
        str | None,
        typer.Option(
            envvar="PGRECALL_SERVE_HOST",
            metavar="ADDRESS",
            help="Address to listen on (127.0.0.1 unless given); beyond this machine once there "
            "are keys.",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            envvar="PGRECALL_SERVE_PORT",
            metavar="PORT",
            min=0,
            max=65535,
            help="Port there; 0 for a free one (8750 unless given).",
        ),
    ] = None,
    memory: Annotated[
        bool | None,
        typer.Option(
            "--memory/--no-memory",
            envvar="PGRECALL_SERVE_MEMORY",
            help="Serve the memory, setting the embedded server up if need be; or embeddings "
            "alone, without a database. Unless given, the memory if a database is configured: "
            "by --dsn, or by pgrecall init.",
            show_default=False,
        ),
    ] = None,
    backfill: Annotated[
        bool,
        typer.Option("--backfill", help="Make the vectors that are missing in the memory as well."),
    ] = False,
    dsn: Dsn = None,
    embedder: EmbedderName = None,
    as_json: JsonFlag = None,
) -> None:
    """Serve the memory and its embedder over HTTP until stopped.

    Without a database it serves embeddings alone, to OpenAI's clients too. At SIGTERM or Ctrl-C
    it takes no more requests and finishes those under way.
    """
    from pgrecall.cli.stopping import stopped_by_signals
    from pgrecall.config import load_settings
    from pgrecall.serving import load_server
    from pgrecall.telemetry.logs import configure

    show = printer(as_json)
    settings = load_settings(
        serve_host=host, serve_port=port, serve_memory=memory, embedder=embedder, dsn=dsn
    )
    configure(settings)
    server = load_server()

    def announce(address: str) -> None:
        if show.asked_for_json:
            show.data({"address": address})
        else:
            show.line(f"listening: {address}")
        sys.stdout.flush()  # whoever started it may wait for this line

    with stopped_by_signals() as stop, _backfilling(settings, stop, wanted=backfill):
        ended = server.run(settings, stop, announce)
    if not ended.idle:
        # Python would wait for the threads that still embed, which the drain has just given up.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)


@contextmanager
def _backfilling(settings: Settings, stop: threading.Event, *, wanted: bool) -> Iterator[None]:
    """Make missing vectors in the background; if that cannot go on, the server stops too."""
    if not wanted:
        yield
        return
    from pgrecall.ops.embeddings import Backfill
    from pgrecall.ops.embeddings import backfill as run
    from pgrecall.targets import resolve_dsn

    target = resolve_dsn(settings)
    failures: list[PgrecallError] = []

    def work() -> None:
        try:
            run(target, Backfill(settings=settings, loop=True, stop=stop))
        except PgrecallError as error:
            failures.append(error)
            stop.set()

    worker = threading.Thread(target=work, name="pgrecall-backfill", daemon=True)
    worker.start()
    yield
    stop.set()
    worker.join(settings.serve_drain)
    if failures:
        raise failures[0]
