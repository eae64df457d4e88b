"""The suites of those whose interfaces are implemented, from their own source distributions.

Wheels leave the tests out. Nothing of theirs is kept here: the distribution of the version that is
installed is downloaded in the run, once for a user of a machine.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path


def source_of(name: str) -> Path:
    """Return the directory of a package's unpacked source distribution, at the installed version.

    Args:
        name: What it is called in the index, such as ``openai-agents``.

    Raises:
        RuntimeError: It could not be downloaded.
    """
    wanted = f"{name}=={version(name)}"
    kept = _cache() / re.sub(r"[^A-Za-z0-9.]+", "-", wanted)
    if not kept.is_dir():
        with tempfile.TemporaryDirectory(dir=kept.parent) as place:
            unpacked = _unpack(_download(name, wanted, Path(place)), Path(place) / "unpacked")
            try:
                unpacked.rename(kept)
            except OSError:  # another process was quicker
                if not kept.is_dir():
                    raise
    (source,) = kept.iterdir()
    return source


def _cache() -> Path:
    place = Path(tempfile.gettempdir()) / f"pgrecall-suites-{os.getuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    if place.stat().st_uid != os.getuid():
        raise RuntimeError(f"{place} is another user's: set TMPDIR to a directory of your own")
    return place


def _download(name: str, wanted: str, place: Path) -> Path:
    # Only this package from its source: pip asks for its metadata, and what builds those may come
    # as a wheel.
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--no-binary", name, "--dest", str(place), wanted],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(
            f"the suite of {wanted} could not be downloaded; it needs pip and a package index:\n"
            f"{done.stderr[-2000:]}"
        )
    (archive,) = place.glob("*.tar.gz")
    return archive


def _unpack(archive: Path, place: Path) -> Path:
    with tarfile.open(archive) as opened:
        opened.extractall(place, filter="data")
    return place
