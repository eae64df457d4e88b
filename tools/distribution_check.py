"""Write docs/reference/distribution.md: the schema and every statement against what Citus requires.

Usage: python tools/distribution_check.py "host=... dbname=PROVISIONED" [--check]

The database gives tables, keys, triggers and functions; the statements are those of
src/pgrecall/sql. With ``--check`` nothing is written: the exit code says whether the checked-in
page is what would be written.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

import pgrecall.sql

FILE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "distribution.md"
STATEMENTS = Path(pgrecall.sql.__file__).parent

WITHOUT_PROJECT = {
    "public.schema_version": "reference table",
    "pgrecall.alembic_version": "reference table",
    "pgrecall.embedding_models": "reference table",
    "pgrecall.languages": "reference table",
    "pgrecall.task_runs": "stays on the coordinator",
    "pgrecall.embedding_work": "stays on the coordinator",
    "pgrecall.deferred_indexes": "stays on the coordinator",
    "pgrecall.api_keys": "reference table",
    "pgrecall.request_answers": "stays on the coordinator",
    "pgrecall.vocabulary": "**no place**: counts over all projects, written by every fold",
    "pgrecall.embedding_queue": "**no place**: needs project_id, to lie beside its rows",
}
"""Where tables go that have no project; a new one has to be thought about."""

NO_PLACE = frozenset(name for name, where in WITHOUT_PROJECT.items() if "no place" in where)

HEAD = (Path(__file__).parent / "distribution_head.md").read_text()

_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_LITERAL = re.compile(r"'(?:[^']|'')*'")
_CALL = re.compile(r"\bpgrecall\.(\w+)\s*\(")
_LOCKS = re.compile(r"\bFOR\s+(?:UPDATE|NO KEY UPDATE|SHARE|KEY SHARE)\b")
_CORRELATES = re.compile(r"\b(?:EXISTS|LATERAL)\b")
_BY_PROJECT = re.compile(r"project_id\s*=\s*(?:%\(project_id\)s|\w+\.project_id)")
_BY_NEARLY = re.compile(r"project_id\s*=\s*coalesce\(")
_VERB = re.compile(
    r"\b(SELECT|INSERT|UPDATE|DELETE|TRUNCATE|LOCK|ALTER|CREATE|DROP|COPY|CALL|DO|SET)\b"
)


@dataclass(frozen=True, slots=True)
class Schema:
    """What the catalog says.

    Attributes:
        rows: What tools/distribution.sql returns, by query.
        distributed: Tables that have a project.
        nullable: Those of them in which it may be missing.
        reaches: For each function, the tables that it or what it calls names: distributed ones,
            and those that have no place.
    """

    rows: Mapping[str, Sequence[Mapping[str, Any]]]
    distributed: frozenset[str]
    nullable: frozenset[str]
    reaches: Mapping[str, frozenset[str]]


def named(text: str, tables: frozenset[str]) -> frozenset[str]:
    """Return the tables that a text names; the specification's may lack their schema."""
    return frozenset(
        table
        for table in tables
        if re.search(rf"\b{re.escape(table.removeprefix('public.'))}\b", text)
    )


def read(dsn: str) -> Schema:
    """Read the catalog."""
    queries = pgrecall.sql.parse(
        (Path(__file__).parent / "distribution.sql").read_text(), "distribution"
    )
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        rows = {name: connection.execute(query).fetchall() for name, query in queries.items()}
    lost = {row["name"] for row in rows["tables"] if not row["has_project"]} ^ set(WITHOUT_PROJECT)
    if lost:
        raise SystemExit(f"say in WITHOUT_PROJECT where these go, or went: {sorted(lost)}")
    distributed = frozenset(row["name"] for row in rows["tables"] if row["has_project"])
    nullable = frozenset(
        row["name"] for row in rows["tables"] if row["has_project"] and not row["has_always"]
    )
    return Schema(rows, distributed, nullable, reached(rows["functions"], distributed | NO_PLACE))


def reached(
    functions: Sequence[Mapping[str, Any]], tables: frozenset[str]
) -> Mapping[str, frozenset[str]]:
    """Return the tables that each function comes to, by itself or by others."""
    calls: dict[str, set[str]] = {row["name"]: set() for row in functions}
    reaches: dict[str, frozenset[str]] = dict.fromkeys(calls, frozenset())
    for row in functions:
        body = _COMMENT.sub("", row["definition"])
        if row["language"] == "sql":  # a name in quotes is only run by what can run text
            body = _LITERAL.sub("''", body)
        calls[row["name"]] |= {name for name in _CALL.findall(body) if name in calls}
        reaches[row["name"]] |= named(body, tables)
    while True:
        wider = {
            name: reaches[name].union(*(reaches[other] for other in called))
            for name, called in calls.items()
        }
        if wider == reaches:
            return reaches
        reaches = wider


def tables(schema: Schema) -> Iterator[str]:
    """Say of each table where it goes, and what stands in the way."""
    yield "| table | where it goes | in the way |"
    yield "|---|---|---|"
    keys = schema.rows["keys"]
    for row in schema.rows["tables"]:
        name, faults = row["name"], []
        if row["has_project"]:
            faults += [
                f"key `{key['name']}` ({', '.join(key['columns'])}) lacks the project"
                for key in keys
                if key["table_name"] == name and "project_id" not in key["columns"]
            ]
            if not row["has_always"]:
                faults.append("`project_id` may be NULL")
            if row["type"] != "character varying(50)":
                faults.append(f"`project_id` is {row['type']}")
            faults += [f"`{column}` is a short identity" for column in row["short_identities"]]
        where = "by `project_id`" if row["has_project"] else WITHOUT_PROJECT[name]
        yield f"| `{name}` | {where} | {'; '.join(faults) or '-'} |"
    found = [
        f"of `{row['table_name']}` to `{row['target']}`" for row in schema.rows["foreign_keys"]
    ]
    yield ""
    yield f"Foreign keys: {', '.join(found) or 'none'}."


def triggers(schema: Schema) -> Iterator[str]:
    """Say of each trigger whether it could stay."""
    yield "| table | trigger | runs | comes to | could it stay? |"
    yield "|---|---|---|---|---|"
    for row in schema.rows["triggers"]:
        tables = schema.reaches[row["function"]] - {row["table_name"]}
        when = "before" if row["before"] else "after"
        runs = f"{when} {'each row' if row['each_row'] else 'a statement'}"
        if stray := sorted(tables & NO_PLACE):
            verdict = f"**no**: {', '.join(f'`{table}`' for table in stray)} would be elsewhere"
        elif tables:
            verdict = "as an unsafe one, which has to keep to the shards beside its own"
        else:
            verdict = "as an unsafe one; it touches its row alone"
        names = ", ".join(f"`{table}`" for table in sorted(tables)) or "-"
        yield f"| `{row['table_name']}` | `{row['name']}` | {runs} | {names} | {verdict} |"


def functions(schema: Schema) -> Iterator[str]:
    """Say of each function that comes to distributed tables whether it can run beside a shard."""
    yield "| function | tables | names one project | what to do |"
    yield "|---|---|---|---|"
    rest: list[str] = []
    for row in schema.rows["functions"]:
        tables = sorted(schema.reaches[row["name"]] & schema.distributed)
        if row["is_trigger"]:
            continue
        if not tables:
            rest.append(row["name"])
            continue
        given = [name for name in row["arguments"] if name in ("p_project", "p_project_id")]
        hidden = [name for name in row["arguments"] if name in ("p_filter", "p_projects")]
        if given:
            how, verdict = f"by `{given[0]}`", "can be distributed"
        elif hidden:
            how = f"inside `{hidden[0]}`, where Citus does not look"
            verdict = "needs the project as an argument of its own"
        else:
            how, verdict = "no", "stays on the coordinator, or takes the project too"
        names = ", ".join(f"`{table.partition('.')[2]}`" for table in tables)
        yield f"| `{row['name']}` | {names} | {how} | {verdict} |"
    yield ""
    listed = ", ".join(f"`{name}`" for name in sorted(set(rest)))
    yield f"Come to no distributed table, and are only to be created everywhere: {listed}."


@dataclass(frozen=True, slots=True)
class Judged:
    """A statement, what it comes to, and how Citus would take it."""

    topic: str
    name: str
    tables: frozenset[str]
    functions: tuple[str, ...]
    project: str
    verdict: str


def statements(schema: Schema) -> Iterator[Judged | None]:
    """Judge every statement; None for one that comes to no distributed table."""
    for path in sorted(STATEMENTS.glob("*.sql")):
        loaded = pgrecall.sql.load(path.stem)
        by_project = _COMMENT.sub("", loaded.get("filter_project_id", ""))
        for name, text in loaded.items():
            if name.startswith("filter_") or not _VERB.search(_COMMENT.sub("", text)):
                continue
            yield judge(schema, path.stem, name, text, by_project)


def judge(schema: Schema, topic: str, name: str, text: str, by_project: str) -> Judged | None:
    """Judge one statement.

    Args:
        schema: What the catalog says.
        topic: Its file.
        name: Its name.
        text: Its text, with the place for filters.
        by_project: The filter on a project that its file has; empty for none.
    """
    bare = _COMMENT.sub("", text)
    bare = _LITERAL.sub("''", bare)
    tables = named(bare, schema.distributed)
    called = sorted(
        {f for f in _CALL.findall(bare) if schema.reaches.get(f, frozenset()) & schema.distributed}
    )
    if not tables and not called:
        return None
    verb = _VERB.search(bare)
    kind = verb[1] if verb else ""
    filtered = "/* filters */" in text and bool(by_project)
    project, verdict = "never", ""
    if kind == "INSERT" and "project_id" in bare:
        project, verdict = "in each row", "by the coordinator, each row to its shard"
        if tables & schema.nullable:
            verdict += "; **refused** where it is NULL"
    elif kind == "INSERT":
        verdict = "**refused**: gives no project"
    elif _BY_NEARLY.search(bare):
        project, verdict = "nearly", "**refused**: joins by `coalesce(project_id, '')`"
    elif _BY_PROJECT.search(bare):
        project, verdict = "in the statement", "on the project's shard, or shard by shard"
    elif filtered and " OR " in by_project:
        project = "if the call names one, beside the rows of all projects"
    elif filtered:
        project = "if the call names one"
    if not verdict:
        verdict = across(bare, kind, tables, called, filtered=filtered and " OR " not in by_project)
    return Judged(topic, name, tables, tuple(called), project, verdict)


def across(
    bare: str, kind: str, tables: frozenset[str], called: Sequence[str], *, filtered: bool
) -> str:
    """Say how Citus takes a statement that need not name one project."""
    one = "one shard if it does, else " if filtered else ""
    if called and not tables:
        return "as its function"
    if kind in ("TRUNCATE", "LOCK", "ALTER", "CREATE", "DROP", "DO", "SET"):
        return "definition: the coordinator carries it to all shards"
    if _LOCKS.search(bare):
        return f"{one}**refused**: locks rows across shards"
    if _CORRELATES.search(bare) and len(tables) > 1:
        return f"{one}**refused**: correlates by something else than the project"
    if kind in ("INSERT", "UPDATE", "DELETE"):
        return f"{one}all shards, in one distributed transaction"
    return f"{one}all shards, and the coordinator puts together"


def listing(judged: Sequence[Judged | None]) -> Iterator[str]:
    """List the statements that come to distributed tables, and count them."""
    yield "| statement | tables | names a project | runs on |"
    yield "|---|---|---|---|"
    for one in judged:
        if one is None:
            continue
        names = [f"`{table.partition('.')[2]}`" for table in sorted(one.tables)]
        names += [f"`{function}()`" for function in one.functions]
        yield f"| `{one.topic}: {one.name}` | {', '.join(names)} | {one.project} | {one.verdict} |"
    counts = Counter(
        "none" if one is None
        else "refused" if one.verdict.startswith("**refused**")
        else "function" if one.verdict == "as its function"
        else "definition" if one.verdict.startswith("definition")
        else "routed" if one.project in ("in each row", "in the statement")
        else "if named" if one.verdict.startswith("one shard")
        else "all"
        for one in judged
    )  # fmt: skip
    yield ""
    yield (
        f"{len(judged)} statements: {counts['none']} come to no distributed table, "
        f"{counts['routed']} go to the shards of their rows, {counts['if named']} to one shard if "
        f"the call names its project and else to all, {counts['all']} always to all, "
        f"{counts['definition']} define something, {counts['function']} are decided by a function, "
        f"{counts['refused']} are refused whatever the call says."
    )


def page(dsn: str) -> str:
    """Return the page for a provisioned database."""
    schema = read(dsn)
    parts = (
        ("Tables", tables(schema)),
        ("Triggers", triggers(schema)),
        ("Functions", functions(schema)),
        ("Statements", listing([*statements(schema)])),
    )
    return HEAD + "".join(f"\n## {title}\n\n" + "\n".join(lines) + "\n" for title, lines in parts)


def main(dsn: str, *, check: bool) -> int:
    """Write the page, or say whether it is current."""
    made = page(dsn)
    if check:
        return 0 if FILE.exists() and FILE.read_text() == made else 1
    FILE.write_text(made)
    return 0


if __name__ == "__main__":
    arguments = [word for word in sys.argv[1:] if word != "--check"]
    if len(arguments) != 1:
        sys.exit(__doc__)
    sys.exit(main(arguments[0], check="--check" in sys.argv[1:]))
