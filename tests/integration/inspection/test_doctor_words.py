"""Doctor on the words: each fault is named, and its remedy mends it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from pgrecall.ops.checks import Check
from pgrecall.ops.doctor import doctor
from pgrecall.testing import Database, Template

FAULTS: dict[str, tuple[list[str], str, str]] = {
    "rows without words": (
        ["DELETE FROM pgrecall.texts WHERE kind = 'knowledge'"],
        "warning", "1 rows without their words",
    ),
    "words without rows": (
        ["UPDATE pgrecall.texts SET id = gen_random_uuid() WHERE kind = 'episodes'"],
        "warning", "3 rows without their words, 3 words without their row",
    ),
    "trigger disabled": (
        ["ALTER TABLE agent_episodes DISABLE TRIGGER pgrecall_words",
         "UPDATE agent_episodes SET action = '{\"did\": \"gold\"}'"],
        "failed", "trigger pgrecall_words on agent_episodes is disabled",
    ),
    "trigger missing": (
        ["DROP TRIGGER pgrecall_words_emptied ON agent_working_memory"],
        "failed", "trigger pgrecall_words_emptied on agent_working_memory is missing",
    ),
    "trigger of episodes missing": (
        ["DROP TRIGGER pgrecall_words ON agent_episodes"],
        "failed", "trigger pgrecall_words on agent_episodes is missing",
    ),
    "changes that nobody counted": (
        [("INSERT INTO pgrecall.word_changes (project_id, kind, texts, tokens, words) "
         "SELECT 'p', 'episodes', 0, 0, '' FROM generate_series(1, 10001)")],
        "warning", "changes are not counted in",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def worded(pgrecall_template: Template) -> Iterator[Database]:
    """A small memory; what a test breaks, its remedy mends."""
    with pgrecall_template.clone() as database:
        with psycopg.connect(database.admin_dsn, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO agent_episodes (project_id, perception, reasoning, action, "
                "agent_version) SELECT 'p', '{}', '{}', '{}', '1' FROM generate_series(1, 3)"
            )
            connection.execute(
                "INSERT INTO agent_knowledge (knowledge_type, content, description, is_active) "
                "VALUES ('pattern', '{}', 'x', false)"
            )
        yield database


def words_of(database: Database) -> Check:
    checks = doctor(database.admin_dsn, settings=database.settings, embedder_dimensions=None)
    return next(check for check in checks if check.id == "words")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_and_its_remedy(worded: Database, fault: str) -> None:
    statements, status, said = FAULTS[fault]
    assert words_of(worded).status == "passed"
    with psycopg.connect(worded.admin_dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())
    check = words_of(worded)
    assert check.status == status, check
    assert said in check.evidence
    with psycopg.connect(worded.owner_dsn, autocommit=True) as connection:
        for statement in str(check.remedy).removeprefix("as the owner: ").split("; "):
            connection.execute(statement.encode())
    assert words_of(worded).status == "passed"
