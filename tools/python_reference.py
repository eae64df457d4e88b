"""Write docs/reference/python.md from the signatures and docstrings of the public classes.

Usage: python tools/python_reference.py [--check]

With ``--check`` nothing is written: the exit code says whether the checked-in file is what would
be written.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from pgrecall import Memory, ProjectMemory, models
from pgrecall._sync.episodes import EpisodeStore
from pgrecall._sync.items import ItemStore
from pgrecall._sync.knowledge import KnowledgeStore
from pgrecall._sync.metrics import MetricStore
from pgrecall._sync.sessions import SessionStore
from pgrecall._sync.thoughts import ThoughtStore
from pgrecall.core.text import render_episode
from pgrecall.embedding import Embedder, get_embedder
from pgrecall.ops.transfer import export_episodes, import_episodes

FILE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "python.md"

HEAD = """# Python

<!-- Made by tools/python_reference.py from the code itself. Do not edit. -->

`from pgrecall import Memory`. `AsyncMemory` has the same names and arguments; its calls are
awaited, and `connection=` is a `psycopg.AsyncConnection`. It is opened with
`async with await AsyncMemory.open() as memory`.

What holds for all calls:

- Every error is a `pgrecall.PgrecallError`: see [errors](errors.md).
- `project_id=` confines a call to one project. `memory.project("apollo")` does it for all calls.
- `connection=` is an open psycopg connection of yours, with whose transaction a call commits or
  rolls back: see [how](../how-to/commit-with-your-own-work.md).
- Listings give a `Page`: iterate over it, and give its `next_cursor` as `cursor=` to get the next.
- Times are `datetime` with a time zone, identifiers `UUID` or text, documents JSON objects.
- `Memory` may be shared by threads, `AsyncMemory` by tasks of one event loop.
"""

STORES: tuple[tuple[str, type], ...] = (
    ("memory", Memory),
    ("memory.episodes", EpisodeStore),
    ("memory.knowledge", KnowledgeStore),
    ("memory.sessions", SessionStore),
    ("memory.items", ItemStore),
    ("memory.metrics", MetricStore),
)
BASES: dict[type, tuple[type, ...]] = {Memory: (ProjectMemory,), SessionStore: (ThoughtStore,)}
INTERNAL = ("start", "stop", "measure", "keep")
FUNCTIONS: tuple[tuple[Callable[..., Any], str], ...] = (
    (import_episodes, "pgrecall.ops.transfer"),
    (export_episodes, "pgrecall.ops.transfer"),
    (render_episode, "pgrecall.core.text"),
    (get_embedder, "pgrecall.embedding"),
)
_SECTION = re.compile(r"^(Args|Returns|Raises|Attributes):$", re.MULTILINE)
_TITLES = {"Returns": "Returns", "Raises": "Raises"}


def docstring(thing: Any) -> tuple[str, dict[str, str]]:
    """Split a docstring into its text and its sections."""
    parts = _SECTION.split(inspect.getdoc(thing) or "")
    sections = {
        name: inspect.cleandoc("\n" + text)
        for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }
    return parts[0].strip(), sections


def items(section: str) -> Iterator[str]:
    """Return ``name: text`` entries as bullet points, their continued lines joined."""
    for entry in re.split(r"\n(?=\S)", section):
        name, colon, text = " ".join(entry.split()).partition(": ")
        yield f"- `{name}`: {plain(text)}" if colon else f"- {plain(name)}"


def plain(text: str) -> str:
    """Return docstring text as Markdown."""
    text = re.sub(r":\w+:`([^`]+)`", r"`\1`", text)
    return text.replace("``", "`")


def signature(function: Callable[..., Any]) -> str:
    """Return the arguments, each on its line where they don't fit one."""
    parts: list[str] = []
    starred = False
    found = inspect.signature(function)
    for parameter in found.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
        starred = starred or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        marks = "*" * (parameter.kind is parameter.VAR_POSITIONAL)
        marks += "**" * (parameter.kind is parameter.VAR_KEYWORD)
        shown = f"{marks}{parameter.name}: {parameter.annotation}"
        if parameter.default is not parameter.empty:
            shown += f" = {getattr(parameter.default, '__name__', repr(parameter.default))}"
        parts.append(shown)
    returned = f" -> {found.return_annotation}"
    line = f"({', '.join(parts)}){returned}"
    if len(line) > 80:
        line = "(\n" + "".join(f"    {part},\n" for part in parts) + f"){returned}"
    return line.replace("Connection[Any]", "Connection")


def call(name: str, function: Callable[..., Any]) -> str:
    """Return the entry of one function."""
    text, sections = docstring(function)
    short = name.rpartition(".")[2]
    lines = [f"### {name}", "", "```text", f"{short}{signature(function)}", "```", "", plain(text)]
    if "Args" in sections:
        lines += ["", *items(sections["Args"])]
    for section, title in _TITLES.items():
        if section in sections:
            body = " ".join(sections[section].split()) if section == "Returns" else None
            lines += ["", f"{title}: {plain(body)}" if body else f"{title}:"]
            lines += [] if body else ["", *items(sections[section])]
    return "\n".join(lines)


def store(prefix: str, kind: type) -> str:
    """Return the section of one part of the memory."""
    text, _ = docstring(kind)
    entries = [f"## {prefix}", plain(text)]
    for owner in (kind, *BASES.get(kind, ())):
        for name, value in vars(owner).items():
            if name.startswith("_") or name in INTERNAL:
                continue
            if isinstance(value, property):
                entries.append(f"### {prefix}.{name}\n\n{plain(docstring(value)[0])}")
                continue
            function = getattr(owner, name)
            if callable(function):
                shown = f"Memory.{name}" if isinstance(value, classmethod) else f"{prefix}.{name}"
                entries.append(call(shown, function))
    return "\n\n".join(entries)


def record(kind: type) -> str:
    """Return the section of one record."""
    text, sections = docstring(kind)
    said = dict(
        " ".join(entry.split()).split(": ", 1)
        for entry in re.split(r"\n(?=\S)", sections.get("Attributes", ""))
        if entry
    )
    lines = [f"### {kind.__name__}", "", plain(text), "", "| field | type | |", "|---|---|---|"]
    for field in fields(kind):
        shown = str(field.type).replace("|", "\\|")
        lines.append(f"| `{field.name}` | {shown} | {plain(said.get(field.name, ''))} |")
    return "\n".join(lines)


def text() -> str:
    """Return the whole page."""
    records = [
        value
        for value in vars(models).values()
        if isinstance(value, type) and is_dataclass(value) and value.__module__ == models.__name__
    ]
    parts = [HEAD.strip()]
    parts += [store(prefix, kind) for prefix, kind in STORES]
    parts += ["## Records\n\nFrozen, and keyword-only. A field is a column of the table named."]
    parts += [record(kind) for kind in records]
    parts += ["## Functions"]
    parts += [call(f"{home}.{function.__name__}", function) for function, home in FUNCTIONS]
    embedder, sections = docstring(Embedder)
    parts += ["## Embedder", plain(embedder), "\n".join(items(sections["Attributes"]))]
    parts += [call("embedder.embed", Embedder.embed)]
    return "\n\n".join(parts) + "\n"


def main(*, check: bool) -> int:
    """Write the page, or only compare."""
    page = text()
    if check:
        if FILE.exists() and FILE.read_text() == page:
            return 0
        print(f"{FILE.name} is out of date: run make generate")
        return 1
    FILE.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
