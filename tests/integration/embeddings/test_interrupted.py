"""A change of model that is killed at each of its steps, and goes on when it is run again."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import psycopg
import pytest
from tests.integration.embeddings.conftest import HERE, open_memory, record

from pgrecall.ops.embeddings import Switch, status
from pgrecall.testing import Database

SCRIPT = HERE / "switch_by_steps.py"
ROWS = 300
TO_ANOTHER = (
    "beginning with",
    "rows to embed",
    "vectors made",
    "building the index of agent_episodes",
    "building the index of agent_knowledge",
    "comparing the two",
)
TO_HALF = tuple(
    step.replace("to embed", "to copy").replace("made", "copied") for step in TO_ANOTHER
)


def run(database: Database, wanted: dict[str, str], until: str | None = None) -> None:
    """Change the model, to the end or up to a step, at which the process is killed."""
    command = [sys.executable, str(SCRIPT), database.owner_dsn, json.dumps(wanted)]
    said: list[str] = []
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        for line in process.stdout:
            said.append(line)
            if until is not None and until in line:
                process.kill()
                return
            process.stdin.write("\n")
        assert process.wait(60) == 0, said
    assert until is None, f"it never said {until!r}: {said}"


@pytest.mark.parametrize(
    ("wanted", "steps", "serving"),
    [
        ({"to": "python:embedders_for_tests:hash_96"}, TO_ANOTHER, ("hash:96", "vector")),
        ({"storage": "halfvec"}, TO_HALF, ("hash:64", "halfvec")),
    ],
)
def test_it_goes_on_wherever_it_was_killed(
    pgrecall_database: Database,
    owner: psycopg.Connection[dict[str, Any]],
    wanted: dict[str, str],
    steps: tuple[str, ...],
    serving: tuple[str, str],
) -> None:
    with open_memory(pgrecall_database) as memory:
        memory.episodes.record_many(
            {"project_id": "p", "agent_version": "1", "perception": {"text": f"seed {i}"},
             "reasoning": {}, "action": {}} for i in range(ROWS)
        )  # fmt: skip
        for number, step in enumerate(steps):
            run(pgrecall_database, wanted, until=step)
            # Nobody notices: the old vectors serve, and what is new is not forgotten.
            assert len(memory.episodes.recall("seed 7", mode="vector", limit=10)) == 10
            record(memory, f"killed at step {number}")
        run(pgrecall_database, wanted)
        hit = memory.episodes.recall("killed at step 2", mode="vector", limit=1)[0]
        assert hit.episode.perception == {"text": "killed at step 2"}
        now, before = status(pgrecall_database.dsn).models
        assert (now.identity, now.storage) == serving
        assert (now.waiting, now.tables[0].embedded) == (0, ROWS + len(steps))
        assert before.tables[0].embedded == ROWS + len(steps)
        Switch(dsn=pgrecall_database.owner_dsn, settings=pgrecall_database.settings).finish()
    indexes = owner.execute(
        "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid "
        "WHERE relname LIKE 'idx%embedding%' ORDER BY relname"
    ).fetchall()
    assert [(row["relname"], row["indisvalid"]) for row in indexes] == [
        ("idx_episodes_embedding", True), ("idx_knowledge_embedding", True),
    ]  # fmt: skip
