"""Copy into the Helm chart what it cannot read outside of itself: rules and dashboards.

Usage: python tools/chart.py [--check]; with ``--check`` nothing is written.
"""

from __future__ import annotations

import sys
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
FILES = DEPLOY / "helm" / "pgrecall" / "files"


def copies() -> dict[Path, Path]:
    """Return every copy with its source."""
    dashboards = sorted((DEPLOY / "grafana").glob("*.json"))
    return {
        FILES / "rules.yml": DEPLOY / "prometheus" / "rules.yml",
        **{FILES / "dashboards" / source.name: source for source in dashboards},
    }


def main() -> int:
    """Write the copies, or compare them."""
    wanted = copies()
    stale = [
        copy
        for copy, source in wanted.items()
        if not copy.exists() or copy.read_bytes() != source.read_bytes()
    ]
    left_over = [path for path in (FILES / "dashboards").glob("*") if path not in wanted]
    for path in (*stale, *left_over):
        if "--check" in sys.argv[1:]:
            print(f"{path} is not what tools/chart.py makes; run it")
        elif path in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(wanted[path].read_bytes())
            print(f"wrote {path}")
        else:
            path.unlink()
            print(f"removed {path}")
    return 1 if "--check" in sys.argv[1:] and (stale or left_over) else 0


if __name__ == "__main__":
    raise SystemExit(main())
