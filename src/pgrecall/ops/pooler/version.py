"""Which PgBouncer the configuration is for, and what that one can do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from pgrecall.errors import InvalidInput

Version = tuple[int, ...]

OLDEST: Version = (1, 18)
"""The oldest version that this is tested with; what is written works with all later ones too."""
AUTH_DBNAME: Version = (1, 19)
"""From here on users can be looked up in one database for all."""
PREPARED_STATEMENTS: Version = (1, 21)
"""From here on prepared statements of clients can be kept track of."""

_PLACES = ("/usr/sbin", "/usr/local/sbin")  # which a user's PATH often lacks
_PATIENCE_SECONDS = 10


def find_program() -> str | None:
    """Return where PgBouncer is installed here, or None."""
    return shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), *_PLACES]))


def find_version(given: str | None) -> Version | None:
    """Return the version that was given, or else of the PgBouncer installed here; None without.

    Raises:
        InvalidInput: What was given is no version.
    """
    if given is not None:
        if not re.fullmatch(r"\d+\.\d+(\.\d+)?", given):
            raise InvalidInput(
                f"{given!r} is no version of PgBouncer", hint="write it as in `pgbouncer --version`"
            )
        return tuple(int(number) for number in given.split("."))
    program = find_program()
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - found by name, nothing of a user's in it
            [program, "--version"],
            capture_output=True,
            text=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None  # as if there were none: the caller says so, and what is written fits all
    found = re.search(r"PgBouncer (?:version )?(\d+(?:\.\d+)+)", done.stdout, re.IGNORECASE)
    return tuple(int(number) for number in found[1].split(".")) if found else None


def as_text(version: Version) -> str:
    """Return a version as it is written: ``1.18.0``."""
    return ".".join(str(number) for number in version)
