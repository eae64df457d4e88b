"""What the tests of words share: rows by plain SQL, and what a recount says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from pgrecall.testing import Database

STATISTICS = """
SELECT s.kind, s.project_id, s.word, sum(s.texts)::integer, sum(s.tokens)::integer
  FROM (SELECT kind, project_id, word, texts, tokens FROM pgrecall.word_counts
        UNION ALL
        SELECT c.kind, c.project_id, w.word, c.texts, 0
          FROM pgrecall.word_changes AS c, unnest(tsvector_to_array(c.words)) AS w (word)
         WHERE w.word NOT LIKE '@%%'
        UNION ALL
        SELECT kind, project_id, '', texts, tokens FROM pgrecall.word_changes) AS s
 GROUP BY s.kind, s.project_id, s.word HAVING sum(s.texts) <> 0 OR sum(s.tokens) <> 0
 ORDER BY 1, 2, 3
"""
RECOUNT = """
SELECT n.kind, n.project_id, n.word, count(*)::integer, sum(n.tokens)::integer
  FROM (SELECT t.kind, t.project_id, w.word, 0 AS tokens
          FROM pgrecall.texts AS t, unnest(tsvector_to_array(t.words)) AS w (word)
         WHERE w.word NOT LIKE '@%%'
        UNION ALL
        SELECT kind, project_id, '', length FROM pgrecall.texts) AS n
 GROUP BY n.kind, n.project_id, n.word
 ORDER BY 1, 2, 3
"""
WORDS_OF_ROWS = """
SELECT 'episodes' AS kind, project_id, episode_id AS id, 1 AS part,
       pgrecall.words(pgrecall.document_text(perception, reasoning, action)) AS words
  FROM agent_episodes
UNION ALL
SELECT 'knowledge', coalesce(project_id, ''), knowledge_id, 1,
       pgrecall.words(description || ' ' || pgrecall.document_text(content))
  FROM agent_knowledge
UNION ALL
SELECT 'thoughts', project_id, session_id, t.part::integer,
       pgrecall.words(pgrecall.document_text(t.thought))
  FROM agent_working_memory, unnest(thought_history) WITH ORDINALITY AS t (thought, part)
 ORDER BY 1, 2, 3, 4
"""
WORDS_KEPT = """
SELECT kind, project_id, id, part,
       ts_delete(words, ARRAY['@' || kind, '@' || kind || '/' || project_id])
  FROM pgrecall.texts ORDER BY 1, 2, 3, 4
"""
TOTALS = """
SELECT kind, word, sum(texts)::integer, sum(tokens)::integer
  FROM pgrecall.word_counts GROUP BY kind, word ORDER BY 1, 2
"""
VOCABULARY = (
    "SELECT kind, word, texts::integer, tokens::integer FROM pgrecall.vocabulary ORDER BY 1, 2"
)
INSERT = (
    "INSERT INTO agent_episodes (episode_id, project_id, perception, reasoning, action, "
    "agent_version) VALUES (%s, %s, %s, '{}', '{}', '1')"
)

Connection = psycopg.Connection[Any]


def say(connection: Connection, text: str, project: str = "apollo") -> UUID:
    """Insert an episode by plain SQL."""
    episode_id = uuid4()
    connection.execute(INSERT, [episode_id, project, Jsonb({"text": text})])
    return episode_id


def fold(connection: Connection) -> int | None:
    """Count in what has changed."""
    row = connection.execute("SELECT pgrecall.fold_words()").fetchone()
    assert row is not None
    return None if row[0] is None else int(row[0])


def check_statistics(owner: Connection) -> None:
    """Compare what is counted with a recount, and the words kept with the rows."""
    everything = {name: owner.execute(query).fetchall() for name, query in (
        ("counted", STATISTICS), ("recounted", RECOUNT), ("kept", WORDS_KEPT),
        ("of rows", WORDS_OF_ROWS), ("totals", TOTALS), ("vocabulary", VOCABULARY),
    )}  # fmt: skip
    assert everything["counted"] == everything["recounted"]
    assert everything["kept"] == everything["of rows"]
    assert everything["totals"] == everything["vocabulary"]
    assert all(row[-2] != 0 for row in everything["vocabulary"])


@pytest.fixture
def owner(pgrecall_database: Database) -> Iterator[Connection]:
    """A direct connection of the owner, who sees and may do everything in the schema."""
    with psycopg.connect(pgrecall_database.owner_dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def app(pgrecall_database: Database) -> Iterator[Connection]:
    """A connection of the application's role."""
    with psycopg.connect(
        pgrecall_database.dsn, autocommit=True, prepare_threshold=None
    ) as connection:
        yield connection
