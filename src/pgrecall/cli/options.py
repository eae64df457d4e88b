"""Options that several commands share, and the reading of their values."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeAlias, overload

import typer

from pgrecall.errors import InvalidInput

JsonFlag: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--json/--table",
        help="Print JSON, or tables. A terminal gets tables and a pipe JSON unless told otherwise.",
        show_default=False,
    ),
]
Dsn: TypeAlias = Annotated[
    str | None,
    typer.Option(
        envvar="PGRECALL_DSN",
        metavar="DSN",
        help="Connection string of the application role, instead of what init wrote.",
    ),
]
OwnerDsn: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--owner-dsn",
        envvar="PGRECALL_OWNER_DSN",
        metavar="DSN",
        help="Connection string of the owner role, instead of what init wrote.",
    ),
]
DirectDsn: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--direct-dsn",
        envvar="PGRECALL_DIRECT_DSN",
        metavar="DSN",
        help="Connection string of the owner role that bypasses a pooler.",
    ),
]
AdminDsn: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--dsn",
        envvar="PGRECALL_ADMIN_DSN",
        metavar="ADMIN_DSN",
        help="Connection string of an administrator of your server; it is not stored. "
        "Without it the embedded server is meant.",
    ),
]
Database: TypeAlias = Annotated[
    str | None,
    typer.Option(
        envvar="PGRECALL_DATABASE",
        metavar="NAME",
        help="Name of the database (agent_memory unless given).",
    ),
]
EmbedderName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--embedder",
        envvar="PGRECALL_EMBEDDER",
        metavar="NAME",
        help="What turns texts into vectors: builtin, none, or another provider.",
    ),
]
DataDir: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        envvar="PGRECALL_DATA_DIR", metavar="DIR", help="Directory of the embedded server."
    ),
]
PgBin: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        envvar="PGRECALL_PG_BIN",
        metavar="DIR",
        help="Directory of the programs of a PostgreSQL of yours, to run that one instead.",
    ),
]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]
Project: TypeAlias = Annotated[
    str | None, typer.Option("--project", metavar="ID", help="Only of this project.")
]
Limit: TypeAlias = Annotated[
    int, typer.Option("--limit", metavar="N", help="Most to return, 1 to 10,000.")
]
Cursor: TypeAlias = Annotated[
    str | None,
    typer.Option("--cursor", metavar="TEXT", help="next_cursor of the page before."),
]
Since: TypeAlias = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="Not older than this (ISO 8601).")
]
Until: TypeAlias = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Older than this (ISO 8601).")
]
Sprint: TypeAlias = Annotated[
    str | None, typer.Option("--sprint", metavar="ID", help="Only of this sprint.")
]
Source: TypeAlias = Annotated[
    str | None,
    typer.Option("--decision-source", metavar="NAME", help="Only decided by this."),
]
AgentVersion: TypeAlias = Annotated[
    str | None,
    typer.Option("--agent-version", metavar="VERSION", help="Only by this version of the agent."),
]
MinQuality: TypeAlias = Annotated[
    float | None,
    typer.Option("--min-quality", metavar="Q", help="Only with an outcome at least this good."),
]
MaxQuality: TypeAlias = Annotated[
    float | None,
    typer.Option("--max-quality", metavar="Q", help="Only with an outcome at most this good."),
]
WithOutcome: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--with-outcome/--without-outcome",
        help="Only with, or without, a recorded outcome.",
        show_default=False,
    ),
]
MinSimilarity: TypeAlias = Annotated[
    float,
    typer.Option("--min-similarity", metavar="S", help="Only at least this similar, -1 to 1."),
]


@overload
def parse_time(text: str, name: str) -> datetime: ...
@overload
def parse_time(text: str | None, name: str) -> datetime | None: ...
def parse_time(text: str | None, name: str) -> datetime | None:
    """Return a time given as ISO 8601; without a zone it is local.

    Raises:
        InvalidInput: It is no such time.
    """
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(
            f"{name} is {text!r}, which is no time",
            hint="write it as 2026-05-01 or 2026-05-01T14:30:00+02:00",
        ) from error
    return time if time.tzinfo is not None else time.astimezone()


def episode_filters(**values: Any) -> dict[str, Any]:
    """Return the filters of a listing of episodes, with times as such."""
    values["since"] = parse_time(values["since"], "--since")
    values["until"] = parse_time(values["until"], "--until")
    return values


def parse_object(text: str | None, name: str) -> dict[str, Any] | None:
    """Return a JSON object given as text.

    Raises:
        InvalidInput: It is no JSON, or no object.
    """
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{name} is no JSON: {error}", hint="""quote it for the shell, as in '{"tasks": 3}'"""
        ) from error
    if not isinstance(value, dict):
        raise InvalidInput(f"{name} is a JSON {type(value).__name__}", hint="give a JSON object")
    return value


def read_text(path: str) -> str:
    """Return the text of a file, or of standard input for ``-``.

    Raises:
        InvalidInput: It cannot be read.
    """
    try:
        if path == "-":
            return sys.stdin.read()
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone; ``yes`` has answered already.

    Raises:
        typer.Exit: The answer was no.
        InvalidInput: Nobody is there to ask.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidInput(
            f"nobody can be asked here: {question}", hint="if that is meant, repeat it with --yes"
        )
    if not typer.confirm(question, err=True):
        typer.echo("Nothing was changed.", err=True)
        raise typer.Exit(1)
