"""Test suites that other projects wrote for their interfaces, from their source distributions."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

_KEPT = Path(tempfile.gettempdir()) / "pgrecall-suites"


def source_of(project: str) -> Path:
    """Return the unpacked source distribution of an installed project, downloaded if need be.

    Args:
        project: Its name, such as ``"langgraph-checkpoint"``.

    Raises:
        RuntimeError: It could not be downloaded.
    """
    wanted = f"{project.replace('-', '_')}-{version(project)}"
    place = _KEPT / wanted
    if not place.exists():
        _KEPT.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_KEPT) as directory:
            unpacked = _download(f"{project}=={version(project)}", Path(directory))
            try:
                unpacked.rename(place)
            except OSError:  # another run was quicker
                if not place.exists():
                    raise
    return place


def _download(requirement: str, directory: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--no-binary", ":all:", "--dest", str(directory),
         requirement],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    archives = list(directory.glob("*.tar.gz"))
    if done.returncode or len(archives) != 1:
        raise RuntimeError(f"no source distribution of {requirement}: {done.stderr[-1000:]}")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(directory, filter="data")
    (unpacked,) = [path for path in directory.iterdir() if path.is_dir()]
    return unpacked
