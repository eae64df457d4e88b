"""What commands print: tables for a terminal, JSON for a pipe, notes on stderr."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from uuid import UUID

from pgrecall.errors import ConfigurationError, InvalidInput, PgrecallError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Cell: TypeAlias = "str | int | float | bool | datetime | UUID | Text | None"

# What the caller asked for with --json or --table; None leaves it to whether stdout is a terminal.
_chosen: ContextVar[bool | None] = ContextVar("pgrecall_json", default=None)

NARROW = 80
"""Columns of a terminal below which tables leave their less important columns out."""


def choose(as_json: bool | None) -> None:
    """Remember the form of the output that was asked for; the nearest option wins."""
    if as_json is not None:
        _chosen.set(as_json)


def forget() -> None:
    """Begin anew: nothing was asked for."""
    _chosen.set(None)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table.

    Attributes:
        name: Its heading.
        right: Whether its values stand at the right, as numbers do.
        wraps: Whether a long value continues on the next line, in its share of the width.
        share: Its part of the width that is left to columns which wrap.
        from_width: The width of terminal from which on it is shown at all.
    """

    name: str
    right: bool = False
    wraps: bool = False
    share: int = 1
    from_width: int = 0


class Printer:
    """Prints the results of one command."""

    def __init__(self, as_json: bool | None = None) -> None:
        choose(as_json)
        chosen = _chosen.get()
        self.explicit = chosen is not None
        self.as_json = chosen if chosen is not None else not sys.stdout.isatty()

    @property
    def asked_for_json(self) -> bool:
        """Whether JSON was asked for, and not only taken because stdout is a pipe."""
        return self.explicit and self.as_json

    @cached_property
    def console(self) -> Console:
        """Standard output."""
        return _console(stderr=False)

    @property
    def width(self) -> int:
        """Columns of the output."""
        return self.console.width

    def data(self, value: Any) -> None:
        """Print a value as JSON."""
        sys.stdout.write(to_json(value) + "\n")

    def plain(self, text: str) -> None:
        """Print text as it is."""
        sys.stdout.write(text if text.endswith("\n") else text + "\n")

    def line(self, text: str | Text = "") -> None:
        """Print a line for a person."""
        self.console.print(clean(text) if isinstance(text, str) else text, markup=False)

    def table(
        self, columns: Sequence[Column], rows: Iterable[Sequence[Cell]], *, title: str | None = None
    ) -> None:
        """Print a table that fits the terminal; columns that don't are left out."""
        from rich import box
        from rich.table import Table

        shown = [i for i, column in enumerate(columns) if self.width >= column.from_width]
        table = Table(
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            show_edge=False,
            title=title,
            title_justify="left",
            title_style="bold",
            header_style="bold",
            expand=any(columns[i].wraps for i in shown),
        )
        for i in shown:
            column = columns[i]
            table.add_column(
                column.name,
                justify="right" if column.right else "left",
                no_wrap=not column.wraps,
                overflow="fold" if column.wraps else "ellipsis",
                ratio=column.share if column.wraps else None,
            )
        for row in rows:
            table.add_row(*(to_cell(row[i], narrow=self.width < NARROW) for i in shown))
        self.console.print(table)

    def fields(self, pairs: Iterable[tuple[str, Cell]]) -> None:
        """Print names with values, one a line."""
        from rich.table import Table

        grid = Table.grid(padding=(0, 2), expand=False)
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in pairs:
            grid.add_row(name, to_cell(value))
        self.console.print(grid)

    def document(self, name: str, value: Any) -> None:
        """Print a JSON document under its name."""
        from rich.text import Text

        text = json.dumps(value, indent=2, ensure_ascii=False, default=_plain)
        self.console.print(Text(name, style="bold"))
        self.indented(Text(clean(text)))

    def indented(self, text: Text) -> None:
        """Print a text that belongs to the line above."""
        from rich.padding import Padding

        self.console.print(Padding(text, (0, 0, 0, 2), expand=False))


def printer(as_json: bool | None = None) -> Printer:
    """Return the printer for a command that was given ``--json`` (True), ``--table`` or neither."""
    return Printer(as_json)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        # A file has no width; the usual 80 would leave columns out.
        return Console(stderr=stderr, highlight=False, emoji=False, width=120)
    return console


def note(text: str) -> None:
    """Print a remark to stderr."""
    sys.stderr.write(clean(text) + "\n")


@contextmanager
def working(text: str, *, at_once: bool = True) -> Iterator[Status]:
    """Show on a terminal what is being done meanwhile; elsewhere stay silent.

    Args:
        text: What is being done.
        at_once: Whether to show it before the first line of progress.
    """
    console = _console(stderr=True)
    if not console.is_terminal:
        yield Status(None)
        return
    status = console.status(clean(text))
    if at_once:
        status.start()
    try:
        yield Status(status)
    finally:
        status.stop()


Advance: TypeAlias = Callable[[int, int | None, str, float], None]
"""Takes how much is done, of how much (None if unknown), a remark, and items a second."""


@contextmanager
def progress_bar(text: str, *, hidden: bool = False) -> Iterator[Advance]:
    """Show a bar on stderr, with a rate and the time left; only on a terminal."""
    console = _console(stderr=True)
    if hidden or not console.is_terminal:
        yield lambda _done, _total, _remark, _rate: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[remark]}"),
        TextColumn("{task.fields[rate]:,.0f}/s", style="cyan"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=console,
        expand=True,
        transient=True,
    ) as bar:
        task = bar.add_task(text, total=None, remark="", rate=0.0)

        def advance(done: int, total: int | None, remark: str, rate: float) -> None:
            bar.update(task, completed=done, total=total, remark=remark, rate=rate)

        yield advance


class Status:
    """Receives lines about what is being done; callable, as operations want it."""

    def __init__(self, status: Any) -> None:
        self._status = status

    def __call__(self, text: str) -> None:
        """Show a line in place of the one before."""
        if self._status is not None:
            from rich.text import Text

            self._status.start()
            self._status.update(Text(shorten(text, shutil.get_terminal_size().columns - 4)))


def to_cell(value: Cell, *, narrow: bool = False) -> Text:
    """Return a value as a table shows it; never markup, never control characters."""
    from rich.text import Text

    if isinstance(value, Text):
        return value
    if value is None:
        return Text("\N{EN DASH}", style="dim")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, datetime):
        return Text(value.astimezone().strftime("%Y-%m-%d" if narrow else "%Y-%m-%d %H:%M"))
    if isinstance(value, float):
        return Text(f"{value:.3f}")
    return Text(clean(str(value)))


def quality(value: float | None) -> Text:
    """Return an outcome's quality, coloured from bad to good."""
    from rich.text import Text

    if value is None:
        return Text("\N{EN DASH}", style="dim")
    style = "green" if value >= 0.7 else "yellow" if value >= 0.4 else "red"
    return Text(f"{value:.2f}", style=style)


_STYLES = {
    "passed": "green",
    "failed": "bold red",
    "warning": "yellow",
    "not configured": "dim",
    "created": "green",
    "changed": "yellow",
    "would create": "cyan",
    "would change": "cyan",
    "unchanged": "dim",
}


def state(text: str) -> Text:
    """Return the state of a step or check in its colour."""
    from rich.text import Text

    return Text(text, style=_STYLES.get(text, ""))


def faint(text: str) -> Text:
    """Return a text that stands back."""
    from rich.text import Text

    return Text(clean(text), style="dim")


def clean(text: str) -> str:
    """Return a text without control characters, which could take a terminal over."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def shorten(text: str, length: int) -> str:
    """Return a text of at most ``length`` characters on one line."""
    line = " ".join(clean(text).split())
    return line if len(line) <= length else line[: max(1, length - 1)].rstrip() + "…"


def to_json(value: Any, *, indent: int | None = 2) -> str:
    """Return a value of ours as JSON: records as objects, times in ISO 8601, UUIDs as text."""
    escape = (sys.stdout.encoding or "utf-8").lower().replace("-", "") != "utf8"
    return json.dumps(value, default=_plain, ensure_ascii=escape, indent=indent)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, UUID | Path):
        return str(value)
    if isinstance(value, Sequence | Iterator | set | frozenset):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


ExitCode: TypeAlias = Literal[1, 2]


def report(error: PgrecallError) -> ExitCode:
    """Print an error to stderr and return the exit code it stands for."""
    code: ExitCode = 2 if isinstance(error, InvalidInput | ConfigurationError) else 1
    if _chosen.get():
        document = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        sys.stderr.write(to_json(document) + "\n")
        return code
    lines = [("error", error.message, "bold red")]
    if error.hint:
        lines.append(("hint", error.hint, "cyan"))
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    for label, text, style in lines:
        if colour:
            from rich.text import Text

            _console(stderr=True).print(
                Text.assemble((f"{label}: ", style), clean(text)), soft_wrap=True
            )
        else:
            sys.stderr.write(f"{label}: {clean(text)}\n")
    return code
