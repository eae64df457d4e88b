"""Writes docs/reference/openapi.json, what `pgrecall serve` answers at /openapi.json.

Usage: python tools/openapi.py [--check]; with ``--check`` nothing is written.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pgrecall.serving.app import EMBEDDING, MEMORY, make_app

FILE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "openapi.json"


def document() -> str:
    """Return the text of the file."""
    app = make_app(None, (*EMBEDDING, *MEMORY))
    return json.dumps(app.openapi(), indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the file, or compare it."""
    text = document()
    if "--check" not in sys.argv:
        FILE.write_text(text, encoding="utf-8")
        return 0
    if FILE.is_file() and FILE.read_text(encoding="utf-8") == text:
        return 0
    print(f"{FILE.name} is not what would be written: run make generate", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
