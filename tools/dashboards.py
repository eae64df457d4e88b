"""Write deploy/ from the objectives: dashboards for Grafana, rules and examples for Prometheus.

Usage: python tools/dashboards.py [--check]

With ``--check`` nothing is written: the exit code says whether the checked-in files are what
would be written.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from tools.grafana.learning import learning
from tools.grafana.memory import memory
from tools.grafana.operations import operations

from pgrecall.ops.monitor.files import ALERTMANAGER, PROMETHEUS, RULES, MonitoringRequest, render

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
BOARDS = {"memory": memory, "learning": learning, "operations": operations}


def texts() -> dict[Path, str]:
    """Return every file that is made here, with its text."""
    found = {
        DEPLOY / "grafana" / f"{name}.json": json.dumps(
            make().build(), cls=JSONEncoder, indent=1, sort_keys=True
        )
        + "\n"
        for name, make in BOARDS.items()
    }
    rendered = render(MonitoringRequest())
    for name in (RULES, PROMETHEUS, ALERTMANAGER):
        found[DEPLOY / "prometheus" / name] = rendered[name]
    return found


def main() -> int:
    """Write the files, or compare them."""
    stale = {
        path: text
        for path, text in texts().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    for path, text in stale.items():
        if "--check" in sys.argv[1:]:
            print(f"{path} is not what tools/dashboards.py makes; run it")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")
    return 1 if stale and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    raise SystemExit(main())
