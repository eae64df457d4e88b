"""PostgreSQL is the type checker: it prepares every statement of the client and describes it.

What it says of columns and parameters is compared with the type hints of the records.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from itertools import chain
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import psycopg
import pytest
from psycopg.pq import ExecStatus

from pgrecall.models import (
    Episode,
    Knowledge,
    Metric,
    OperationSummary,
    RecalledThought,
    Session,
    Totals,
)
from pgrecall.sql import load, statement

PYTHON_TYPES: dict[str, object] = {
    "uuid": UUID,
    "text": str,
    "character varying": str,
    "jsonb": Mapping,
    "timestamp with time zone": datetime,
    "double precision": float,
    "integer": int,
    "bigint": int,
    "boolean": bool,
    "uuid[]": (Sequence, UUID),
    "jsonb[]": (Sequence, Mapping),
}
# What the client passes for each parameter, as PostgreSQL is to infer it.
PARAMETERS = {
    "active": "boolean",
    "after_id": "uuid",
    "after_time": "timestamp with time zone",
    "agent_version": "text",
    "before": "timestamp with time zone",
    "confidence": "double precision",
    "confidence_weight": "double precision",
    "content": "jsonb",
    "context": "jsonb",
    "created_by": "text",
    "decision_source": "text",
    "description": "text",
    "embedding": "vector",
    "episode_id": "uuid",
    "goal": "text",
    "knowledge_id": "uuid",
    "knowledge_type": "text",
    "limit": "bigint",
    "max_quality": "double precision",
    "min_confidence": "double precision",
    "min_quality": "double precision",
    "min_similarity": "double precision",
    "model": "integer",
    "operation_type": "text",
    "outcome": "jsonb",
    "outcome_weight": "double precision",
    "perception": "jsonb",
    "project_ids": "text[]",
    "project_id": "text",
    "quality": "double precision",
    "reasoning": "jsonb",
    "session_id": "uuid",
    "since": "timestamp with time zone",
    "sprint_id": "text",
    "success": "boolean",
    "ttl": "interval",
    "until": "timestamp with time zone",
    "user_id": "text",
    "with_outcome": "boolean",
    "action": "jsonb",
    "distance": "text",
    "identity": "text",
    "max_depth": "integer",
    "offset": "bigint",
    "patterns": "jsonb",
    "where": "jsonb",
    "with_vectors": "boolean",
}
# Those of recalls are the arguments of a function.
RECALL_PARAMETERS = {
    "age_weight": "double precision",
    "confidence_weight": "double precision",
    "context": "boolean",
    "diversity": "double precision",
    "embedding": "vector",
    "explain": "boolean",
    "filter": "jsonb",
    "group": "boolean",
    "half_life": "interval",
    "limit": "integer",
    "min_similarity": "double precision",
    "model": "integer",
    "outcome_weight": "double precision",
    "route": "text",
    "text": "text",
}
ARRAYS = {
    "agent_versions": "text[]",
    "chronicle_note_ids": "uuid[]",
    "contradicting_episodes": "uuid[]",
    "durations_ms": "double precision[]",
    "embeddings": "vector[]",
    "episode_ids": "uuid[]",
    "keyed_external_ids": "text[]",
    "keyed_ids": "uuid[]",
    "keyed_projects": "text[]",
    "limits": "integer[]",
    "namespaces": "jsonb[]",
    "numbers": "bigint[]",
    "qualities": "double precision[]",
    "queries": "vector[]",
    "results_counts": "integer[]",
    "supporting_episodes": "uuid[]",
    "thoughts": "jsonb[]",
    "timestamps": "timestamp with time zone[]",
    "ttls": "interval[]",
    "values": "jsonb[]",
    "vectors": "vector[]",
}
RECORDS: dict[tuple[str, str], type] = {
    ("episodes", "taken"): Episode,
    ("sessions", "recall"): RecalledThought,
    ("episodes", "record_outcome"): Episode,
    ("episodes", "get"): Episode,
    ("episodes", "list"): Episode,
    ("knowledge", "add"): Knowledge,
    ("knowledge", "get"): Knowledge,
    ("knowledge", "list"): Knowledge,
    ("knowledge", "apply"): Knowledge,
    ("knowledge", "retire"): Knowledge,
    ("sessions", "open"): Session,
    ("sessions", "resume"): Session,
    ("sessions", "clear_thoughts"): Session,
    ("sessions", "get"): Session,
    ("sessions", "list"): Session,
    ("sessions", "update"): Session,
    ("sessions", "close"): Session,
    ("metrics", "list"): Metric,
    ("metrics", "summary"): OperationSummary,
    ("metrics", "totals"): Totals,
}
RECALLED = {"episodes": Episode, "knowledge": Knowledge}
FRAGMENTS = {"columns", "given_keys", "live", "new_rows", "ranking"}
TOPICS = ("episodes", "knowledge", "sessions", "metrics", "items", "transfer")


def statements() -> Iterator[tuple[str, str]]:
    for topic in TOPICS:
        for name in load(topic):
            if name not in FRAGMENTS and not name.startswith("filter_"):
                yield topic, name


def all_filters(topic: str) -> tuple[str, ...]:
    return tuple(n.removeprefix("filter_") for n in load(topic) if n.startswith("filter_"))


def describe(
    connection: psycopg.Connection[Any], text: str
) -> tuple[dict[str, str], list[tuple[str, str, bool | None]]]:
    """Return the types of the parameters, and name, type and NOT NULL of each column."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    query = re.sub(r"%\((\w+)\)[sb]", number, text)
    prepared = connection.pgconn.prepare(b"", query.encode())
    assert prepared.status == ExecStatus.COMMAND_OK, prepared.error_message.decode()
    described = connection.pgconn.describe_prepared(b"")

    def type_name(oid: int) -> str:
        row = connection.execute("SELECT format_type(%s, NULL)", [oid]).fetchone()
        assert row is not None
        return str(row[0])

    parameters = {name: type_name(described.param_type(i)) for i, name in enumerate(names)}
    columns = []
    for i in range(described.nfields):
        row = connection.execute(
            "SELECT attnotnull FROM pg_attribute WHERE attrelid = %s AND attnum = %s",
            [described.ftable(i), described.ftablecol(i)],
        ).fetchone()
        name = (described.fname(i) or b"").decode()
        columns.append((name, type_name(described.ftype(i)), row[0] if row else None))
    return parameters, columns


def accepts(hint: Any, pg_type: str) -> tuple[bool, bool]:
    """Tell whether a hint takes values of a type, and whether it takes None."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    optional = type(None) in options
    (option,) = [o for o in options if o is not type(None)]
    expected = PYTHON_TYPES[pg_type]
    if get_origin(option) is Literal:
        return expected is str, optional
    origin = get_origin(option) or option
    if isinstance(expected, tuple):
        item = get_args(option)[0]
        return (origin, get_origin(item) or item) == (expected[0], expected[1]), optional
    return origin.__name__ == getattr(expected, "__name__", ""), optional


@pytest.fixture(scope="module")
def connection(schema_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(schema_dsn, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("filtered", [False, True], ids=["plain", "filtered"])
@pytest.mark.parametrize(("topic", "name"), [*statements()])
def test_parameters_have_the_types_the_client_sends(
    connection: psycopg.Connection[Any], topic: str, name: str, filtered: bool
) -> None:
    text = statement(topic, name, all_filters(topic) if filtered else ())
    parameters, _ = describe(connection, text)
    if name == "recall":
        assert parameters == {p: RECALL_PARAMETERS[p] for p in parameters}
        return
    for parameter, found in parameters.items():
        expected = {**PARAMETERS, **ARRAYS}.get(parameter, "text[]")
        assert found.replace("character varying", "text") == expected, (topic, name, parameter)


@pytest.mark.parametrize(("topic", "name"), [*RECORDS])
def test_columns_are_the_fields_of_the_record(
    connection: psycopg.Connection[Any], topic: str, name: str
) -> None:
    _, columns = describe(connection, statement(topic, name))
    check_columns(RECORDS[topic, name], columns)


@pytest.mark.parametrize("topic", [*RECALLED])
def test_a_recalled_row_is_the_record_with_the_terms_of_its_score(
    connection: psycopg.Connection[Any], topic: str
) -> None:
    _, columns = describe(connection, statement(topic, "recall"))
    record, terms = RECALLED[topic], columns[len(fields(RECALLED[topic])) :]
    check_columns(record, columns[: len(fields(record))])
    numbers = ["similarity", "worth", "recency", "score", "relevance", "words", "evidence"]
    if topic == "episodes":
        numbers.insert(-1, "lent")
    assert [c[:2] for c in terms if c[0] != "repeats"] == [
        *((name, "double precision") for name in numbers),
        ("account", "jsonb"),
    ]
    assert ("repeats", "uuid[]") in [c[:2] for c in terms] or topic == "knowledge"


def test_a_neighbour_is_an_episode_beside_another(connection: psycopg.Connection[Any]) -> None:
    _, (of, *columns) = describe(connection, statement("episodes", "neighbours"))
    assert of[:2] == ("neighbour_of", "uuid")
    check_columns(Episode, columns)


def check_columns(record: type, columns: Sequence[tuple[str, str, bool | None]]) -> None:
    hints = get_type_hints(record)
    assert [name for name, _, _ in columns] == [field.name for field in fields(record)]
    for name, pg_type, not_null in columns:
        fits, optional = accepts(hints[name], pg_type)
        assert fits, f"{record.__name__}.{name}: {hints[name]} against {pg_type}"
        if not_null is not None:
            assert optional == (not not_null), f"{record.__name__}.{name}: None or not?"


def test_a_vector_of_another_type_is_not_taken_for_one_of_ours() -> None:
    assert accepts(str, "uuid") == (False, False)
    assert accepts(UUID | None, "uuid") == (True, True)
    assert accepts(Sequence[UUID], "jsonb[]") == (False, False)


def test_every_statement_is_covered() -> None:
    used = set(chain(RECORDS, ((topic, "recall") for topic in RECALLED)))
    without_rows_of_a_record = {
        ("episodes", "record"), ("episodes", "record_burst"), ("episodes", "embeddings"),
        ("episodes", "count"),
        ("episodes", "lock"), ("episodes", "evidence_of"), ("episodes", "delete"),
        ("knowledge", "hold_evidence"), ("knowledge", "delete"), ("sessions", "expire"),
        ("sessions", "delete"), ("metrics", "record"), ("metrics", "prune"),
        ("metrics", "sample"), ("metrics", "fold_words"), ("transfer", "fill_outcomes"),
        ("episodes", "neighbours"), ("items", "put"), ("items", "delete"), ("items", "get"),
        ("items", "refresh"), ("items", "list"), ("items", "search"), ("items", "namespaces"),
        ("items", "expire"), ("sessions", "thoughts"), ("sessions", "pop_thought"),
    }  # fmt: skip
    assert used | without_rows_of_a_record == set(statements())
