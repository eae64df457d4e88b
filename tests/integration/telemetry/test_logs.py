"""Log records: one an operation, quiet unless asked, and without anything secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import conninfo

from pgrecall import errors
from pgrecall.config import load_settings
from pgrecall.telemetry.logs import FIELDS, configure
from pgrecall.testing import Database

SECRET = "sesame-7fK2"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What a process of ours prints; logging is as before afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("pgrecall")
    before = (root.level, [*root.handlers], ours.level)
    yield io.StringIO()
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    ours.setLevel(before[2])


def records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "pgrecall.operations"]


def test_one_record_an_operation(
    open_memory: Any, caplog: pytest.LogCaptureFixture, make_episode: Any
) -> None:
    memory = open_memory()
    with caplog.at_level(logging.DEBUG, "pgrecall"):
        memory.episodes.record(**make_episode())
        memory.episodes.recall("backlog")
        with pytest.raises(errors.NotFound):
            memory.episodes.get("4e1b8f5e-0f5c-4d0a-9d0f-0a5f5f5f5f5f")
    recorded, recalled, missing = records(caplog)
    fields = {name: getattr(recorded, name) for name in FIELDS if hasattr(recorded, name)}
    assert fields.pop("duration_ms") > 0
    assert fields.pop("embedding_ms") > 0
    assert fields == {
        "operation": "record_episode",
        "project_id": "apollo",
        "results": 1,
        "error": None,
    }
    assert "sqlstate" not in recalled.__dict__
    assert recalled.getMessage() == "recall_similar"
    assert recalled.__dict__["project_id"] is None
    assert missing.getMessage() == "get_episode failed: NotFound"
    assert {record.levelno for record in (recorded, recalled, missing)} == {logging.DEBUG}


def test_failures_of_the_database_are_warnings(
    open_memory: Any, caplog: pytest.LogCaptureFixture, admin: psycopg.Connection[Any]
) -> None:
    memory = open_memory()
    admin.execute("ALTER TABLE agent_working_memory RENAME TO elsewhere")
    with pytest.raises(errors.SchemaMissing):
        memory.sessions.list()
    (record,) = records(caplog)
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "list_sessions failed: SchemaMissing"


def test_nothing_is_printed_unless_set_up(program: Callable[..., str]) -> None:
    """Python prints warnings to stderr that nobody handles: the exception is enough."""
    printed = program(
        "import contextlib, io, sys\n"
        "from pgrecall import Memory, errors\n"
        "with contextlib.redirect_stderr(io.StringIO()) as printed:\n"
        "    with Memory.open(sys.argv[1], embedder='none') as memory:\n"
        "        memory.metrics._database.close()\n"
        "        try:\n            memory.episodes.list()\n"
        "        except errors.Unavailable:\n            print('failed')\n"
        "        memory.metrics._waiting.clear()\n"
        "print(repr(printed.getvalue()))\n"
    )
    assert printed.splitlines() == ["failed", "''"]


@pytest.mark.parametrize("kind", ["json", "text"])
def test_no_secret_and_no_content_in_any_line(
    kind: str,
    stream: io.StringIO,
    open_memory: Any,
    pgrecall_database: Database,
    admin: psycopg.Connection[Any],
    make_episode: Any,
) -> None:
    configure(load_settings(log_format=kind, log_level="debug"), stream)
    password = str(conninfo.conninfo_to_dict(pgrecall_database.dsn)["password"])
    memory = open_memory(metrics=True)
    content = {"note": SECRET}
    memory.episodes.record(**make_episode(perception=content, external_id=SECRET))
    memory.episodes.recall(SECRET)
    with pytest.raises(errors.Conflict, match=SECRET):
        memory.episodes.record(**make_episode(action=content, external_id=SECRET))
    with pytest.raises(errors.InvalidInput, match=SECRET):
        memory.episodes.get(SECRET)
    with pytest.raises(errors.InvalidInput):
        memory.episodes.list(project_id=SECRET * 9)
    # PostgreSQL's own message quotes the row that it refuses.
    admin.execute("ALTER TABLE agent_episodes ADD CHECK (agent_version <> '" + SECRET + "')")
    with pytest.raises(errors.InvalidInput, match=SECRET):
        memory.episodes.record(**make_episode(agent_version=SECRET))
    admin.execute("ALTER TABLE agent_memory_metrics RENAME TO elsewhere")
    memory.metrics.flush()
    memory._database.close()
    with pytest.raises(errors.Unavailable):
        memory.episodes.list()
    printed = stream.getvalue()
    assert SECRET not in printed
    assert password not in printed
    assert "dbname=" not in printed
    assert "postgresql://" not in printed
    assert len(printed.splitlines()) >= 8
    assert "list_episodes failed: Unavailable" in printed
    assert "could not be written" in printed


def test_json_lines_can_be_read(stream: io.StringIO, open_memory: Any, make_episode: Any) -> None:
    configure(load_settings(log_format="json", log_level="DEBUG"), stream)
    memory = open_memory()
    memory.episodes.record(**make_episode(project_id="line\nbreak"))
    with pytest.raises(errors.InvalidInput):
        memory.episodes.list(limit=-1)
    logging.getLogger("pgrecall").info("two\nlines")
    lines = stream.getvalue().splitlines()
    first, second, third = [json.loads(line) for line in lines]
    taken = datetime.fromisoformat(first.pop("timestamp"))
    assert taken.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - taken) < timedelta(minutes=5)
    assert first.pop("duration_ms") > 0
    assert first.pop("embedding_ms") > 0
    assert first == {
        "level": "DEBUG",
        "logger": "pgrecall.operations",
        "message": "record_episode",
        "operation": "record_episode",
        "project_id": "line\nbreak",
        "results": 1,
        "error": None,
    }
    assert (second["operation"], second["error"]) == ("list_episodes", "InvalidInput")
    assert third["message"] == "two\nlines"


def test_text_lines(stream: io.StringIO, open_memory: Any, make_episode: Any) -> None:
    configure(load_settings(log_format="text", log_level="DEBUG"), stream)
    open_memory().episodes.record(**make_episode(project_id="line\nbreak"))
    (line,) = stream.getvalue().splitlines()
    time, level, logger, message, *fields = line.split(" ")
    assert datetime.fromisoformat(time).utcoffset() == timedelta(0)
    assert (level, logger, message) == ("DEBUG", "pgrecall.operations", "record_episode")
    told = dict(field.split("=") for field in fields)
    assert told["project_id"] == "line\\nbreak"
    assert told["results"] == "1"
    assert set(told) == {"project_id", "results", "duration_ms", "embedding_ms"}


def test_successes_are_quiet_at_the_usual_level(stream: io.StringIO, open_memory: Any) -> None:
    configure(load_settings(), stream)
    memory = open_memory()
    memory.episodes.list()
    with pytest.raises(errors.InvalidInput):
        memory.episodes.list(limit=-1)
    assert stream.getvalue() == ""
    memory._database.close()
    with pytest.raises(errors.Unavailable):
        memory.episodes.list()
    assert len(stream.getvalue().splitlines()) == 1
    memory.metrics._waiting.clear()
