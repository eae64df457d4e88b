"""Checks of versions: the server, its extensions, its collations."""

from __future__ import annotations

import re

from pgrecall.ops.checks import Seen
from pgrecall.ops.doctor.facts import Facts

OLDEST_SERVER = 170000


def parse_version(text: str) -> tuple[int, ...]:
    """Return the first three numbers of a version: ``(0, 8, 1)`` for ``0.8.1``."""
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


def server_version(facts: Facts) -> Seen:
    """PostgreSQL is recent enough."""
    return supported(facts.server.version_number)


def supported(version_number: int) -> Seen:
    """Judge a version given as PostgreSQL numbers it: 180006 for 18.6."""
    evidence = f"PostgreSQL {version_number // 10000}.{version_number % 10000}"
    if version_number < OLDEST_SERVER:
        return Seen(
            "failed",
            f"{evidence}, supported are 17 and later",
            "move to a newer server: pg_upgrade, or a backup restored there",
        )
    return Seen("passed", evidence)


def pgvector_version(facts: Facts) -> Seen:
    """The release of pgvector has no known fault."""
    installed = next((item.installed for item in facts.extensions if item.name == "vector"), None)
    if installed is None:
        return Seen(
            "failed", "extension vector is not installed", "as a superuser: CREATE EXTENSION vector"
        )
    evidence, version = f"pgvector {installed}", parse_version(installed)
    remedy = "install pgvector 0.8.4 or later on the server, then: ALTER EXTENSION vector UPDATE"
    if version < (0, 8, 0):
        return Seen("failed", f"{evidence} has no iterative scans; 0.8 is needed", remedy)
    if version < (0, 8, 2):
        return Seen(
            "warning",
            f"{evidence} can overflow a buffer in parallel builds of HNSW indexes (mended in "
            "0.8.2), and has faults in vacuum (mended in 0.8.4)",
            f"{remedy}; until then: SET max_parallel_maintenance_workers = 0 before building",
        )
    if version < (0, 8, 4):
        return Seen(
            "warning", f"{evidence} has faults in vacuum of HNSW indexes, mended in 0.8.4", remedy
        )
    return Seen("passed", evidence)


def extension_updates(facts: Facts) -> Seen:
    """No installed extension is older than its package on the server."""
    behind = [
        item
        for item in facts.extensions
        if item.installed is not None
        and parse_version(item.installed) < parse_version(item.available)
    ]
    if behind:
        return Seen(
            "warning",
            "; ".join(
                f"{item.name} is at {item.installed}, the server has {item.available}"
                for item in behind
            ),
            "; ".join(f'ALTER EXTENSION "{item.name}" UPDATE' for item in behind),
        )
    installed = [f"{item.name} {item.installed}" for item in facts.extensions if item.installed]
    return Seen("passed", ", ".join(installed) or "no extension is installed")


def optional_extensions(facts: Facts) -> Seen:
    """Which of the specification's extensions that nothing depends on are there."""
    absent = [
        item.name
        for item in facts.extensions
        if item.installed is None and item.name in ("pg_trgm", "uuid-ossp")
    ]
    known = {item.name for item in facts.extensions}
    unavailable = [name for name in ("pg_trgm", "uuid-ossp") if name not in known]
    if absent:
        return Seen(
            "passed",
            f"note: {', '.join(absent)} could be installed; nothing in the schema uses it",
            "; ".join(f'CREATE EXTENSION "{name}"' for name in absent),
        )
    if unavailable:
        return Seen(
            "passed",
            f"note: this server lacks {', '.join(unavailable)}; nothing in the schema uses it",
        )
    return Seen("passed", "pg_trgm and uuid-ossp are installed")


def collation(facts: Facts) -> Seen:
    """The collation has not changed under the text indexes."""
    recorded, actual = facts.server.collation_recorded, facts.server.collation_actual
    if recorded is None or actual is None:
        return Seen("passed", "the database's collation has no version that could change")
    if recorded != actual:
        name = facts.server.database
        return Seen(
            "failed",
            f"database {name} was made with version {recorded} of its collation, the operating "
            f"system now has {actual}: indexes on text may be out of order",
            f'REINDEX DATABASE "{name}"; ALTER DATABASE "{name}" REFRESH COLLATION VERSION',
        )
    return Seen("passed", f"collation version {actual}, as when the database was made")
