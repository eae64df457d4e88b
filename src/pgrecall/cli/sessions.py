"""``pgrecall sessions``: what agents hold in mind now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pgrecall.cli import options
from pgrecall.cli.opening import open_memory
from pgrecall.cli.output import Column, Printer, choose, faint, printer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgrecall.models import RecalledThought, Session

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Id = Annotated[str, typer.Argument(metavar="ID", help="The session's identifier (UUID).")]


@app.callback()
def sessions(as_json: options.JsonFlag = None) -> None:
    """Open, look at and end the working sessions of agents."""
    choose(as_json)


@app.command("open")
def open_(
    project: Annotated[str, typer.Option(metavar="ID", help="The project it works on.")],
    user: Annotated[str | None, typer.Option(metavar="ID", help="Whom it works for.")] = None,
    goal: Annotated[str | None, typer.Option(metavar="TEXT", help="What it is to reach.")] = None,
    context: Annotated[
        str | None, typer.Option(metavar="JSON", help="What the agent holds in mind at the start.")
    ] = None,
    ttl: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long it lives unless extended.")
    ] = 3600.0,
    dsn: options.Dsn = None,
    as_json: options.JsonFlag = None,
) -> None:
    """Begin a session."""
    show = printer(as_json)
    held = options.parse_object(context, "--context")
    with open_memory(dsn) as memory:
        session = memory.sessions.open(
            project_id=project, user_id=user, goal=goal, context=held, ttl=ttl
        )
    _show_one(show, session)


@app.command("show")
def show_one(
    session_id: Id,
    project: options.Project = None,
    dsn: options.Dsn = None,
    as_json: options.JsonFlag = None,
) -> None:
    """Show one session in full."""
    show = printer(as_json)
    with open_memory(dsn) as memory:
        _show_one(show, memory.sessions.get(session_id, project_id=project))


@app.command()
def recall(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to look for, in words.")],
    project: options.Project = None,
    user: Annotated[str | None, typer.Option(metavar="ID", help="Only for this user.")] = None,
    active: Annotated[
        bool | None,
        typer.Option("--active/--ended", help="Only live, or only ended ones.", show_default=False),
    ] = None,
    limit: options.Limit = 10,
    dsn: options.Dsn = None,
    as_json: options.JsonFlag = None,
) -> None:
    """Show the thoughts of sessions that fit some words best, best first."""
    show = printer(as_json)
    with open_memory(dsn) as memory:
        hits = memory.sessions.recall(
            text, project_id=project, user_id=user, active=active, limit=limit
        )
    if show.as_json:
        show.data(hits)
    elif hits:
        _table_of_thoughts(show, hits)
    else:
        show.line("No thought has these words.")


def _table_of_thoughts(show: Printer, hits: Sequence[RecalledThought]) -> None:
    from pgrecall.core.text import render_episode

    show.table(
        [
            Column(name="score", right=True),
            Column(name="project", from_width=90),
            Column(name="user", from_width=110),
            Column(name="thought", wraps=True, share=3),
            Column(name="no.", right=True),
            Column(name="session"),
        ],
        [
            (
                hit.score,
                hit.project_id,
                hit.user_id or faint("none"),
                render_episode(hit.thought, {}, {}, max_tokens=64) or None,
                hit.position + 1,
                str(hit.session_id),
            )
            for hit in hits
        ],
    )


@app.command("list")
def list_(
    project: options.Project = None,
    user: Annotated[str | None, typer.Option(metavar="ID", help="Only for this user.")] = None,
    active: Annotated[
        bool | None,
        typer.Option("--active/--ended", help="Only live, or only ended ones.", show_default=False),
    ] = None,
    limit: options.Limit = 50,
    cursor: options.Cursor = None,
    dsn: options.Dsn = None,
    as_json: options.JsonFlag = None,
) -> None:
    """List sessions, the last updated first, a page at a time."""
    show = printer(as_json)
    with open_memory(dsn) as memory:
        page = memory.sessions.list(
            project_id=project, user_id=user, active=active, limit=limit, cursor=cursor
        )
    if show.as_json:
        show.data(page)
        return
    if not page.items:
        show.line("No such sessions.")
        return
    show.table(
        [
            Column(name="id"),
            Column(name="state"),
            Column(name="project", from_width=72),
            Column(name="user", from_width=110),
            Column(name="goal", wraps=True),
            Column(name="updated", from_width=90),
        ],
        [
            (
                str(item.session_id),
                _state(item),
                item.project_id,
                item.user_id,
                item.current_goal,
                item.last_updated,
            )
            for item in page
        ],
    )
    if page.next_cursor is not None:
        show.line(faint(f"more: --cursor {page.next_cursor}"))


@app.command("close")
def close(
    session_id: Id,
    project: options.Project = None,
    dsn: options.Dsn = None,
    as_json: options.JsonFlag = None,
) -> None:
    """End a session; ending one that has ended changes nothing."""
    show = printer(as_json)
    with open_memory(dsn) as memory:
        _show_one(show, memory.sessions.close(session_id, project_id=project))


@app.command("expire")
def expire(dsn: options.Dsn = None, as_json: options.JsonFlag = None) -> None:
    """End every session whose time is up, in all projects."""
    show = printer(as_json)
    with open_memory(dsn) as memory:
        ended = memory.sessions.expire()
    if show.as_json:
        show.data({"expired": ended})
    else:
        show.line(f"ended {ended} session{'s' if ended != 1 else ''}")


def _state(session: Session) -> str:
    from datetime import UTC, datetime

    if not session.is_active:
        return "ended"
    over = session.expires_at is not None and session.expires_at <= datetime.now(UTC)
    return "time is up" if over else "live"


def _show_one(show: Printer, session: Session) -> None:
    if show.as_json:
        show.data(session)
        return
    show.fields(
        [
            ("id", str(session.session_id)),
            ("project", session.project_id),
            ("user", session.user_id),
            ("goal", session.current_goal),
            ("state", _state(session)),
            ("created", session.created_at),
            ("updated", session.last_updated),
            ("expires", session.expires_at),
            ("episodes", "\n".join(map(str, session.related_episodes or ())) or None),
        ]
    )
    show.document("context", session.active_context or {})
    if session.thought_history:
        show.document("thoughts", list(session.thought_history))
