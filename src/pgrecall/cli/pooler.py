"""``pgrecall pooler``: PgBouncer in front of the database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgrecall.cli.options import AdminDsn, Database, JsonFlag
from pgrecall.cli.output import Column, Printer, choose, printer, shorten, state, working

if TYPE_CHECKING:
    from pgrecall.ops.pooler import PoolerReport

app = typer.Typer(no_args_is_help=True)


@app.callback()
def pooler(as_json: JsonFlag = None) -> None:
    """Put PgBouncer in front of the database."""
    choose(as_json)


@app.command("config")
def config(
    directory: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIRECTORY",
            help="Where the files go; `pgbouncer` in the configuration directory unless given.",
            show_default=False,
        ),
    ] = None,
    dsn: AdminDsn = None,
    database: Database = None,
    also: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Another database of the server to serve; repeatable."),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="HOST", help="How PgBouncer reaches the server, if not as --dsn does."
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(metavar="PORT", help="The server's port for PgBouncer.")
    ] = None,
    listen_addr: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Where it listens: 0.0.0.0, or 127.0.0.1 before a server on loopback only.",
            show_default=False,
        ),
    ] = None,
    listen_port: Annotated[
        int, typer.Option(metavar="PORT", help="Port that it listens on.")
    ] = 6432,
    max_client_conn: Annotated[int, typer.Option(metavar="N", help="Most clients.")] = 200,
    default_pool_size: Annotated[
        int, typer.Option(metavar="N", help="Server connections for each database and role.")
    ] = 25,
    admin_user: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE", help="A role that may command it in its console; repeatable."),
    ] = None,
    pgbouncer_version: Annotated[
        str | None,
        typer.Option(
            metavar="X.Y", help="Version to write for; that of the one installed here unless given."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Any setting of PgBouncer; wins over ours."
        ),
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option(
            metavar="USER", help="System user that PgBouncer runs as, who gets the files; as root."
        ),
    ] = None,
    reset_password: Annotated[
        bool, typer.Option("--reset-password", help="Give the pooler's role a new password.")
    ] = False,
    unchecked: Annotated[
        bool,
        typer.Option(
            "--unchecked",
            help="Don't look whether PgBouncer would reach this very server, when the files are "
            "for another network.",
        ),
    ] = False,
    as_json: JsonFlag = None,
) -> None:
    """Write PgBouncer's configuration, and make the role with which it looks users up.

    It can be repeated: what is there already is left as it is. Needs a superuser of the server.
    """
    from pgrecall.config import load_settings
    from pgrecall.ops.pooler import PoolerRequest, configure
    from pgrecall.ops.pooler.request import parse_settings
    from pgrecall.targets import admin_dsn

    show = printer(as_json)
    settings = load_settings(database=database)
    values = parse_settings(set_ or ())
    with working("configuring the pooler") as progress:
        request = PoolerRequest(
            admin_dsn=admin_dsn(settings, dsn, progress=progress),
            database=settings.database,
            directory=directory or settings.config_dir / "pgbouncer",
            also=tuple(also or ()),
            host=host,
            port=port,
            listen_addr=listen_addr,
            listen_port=listen_port,
            max_client_conn=max_client_conn,
            default_pool_size=default_pool_size,
            admin_users=tuple(admin_user or ()),
            pgbouncer_version=pgbouncer_version,
            settings=values,
            owner=owner,
            reset_password=reset_password,
            unchecked=unchecked,
        )
        report = configure(request, settings=settings, progress=progress)
    if show.as_json:
        show.data({**_as_dict(report), "changed": report.changed})
    else:
        _show(show, report)


def _as_dict(report: PoolerReport) -> dict[str, object]:
    from dataclasses import fields

    return {field.name: getattr(report, field.name) for field in fields(report)}


def _show(show: Printer, report: PoolerReport) -> None:
    show.table(
        [
            Column(name="what"),
            Column(name="name", wraps=True, share=2),
            Column(name="state"),
            Column(name="detail", wraps=True, share=2, from_width=90),
        ],
        [
            (step.what, step.target, state(step.state), shorten(step.detail, 90))
            for step in report.steps
        ],
    )
    for text in report.notes:
        show.line(f"worth a look: {text}")
    show.line()
    if not report.changed:
        show.line("Nothing was changed.")
    show.line(f"secret     {report.users} holds a password; only PgBouncer's user may read it")
    show.line(f"start      {report.start}")
    show.line(f"then       PGRECALL_DSN={report.dsn}  (with the password in `pgrecall dsn`)")
    show.line('           PGRECALL_DIRECT_DSN="$(pgrecall dsn --role owner)"')
    show.line("check      pgrecall verify")
