"""Changes the model as the command does, and waits after each step to be told to go on."""

from __future__ import annotations

import json
import sys

from pgrecall.config import load_settings
from pgrecall.ops.embeddings import Switch


def ask(step: str) -> None:
    print(step, flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    dsn, wanted = sys.argv[1:]
    change = Switch(dsn=dsn, settings=load_settings(), say=ask)
    change.prepare(**json.loads(wanted), queries=3)
    change.change_over()
