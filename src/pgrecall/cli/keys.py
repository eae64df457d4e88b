"""``pgrecall keys``: who may reach the memory over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pgrecall.cli import options
from pgrecall.cli.output import Column, choose, printer, state, working

if TYPE_CHECKING:
    from pgrecall.ops.keys import Key

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def keys(as_json: options.JsonFlag = None) -> None:
    """Make, list and revoke the keys with which others reach `pgrecall serve`."""
    choose(as_json)


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is, or what for.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            metavar="SCOPE",
            help="What it may do: read, write or admin; may be repeated, as none contains "
            "another (read and write unless given).",
        ),
    ] = None,
    project: Annotated[
        list[str] | None,
        typer.Option(
            "--project",
            metavar="ID",
            help="Only for this project; may be repeated (all projects unless given).",
        ),
    ] = None,
    expires_days: Annotated[
        float | None,
        typer.Option(
            "--expires-days", metavar="DAYS", help="Valid for so long (until revoked unless given)."
        ),
    ] = None,
    owner_dsn: options.OwnerDsn = None,
    as_json: options.JsonFlag = None,
) -> None:
    """Make a key, and print its token, which is shown this once.

    Once there is a key, whoever reaches `pgrecall serve` needs one, also on this machine.
    """
    from pgrecall.ops.keys import create_key

    show = printer(as_json)
    made = create_key(
        _owner(owner_dsn),
        name,
        scopes=scope or ("read", "write"),
        projects=project or (),
        lifetime=None if expires_days is None else expires_days * 86_400,
    )
    if show.as_json:
        show.data({**_shown(made), "token": made.token})
        return
    show.fields([("key", made.key_id), ("token", made.token)])
    show.line("The token is not stored and cannot be shown again.")


@app.command("list")
def list_(owner_dsn: options.OwnerDsn = None, as_json: options.JsonFlag = None) -> None:
    """List all keys, without their secrets."""
    from pgrecall.ops.keys import list_keys

    show = printer(as_json)
    found = list_keys(_owner(owner_dsn))
    if show.as_json:
        show.data([_shown(key) for key in found])
        return
    if not found:
        show.line("No keys: pgrecall serve is open to this machine, and to no other.")
        return
    show.table(
        [
            Column(name="id"),
            Column(name="name"),
            Column(name="state"),
            Column(name="scopes"),
            Column(name="projects", wraps=True),
            Column(name="created", from_width=90),
            Column(name="expires", from_width=110),
        ],
        [
            (
                key.key_id,
                key.name,
                state(key.state),
                ", ".join(key.scopes),
                "all" if key.projects is None else ", ".join(key.projects),
                key.created_at,
                key.expires_at,
            )
            for key in found
        ],
    )


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's identifier.")],
    owner_dsn: options.OwnerDsn = None,
    as_json: options.JsonFlag = None,
) -> None:
    """End a key for ever; running servers notice within five seconds."""
    from pgrecall.ops.keys import revoke_key

    show = printer(as_json)
    key = revoke_key(_owner(owner_dsn), key_id)
    if show.as_json:
        show.data(_shown(key))
    else:
        show.line(f"revoked {key.key_id} ({key.name})")


def _owner(given: str | None) -> str:
    from pgrecall.config import load_settings
    from pgrecall.targets import resolve_dsn

    with working("opening the memory", at_once=False) as progress:
        return resolve_dsn(load_settings(owner_dsn=given), "owner", progress=progress)


def _shown(key: Key) -> dict[str, object]:
    names = ("key_id", "name", "scopes", "projects", "created_at", "expires_at", "revoked_at")
    return {**{name: getattr(key, name) for name in names}, "state": key.state}
