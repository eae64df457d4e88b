"""Make the synchronous client from the asynchronous one.

Usage: python tools/unasync.py [--check]

Files listed in ``BY_HAND`` have no twin that could be generated. With ``--check`` nothing is
written: the exit code says whether the checked-in files are, byte for byte, what would be written.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "pgrecall"
BY_HAND = {"__init__.py", "runtime.py"}
HEADER = "# Generated from pgrecall/_async/{name} by tools/unasync.py. Do not edit.\n"

RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\basync (def|with|for) ", r"\1 "),
        (r"\bawait ", ""),
        (r"\b__a(enter|exit|iter|next)__\b", r"__\1__"),
        (r"\basynccontextmanager\b", "contextmanager"),
        (r"\bAsync(Iterator|Iterable|Generator)\b", r"\1"),
        (r"\b(psycopg\.)?Async(Connection|Cursor|ConnectionPool)\b", r"\1\2"),
        (r"\bAsync((Project)?Memory|\w+Store|Recorder|Scope|Model|Database)\b", r"\1"),
        (r"\bpgrecall\._async\b", "pgrecall._sync"),
    ]
]


def convert(text: str, name: str) -> str:
    """Return the synchronous twin of a module's text."""
    for pattern, replacement in RULES:
        text = pattern.sub(replacement, text)
    return HEADER.format(name=name) + text


def main() -> int:
    """Write the twins, or check them."""
    check = "--check" in sys.argv[1:]
    stale = []
    for source in sorted((PACKAGE / "_async").glob("*.py")):
        target = PACKAGE / "_sync" / source.name
        if source.name in BY_HAND:
            continue
        expected = convert(source.read_text(encoding="utf-8"), source.name)
        if target.exists() and target.read_text(encoding="utf-8") == expected:
            continue
        stale.append(target.name)
        if not check:
            target.write_text(expected, encoding="utf-8")
    stale += [
        f"{orphan.name} (has no asynchronous twin)"
        for orphan in sorted((PACKAGE / "_sync").glob("*.py"))
        if not (PACKAGE / "_async" / orphan.name).exists()
    ]
    if stale:
        print(("out of date: " if check else "written: ") + ", ".join(stale))
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
