"""The comparison of the catalog with the specification, as checks."""

from __future__ import annotations

from psycopg import sql

from pgrecall.ops.checks import Seen
from pgrecall.ops.verify import catalog
from pgrecall.ops.verify.cases import Subject
from pgrecall.ops.verify.session import QUERIES
from pgrecall.ops.verify.steps import OLD_EVIDENCE, OLD_EVIDENCE_REMEDY

_RESTORE = {
    "columns": "ALTER TABLE to what is expected; `pgrecall migrate` adds columns that are missing",
    "constraints": "ALTER TABLE ... DROP CONSTRAINT, then ADD CONSTRAINT as expected",
    "indexes": "DROP INDEX CONCURRENTLY what is wrong, then create it as expected, CONCURRENTLY",
    "functions": "CREATE OR REPLACE FUNCTION as expected, from a freshly migrated database",
    "triggers": "ALTER TABLE ... ENABLE TRIGGER, or create it as expected",
}


def section(subject: Subject, name: catalog.Section) -> Seen:
    """Compare one kind of object."""
    wrong, _ = catalog.compare(subject.catalog, subject.expected)
    here = [item for item in wrong if item.section == name]
    faults = [str(item) for item in here if not catalog.is_old_evidence_check(item)]
    if faults:
        return Seen("failed", "; ".join(faults), _RESTORE[name])
    if here:
        return Seen("warning", OLD_EVIDENCE, OLD_EVIDENCE_REMEDY)
    return Seen("passed", f"{len(subject.expected[name])} {name} as expected")


def views(subject: Subject) -> Seen:
    """Compare the columns of the views, and read from each."""
    wrong, _ = catalog.compare(subject.catalog, subject.expected)
    faults = [str(item) for item in wrong if item.section == "view_columns"]
    if faults:
        return Seen(
            "failed", "; ".join(faults), "CREATE OR REPLACE VIEW as in a freshly migrated database"
        )
    names = list(subject.expected["view_definitions"])
    for view in names:
        statement = sql.SQL(QUERIES["select_view"]).format(view=sql.Identifier(view))
        with subject.session.read_only():
            subject.session.connection.execute(statement)
    others = [str(item) for item in wrong if item.section == "view_definitions"]
    if others:
        # Another release of PostgreSQL may print the same query otherwise.
        return Seen(
            "warning",
            "columns as expected and readable, but the query differs: " + "; ".join(others),
            "compare the query by eye with that of a freshly migrated database",
        )
    return Seen(
        "passed",
        f"{len(subject.expected['view_columns'])} columns as expected; read: {', '.join(names)}",
    )


def extensions(subject: Subject) -> Seen:
    """The specification's extensions are installed where the server has them."""
    found = subject.extensions
    evidence = ", ".join(f"{name} {version}" for name, version in sorted(found.items())) or "none"
    if "vector" not in found:
        return Seen(
            "failed",
            f"expected: extension vector, found: {evidence}",
            "as a superuser in this database: CREATE EXTENSION vector",
        )
    missing = [name for name in ("pg_trgm", "uuid-ossp") if name not in found]
    installable = [name for name in missing if name in subject.available]
    if "pg_trgm" in installable:
        return Seen(
            "failed",
            f"expected: extension pg_trgm, which this server has; found: {evidence}",
            "as the owner in this database: CREATE EXTENSION pg_trgm",
        )
    if installable or "pg_trgm" in missing:
        names = ", ".join(missing)
        return Seen(
            "warning",
            f"missing: {names}, which nothing in the schema uses; found: {evidence}",
            "install the server's contrib package, then run `pgrecall init` again",
        )
    note = "; uuid-ossp is not to be had on this server, and nothing uses it" if missing else ""
    return Seen("passed", evidence + note)


def unknown(subject: Subject) -> Seen:
    """Name what schema public holds beside the specification's objects."""
    _, others = catalog.compare(subject.catalog, subject.expected)
    names = sorted(
        {
            f"{item.section.removesuffix('s').replace('_', ' ')} {item.name}"
            for item in others
            if item.section != "view_definitions"
        }
    )
    if not names:
        return Seen("passed", "schema public holds the specification's objects and nothing else")
    return Seen("passed", f"note: schema public also holds {', '.join(names)}")
