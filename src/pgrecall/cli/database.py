"""``pgrecall init``, ``destroy``, ``dsn`` and ``migrate``: the database itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from pgrecall.cli.options import (
    AdminDsn,
    Database,
    DirectDsn,
    EmbedderName,
    JsonFlag,
    OwnerDsn,
    Yes,
    confirm,
)
from pgrecall.cli.output import Column, Printer, printer, shorten, state, working

Backup: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--backup/--no-backup", help="Whether to back up first what the change could reach."
    ),
]

if TYPE_CHECKING:
    from pgrecall.config import Settings
    from pgrecall.ops.provision import InitReport, Progress


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("init")(init)
    app.command("destroy")(destroy)
    app.command("dsn")(dsn)
    app.command("migrate")(migrate)


def init(
    dsn: AdminDsn = None,
    database: Database = None,
    dimensions: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Dimensions of the embeddings; the embedder's unless given, else 1536.",
        ),
    ] = None,
    grant_to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE",
            help="A role that becomes a member of the owner.",
        ),
    ] = None,
    locale: Annotated[
        str | None, typer.Option(metavar="NAME", help="Locale of a new database.")
    ] = None,
    embedder: EmbedderName = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")
    ] = False,
    reset_passwords: Annotated[
        bool, typer.Option("--reset-passwords", help="Give all five roles new passwords.")
    ] = False,
    backup: Backup = True,
    as_json: JsonFlag = None,
) -> None:
    """Provision the database with its roles and schema, or bring it up to date.

    It can be repeated: what is there already is left as it is. A database whose schema was made
    by hand is taken over with all its rows. Before a server that holds data is changed, what the
    change could reach is backed up: the memory, and the database that --dsn names.
    """
    from pgrecall.config import load_settings

    show = printer(as_json)
    settings = load_settings(database=database, embedder=embedder)
    options: dict[str, object] = {
        "grant_to": grant_to or (),
        "locale": locale,
        "dry_run": dry_run,
        "reset_passwords": reset_passwords,
    }
    made: tuple[str, ...] = ()
    with working("provisioning") as progress:
        if backup and not dry_run:
            foretold = _init(settings, dsn, dimensions, progress, {**options, "dry_run": True})
            made = _back_up_before(foretold, settings, dsn, progress)
        report = _init(settings, dsn, dimensions, progress, options)
    if show.as_json:
        show.data({**_as_dict(report), "changed": report.changed, "backups": made})
    else:
        _show_init(show, report, settings)
        for name in made:
            show.line(f"backup     {name} in {settings.backup_location}, made before")


def _back_up_before(
    foretold: InitReport, settings: Settings, dsn: str | None, progress: Progress
) -> tuple[str, ...]:
    from pgrecall.ops import embedded
    from pgrecall.ops.backup import precaution

    if not precaution.is_wanted(foretold):
        return ()
    admin_dsn = dsn
    if admin_dsn is None:
        server = embedded.server_of(settings)
        if not server.status().created:
            return ()
        admin_dsn = server.admin_dsn()
    return precaution.before_init(admin_dsn, foretold, settings=settings, progress=progress)


def _init(
    settings: Settings,
    dsn: str | None,
    dimensions: int | None,
    progress: Progress,
    options: dict[str, object],
) -> InitReport:
    from pgrecall.ops import embedded, provision

    if dsn is None:
        return embedded.provision(settings, dimensions=dimensions, progress=progress, **options)  # type: ignore[arg-type]
    if dimensions is None and settings.embedder is not None:
        dimensions = embedded.missing_dimensions(
            dsn, settings, embedded.default_dimensions(settings)
        )
    return provision.init(
        dsn,
        database=settings.database,
        dimensions=dimensions,
        settings=settings,
        progress=progress,
        **options,  # type: ignore[arg-type]
    )


def _as_dict(report: InitReport) -> dict[str, object]:
    from dataclasses import fields

    return {field.name: getattr(report, field.name) for field in fields(report)}


def _show_init(show: Printer, report: InitReport, settings: Settings) -> None:
    show.table(
        [
            Column(name="what"),
            Column(name="name", wraps=True, share=2),
            Column(name="state"),
            Column(name="detail", wraps=True, share=3, from_width=90),
        ],
        [
            (step.what, step.target, state(step.state), shorten(step.detail, 90))
            for step in report.steps
        ],
    )
    for heading, texts in (("reduced here", report.reduced), ("worth a look", report.notes)):
        for text in texts:
            show.line(f"{heading}: {text}")
    show.line()
    name = f"{report.database} ({report.dimensions} dimensions)"
    if report.dry_run:
        doing = "would be changed as shown" if report.changed else "is complete"
        show.line(f"{name} {doing}; nothing was done.")
    elif not report.changed:
        show.line(f"{name} is at revision {report.revision}; nothing was changed.")
    else:
        done = "was taken over" if report.adopted else "is ready"
        show.line(f"{name} {done}, at revision {report.revision}.")
    if not report.dry_run:
        show.line()
        show.line('connect    psql "$(pgrecall dsn)"')
        show.line("check      pgrecall verify")
        show.line(f"services   {settings.service_file}")


def destroy(
    dsn: AdminDsn = None,
    database: Database = None,
    force: Annotated[
        bool, typer.Option("--force", help="End the sessions of others first.")
    ] = False,
    server: Annotated[
        bool,
        typer.Option(
            "--server", help="Delete the whole embedded server, with every database on it."
        ),
    ] = False,
    yes: Yes = False,
    as_json: JsonFlag = None,
) -> None:
    """Drop the database with everything in it, its roles, and their stored passwords.

    Asks before it does. The embedded server stays unless --server is given.
    """
    from pgrecall import targets
    from pgrecall.config import load_settings
    from pgrecall.errors import InvalidInput
    from pgrecall.ops import embedded, provision

    show = printer(as_json)
    settings = load_settings(database=database)
    if server:
        if dsn is not None:
            raise InvalidInput(
                "--server and --dsn cannot be given together",
                hint="--server means the embedded server, --dsn one of yours",
            )
        engine = embedded.require_embedded(settings)
        confirm(f"Delete the embedded server in {engine.data_dir} with all its data?", yes=yes)
        engine.start()
    admin = targets.admin_dsn(settings, dsn) if not server else engine.admin_dsn()
    if not server:
        confirm(f"Drop the database {settings.database} with all its rows and roles?", yes=yes)
    report = provision.destroy(admin, database=settings.database, settings=settings, force=force)
    dropped = list(report.dropped)
    if server:
        engine.destroy(force=force)
        dropped.append(f"server {engine.data_dir}")
    if show.as_json:
        show.data({"database": report.database, "dropped": dropped, "forgotten": report.forgotten})
        return
    for what in dropped:
        show.line(f"dropped {what}")
    if not dropped:
        show.line(f"There is no database {settings.database}, nor its roles; nothing was changed.")


def dsn(
    role: Annotated[
        str,
        typer.Option(
            metavar="ROLE", help="app, owner, readonly, monitor, backup, or (embedded) admin."
        ),
    ] = "app",
    as_json: JsonFlag = None,
) -> None:
    """Print a working connection string, and nothing else.

    It contains the password. If it leads to the embedded server, that is started. In a pipe, too,
    it is plain text unless --json is given.
    """
    from pgrecall.config import load_settings
    from pgrecall.targets import resolve_dsn

    show = printer(as_json)
    with working("looking for the memory", at_once=False) as progress:
        found = resolve_dsn(load_settings(), role, progress=progress)
    if show.asked_for_json:
        show.data({"role": role, "dsn": found})
    else:
        show.plain(found)


def migrate(
    sql: Annotated[
        bool, typer.Option("--sql", help="Print what would run, for psql; change nothing.")
    ] = False,
    owner_dsn: OwnerDsn = None,
    direct_dsn: DirectDsn = None,
    backup: Backup = True,
    as_json: JsonFlag = None,
) -> None:
    """Bring the schema to the revision that this version needs, after a backup of what is there.

    Runs as the owner, on a connection without a pooler. Several at once wait for each other.
    """
    from pgrecall.config import load_settings
    from pgrecall.ops import migrate as migration
    from pgrecall.targets import direct_owner_dsn

    show = printer(as_json)
    settings = load_settings(owner_dsn=owner_dsn, direct_dsn=direct_dsn)
    with working("migrating") as progress:
        target = direct_owner_dsn(settings, progress=progress)
        if sql:
            script = migration.script(target, settings=settings)
        else:
            report = migration.upgrade(target, settings=settings, backup=backup, progress=progress)
    if sql:
        if show.asked_for_json:
            show.data({"sql": script})
        else:
            show.plain(script)
    elif show.as_json:
        show.data(report)
    elif report.applied:
        if report.backup is not None:
            show.line(f"backed up before as {report.backup} in {settings.backup_location}")
        show.line(f"applied {', '.join(report.applied)}; the schema is at {report.revision}")
    else:
        show.line(f"the schema is at {report.revision}; nothing was changed")
