"""Write docs/reference/cli.md and settings.md from the commands and the settings themselves.

Usage: python tools/cli_reference.py [--check]

With ``--check`` nothing is written: the exit code says whether the checked-in files are what
would be written.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from pgrecall.cli.app import app
from pgrecall.config import Settings

DIRECTORY = Path(__file__).resolve().parent.parent / "docs" / "reference"

CLI_HEAD = """# The command line

<!-- Made by tools/cli_reference.py from the commands themselves. Do not edit. -->

## Output

A terminal gets tables, a pipe gets JSON; `--json` and `--table` choose regardless, before or after
the subcommand. Notes and progress go to stderr. `dsn`, `logs`, `migrate --sql`, `demo` and
`episodes export` print their own text in a pipe too; for the first four `--json` wraps it.

In JSON, identifiers are text and times are ISO 8601. Listings are
`{"items": [...], "next_cursor": "..."}`; `next_cursor` is null on the last page, else give it to
`--cursor`.

## Exit codes

- **0**: all is well.
- **1**: it failed. The server could not be reached, something does not exist, `verify` or `doctor`
  found a failure, `recall-check` found less than `--least`, `episodes import` met bad lines, or you
  answered no.
- **2**: it was called wrongly, and nothing was changed. An unknown flag, a value that cannot be
  meant, a setting that is missing or wrong.
- **130**: it was interrupted with Ctrl-C.
- **141**: whoever read the output stopped reading.

Errors go to stderr as `error: ...` and `hint: ...`, with `--json` as
`{"error": "NotFound", "message": "...", "hint": "..."}`. `PGRECALL_DEBUG=1` adds the traceback.

## Environment

Every flag has an environment variable; it is named with the flag below. Those that are settings,
such as `PGRECALL_DSN`, hold for all commands: see [settings](settings.md). The others are made of
the command and the flag. A flag given on the command line wins. Passwords belong into variables
rather than flags, which other users of the machine can see. `PGRECALL_JSON=1` stands for `--json`.
"""

SETTINGS_HEAD = """# Settings

<!-- Made by tools/cli_reference.py from the settings themselves. Do not edit. -->

One variable for each, read by the command line and the Python client alike. In Python, give
`Memory.open(settings=Settings(...))` with the names in the last column.

| variable | meaning | unless set | in Python |
|---|---|---|---|
"""

SETTINGS_TAIL = """
## Which database

The first of these that applies:

1. `PGRECALL_DSN` for the application role, `PGRECALL_OWNER_DSN` for the owner. Migrations,
   `verify` and `doctor` take `PGRECALL_DIRECT_DSN` before it, which must not lead through a pooler.
   Where `PGRECALL_DSN` leads elsewhere than the services below, the other roles need their own
   variable: one command never reaches two databases.
2. The services that `pgrecall init` wrote into `PGRECALL_CONFIG_DIR` for each role. `psql` can use
   them too: `PGSERVICEFILE=.../pg_service.conf psql service=pgrecall_app`.
3. The embedded server in `PGRECALL_DATA_DIR`, which is started and provisioned if need be.

Two variables belong to the command line alone: `PGRECALL_ADMIN_DSN`, the administrator's
connection string for `init` and `destroy`, which is never stored; and `PGRECALL_DEBUG`, which
shows tracebacks.
"""

# What stands for a default that depends on the machine or the user.
DEFAULTS = {
    "data_dir": "the user's data directory; `/var/lib/pgrecall` for root",
    "config_dir": "the user's configuration directory",
}


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Return every command with the words that call it, groups before what they contain."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


def variable(path: tuple[str, ...], parameter: Any) -> str:
    """Return the environment variable of a flag; ``""`` if it has none."""
    if parameter.envvar:
        return str(parameter.envvar)
    if not getattr(parameter, "allow_from_autoenv", True):
        return ""
    return "_".join(("PGRECALL", *path, parameter.name)).upper().replace("-", "_")


def _option(path: tuple[str, ...], parameter: Any) -> str:
    flags = " / ".join(f"`{flag}`" for flag in (*parameter.opts, *parameter.secondary_opts))
    if parameter.metavar:
        flags += f" {parameter.metavar}"
    notes = [parameter.help or ""]
    if parameter.multiple:
        notes.append("Can be repeated.")
    default = parameter.default
    shown = default not in (None, False, "", ()) and not callable(default)
    if shown and parameter.show_default is not False:
        notes.append(f"Default: {default}.")
    text = " ".join(note for note in notes if note)
    name = variable(path, parameter)
    return f"| {flags} | {text} | {f'`{name}`' if name else ''} |".replace("yes|no", "yes\\|no")


def _is_output_choice(path: tuple[str, ...], parameter: Any) -> bool:
    # Described once for all commands, under "Output".
    return bool(path) and "--json" in parameter.opts


def cli_text() -> str:
    """Return the reference of all commands."""
    parts = [CLI_HEAD]
    for path, command in commands(typer.main.get_command(app)):
        title = " ".join(("pgrecall", *path))
        parts.append(f"\n## {title}\n\n" if len(path) < 2 else f"\n### {title}\n\n")
        parts.append((command.help or "").strip() + "\n")
        arguments = [item for item in command.params if item.param_type_name == "argument"]
        options = [
            item
            for item in command.params
            if item.param_type_name == "option" and not _is_output_choice(path, item)
        ]
        if not getattr(command, "commands", None):
            words = [title, *(item.metavar or item.name for item in arguments)]
            parts.append(f"\n```\n{' '.join(words)}{' [OPTIONS]' if options else ''}\n```\n")
        if arguments:
            parts.append("\n| argument | |\n|---|---|\n")
            parts += [f"| {item.metavar} | {item.help or ''} |\n" for item in arguments]
        if options:
            parts.append("\n| flag | | variable |\n|---|---|---|\n")
            parts += [
                _option(path, item)
                .replace("now|later", "now\\|later")
                .replace("auto|keep|defer", "auto\\|keep\\|defer")
                + "\n"
                for item in options
            ]
    return "".join(parts)


def settings_text() -> str:
    """Return the reference of all settings."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = DEFAULTS.get(name)
        if default is None:
            default = "" if field.default is None else f"`{field.default}`"
        rows.append(f"| `PGRECALL_{name.upper()}` | {field.description} | {default} | `{name}` |\n")
    return SETTINGS_HEAD + "".join(rows) + SETTINGS_TAIL


def main() -> int:
    """Write the files, or check them."""
    check = "--check" in sys.argv[1:]
    stale = []
    for name, text in (("cli.md", cli_text()), ("settings.md", settings_text())):
        path = DIRECTORY / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if stale:
        print(("out of date: " if check else "written: ") + ", ".join(stale))
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
