"""The command line: one file per noun, thin; ``main`` is what ``pgrecall`` runs."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command that the process was called with, and end the process with its exit code."""
    try:
        from pgrecall.cli.app import app
    except KeyboardInterrupt:  # while the modules load; later ones are dealt with there
        sys.exit(130)
    app(prog_name="pgrecall")
