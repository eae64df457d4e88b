"""The database schema, as a row of revisions that only go forward.

Each revision is a short Alembic script below ``versions/`` that runs ``.sql`` files of ``sql/``.
The constants here can be read without Alembic installed or imported; what runs revisions is in
:mod:`pgrecall.migrations.runner`.
"""

from __future__ import annotations

from typing import Final

REVISIONS: Final[tuple[str, ...]] = (
    "1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0", "1.5.0", "1.6.0", "1.7.0",
    "1.8.0",
)  # fmt: skip
"""Every revision, oldest first."""

HEAD: Final[str] = REVISIONS[-1]
"""The revision that this version of pgrecall needs."""

VERSION_SCHEMA: Final[str] = "pgrecall"
"""Schema of everything that is not the specification's, ``alembic_version`` included."""

SQL_PACKAGE: Final[str] = "pgrecall.migrations.sql"
"""Package that holds the statements of the revisions."""
