"""A PostgreSQL 17 beside the embedded 18, from Debian's packages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pgrecall.config import Settings, load_settings
from pgrecall.ops import embedded

ROOT = Path(__file__).resolve().parents[1]


def programs() -> Path:
    """Return the directory of its programs; skip where it is not to be had."""
    done = subprocess.run(
        [ROOT / "tools" / "postgresql_17.sh", sys.executable],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"needs a PostgreSQL 17: {done.stderr.strip()[-300:]}")
    return Path(done.stdout.strip())


@contextmanager
def memory_on_17(directory: Path, pg_bin: Path) -> Iterator[Settings]:
    """Provision a memory on it, and delete it afterwards."""
    directory.chmod(0o711)
    settings = load_settings(
        data_dir=directory / "server",
        config_dir=directory / "config",
        pg_bin=pg_bin,
        backups=str(directory / "backups"),
        embedder="none",
    )
    embedded.provision(settings, dimensions=64)
    try:
        yield settings
    finally:
        embedded.server_of(settings).destroy(force=True)
