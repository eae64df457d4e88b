"""What is said of distribution by project is what the schema and the statements are."""

from __future__ import annotations

import psycopg
import pytest
from tools.distribution_check import FILE, Schema, judge, page, read

BY_PROJECT = "AND e.project_id = %(project_id)s"
BESIDE = "AND (k.project_id = %(project_id)s OR k.project_id IS NULL)"
JOINED = "SELECT 1 FROM agent_episodes AS e JOIN pgrecall.texts AS t ON t.project_id = {}"


@pytest.fixture(scope="module")
def schema(schema_dsn: str) -> Schema:
    return read(schema_dsn)


def test_the_checked_in_page_is_current(schema_dsn: str) -> None:
    assert page(schema_dsn) == FILE.read_text(), (
        "run tools/distribution_check.py with the address of a freshly migrated database"
    )


def test_new_tables_are_keyed_by_project(schema: Schema) -> None:
    """The specification's keys stay; the key of a table of ours begins with its project."""
    samples = "pgrecall.recall_samples"  # a week of queries, which nobody joins
    keys = [
        (row["table_name"], row["columns"][0])
        for row in schema.rows["keys"]
        if row["table_name"].startswith("pgrecall.") and row["table_name"] in schema.distributed
    ]
    assert {table for table, _ in keys} >= {"pgrecall.episode_codes", "pgrecall.texts"}
    # Recent episodes are keyed as the specification keys all episodes.
    others = {samples, "pgrecall.recent_episodes"}
    assert {column for table, column in keys if table not in others} == {"project_id"}


@pytest.mark.parametrize(
    ("text", "by_project", "project", "verdict"),
    [
        ("SELECT 1 FROM agent_episodes AS e WHERE true /* filters */", BY_PROJECT, "if the call",
         "one shard if it does, else all shards"),
        ("SELECT 1 FROM agent_episodes AS e WHERE true /* filters */", "", "never", "all shards"),
        ("SELECT 1 FROM agent_knowledge AS k WHERE true /* filters */", BESIDE, "if the call",
         "all shards"),
        ("SELECT 1 FROM agent_episodes AS e FOR UPDATE", BY_PROJECT, "never", "**refused**: locks"),
        ("SELECT 1 FROM agent_episodes AS e WHERE true /* filters */ FOR UPDATE", BY_PROJECT,
         "if the call", "one shard if it does, else **refused**"),
        ("SELECT 1 FROM agent_knowledge WHERE EXISTS (SELECT FROM agent_episodes)", "", "never",
         "**refused**: correlates"),
        (JOINED.format("e.project_id"), "", "in the statement", "on the project's shard"),
        (JOINED.format("coalesce(e.project_id, '')"), "", "nearly", "**refused**: joins"),
        ("INSERT INTO agent_episodes (project_id) SELECT 'p'", "", "in each row",
         "by the coordinator, each row to its shard"),
        ("INSERT INTO agent_knowledge (project_id) SELECT 'p'", "", "in each row",
         "by the coordinator, each row to its shard; **refused** where it is NULL"),
        ("INSERT INTO agent_knowledge (description) SELECT 'p'", "", "never", "**refused**: gives"),
        ("UPDATE agent_episodes SET outcome = '{}'", "", "never", "all shards, in one"),
        ("SELECT * FROM pgrecall.recall_episodes(NULL)", "", "never", "as its function"),
    ],
)  # fmt: skip
def test_a_statement_is_judged_by_the_rules(
    schema: Schema, text: str, by_project: str, project: str, verdict: str
) -> None:
    judged = judge(schema, "topic", "name", text, by_project)
    assert judged is not None
    assert judged.project.startswith(project)
    assert judged.verdict.startswith(verdict)


@pytest.mark.parametrize(
    "text", ["SELECT to_regclass('public.agent_episodes')", "SELECT 1 FROM pgrecall.task_runs"]
)
def test_what_comes_to_no_rows_of_a_project_is_left_out(schema: Schema, text: str) -> None:
    assert judge(schema, "topic", "name", text, "") is None


def test_a_table_nobody_has_thought_about_is_noticed(schema_dsn: str) -> None:
    with psycopg.connect(schema_dsn, autocommit=True) as admin:
        admin.execute("CREATE TABLE pgrecall.stray (id uuid PRIMARY KEY)")
        try:
            with pytest.raises(SystemExit, match="pgrecall.stray"):
                read(schema_dsn)
        finally:
            admin.execute("DROP TABLE pgrecall.stray")
