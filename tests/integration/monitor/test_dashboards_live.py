"""Every query of every dashboard gets data from a Prometheus that scraped a loaded system.

With ``PGRECALL_DASHBOARD_RESULTS`` the answers are written to that file, from which
``tools/preview_dashboards.py`` draws the dashboards. ``PGRECALL_DASHBOARD_SECONDS`` lets the system
live longer before, so that there is more to see.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.integration.monitor.stack import Stack, running

from pgrecall.ops.monitor.objectives import Objectives
from pgrecall.telemetry.catalogue import sample_names

pytestmark = pytest.mark.timeout(1200)

BOARDS = sorted((Path(__file__).resolve().parents[3] / "deploy" / "grafana").glob("*.json"))
VARIABLES = {"$__rate_interval": "10s", "$instance": ".*"}
# Read here, since the tests' own environment takes them away.
RESULTS = os.environ.get("PGRECALL_DASHBOARD_RESULTS")
LIFE_SECONDS = float(os.environ.get("PGRECALL_DASHBOARD_SECONDS", "20"))
POINTS = 120
"""Of a line in the preview, about."""


def test_every_panel_shows_data() -> None:
    with running(Objectives(window="10s", disk_window="1m")) as stack:
        run_tasks(stack)
        began = time.time()
        live(stack)
        # What reads every episode is read once a minute, and two looks make a change.
        stack.wait(
            lambda: (stack.value("sum(delta(pgrecall_outcomes[1h] offset 3s))") or 0) > 0,
            "learning was not read twice",
            seconds=180,
        )
        answers = {board["uid"]: answers_of(stack, board, began) for board in boards()}
        there = set(stack.ask("label/__name__/values"))
    if RESULTS:
        Path(RESULTS).write_text(json.dumps(answers), encoding="utf-8")
    missing = set(sample_names()) - there
    assert not missing, f"documented, and never seen by Prometheus: {missing}"
    empty = [
        f"{board['uid']}: {panel['title']}: {target['expr']}"
        for board in boards()
        for panel in panels(board)
        for target in panel["targets"]
        if not has_data(answers[board["uid"]][str(panel["id"])][target["refId"]])
    ]
    assert not empty, "no data:\n" + "\n".join(empty)


def boards() -> list[dict[str, Any]]:
    found = [json.loads(path.read_text(encoding="utf-8")) for path in BOARDS]
    assert len(found) >= 3
    return found


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (panel for panel in board["panels"] if panel["type"] != "row")


def answers_of(stack: Stack, board: dict[str, Any], began: float) -> dict[str, Any]:
    """Return what Prometheus answers to each query, by panel and query."""
    seconds = time.time() - began
    step = max(1.0, seconds / POINTS)
    answers: dict[str, Any] = {}
    for panel in panels(board):
        answers[str(panel["id"])] = {
            target["refId"]: stack.query_range(resolved(target["expr"]), seconds=seconds, step=step)
            for target in panel["targets"]
        }
    return answers


def resolved(expr: str) -> str:
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, f"a variable that Grafana would not know either: {expr}"
    return expr


def has_data(series: list[dict[str, Any]]) -> bool:
    return any(math.isfinite(float(value)) for one in series for _, value in one["values"])


def live(stack: Stack) -> None:
    """Let the system have good moments and bad ones, for at least the seconds asked for."""
    end = time.monotonic() + LIFE_SECONDS
    for number in itertools.count():
        stack.agent.say("later 4")
        quiet(3)
        embed_what_waits(stack)
        lock_for_a_moment(stack)
        stack.agent.say("fail")
        quiet(1.5)
        stack.agent.say("heal")
        queue_in_the_pooler(stack)
        recall_with_sql_alone(stack)
        learn(stack, number)
        if time.monotonic() > end:
            return
        quiet(max(4.0, LIFE_SECONDS / 6))


def quiet(seconds: float) -> None:
    time.sleep(seconds)


def run_tasks(stack: Stack) -> None:
    for task, size in (("backup", 7_340_032), ("restore_drill", None), ("nightly_report", None)):
        stack.execute(
            "SELECT pgrecall.record_run(%s, now() - interval '8 minutes', true, %s, "
            "p_finished_at => now() - interval '3 minutes')",
            task,
            size,
        )
    success = "pgrecall_task_last_success_timestamp_seconds"
    stack.wait(lambda: (stack.value(f"min({success})") or 0) > 0, "no task is seen")


def embed_what_waits(stack: Stack) -> None:
    stack.execute(
        "UPDATE agent_episodes SET embedding = "
        "(SELECT embedding FROM agent_episodes WHERE embedding IS NOT NULL LIMIT 1) "
        "WHERE embedding IS NULL"
    )


def lock_for_a_moment(stack: Stack) -> None:
    with psycopg.connect(stack.dsn("admin")) as blocker:
        blocker.execute("LOCK TABLE agent_episodes IN ACCESS EXCLUSIVE MODE")
        quiet(0.6)


def queue_in_the_pooler(stack: Stack) -> None:
    """Hold all its server connections for a moment."""
    with ExitStack() as held:
        for _ in range(6):
            connection = held.enter_context(psycopg.connect(stack.pooled_dsn("app")))
            connection.execute("SELECT 1")
        quiet(1.5)


def recall_with_sql_alone(stack: Stack) -> None:
    for milliseconds in (2, 3, 5, 8, 40):
        stack.execute(
            "SELECT record_memory_operation('recall_similar', %s, 5, 'sql-alone')", milliseconds
        )


def learn(stack: Stack, number: int) -> None:
    """Let decisions turn out better each time, and add knowledge of each type, used with luck."""
    stack.execute(
        "UPDATE agent_episodes SET outcome_quality = least(1, outcome_quality * 0.5 + %s) "
        "WHERE episode_id IN (SELECT episode_id FROM agent_episodes "
        "WHERE outcome_quality IS NOT NULL ORDER BY timestamp DESC LIMIT 500)",
        min(0.5, 0.1 * number),
    )
    for confidence, kind in ((0.9, "pattern"), (0.75, "constraint"), (0.6, "heuristic")):
        stack.execute(
            "INSERT INTO agent_knowledge (knowledge_type, content, description, confidence, "
            "supporting_episodes, times_applied, success_count, failure_count, embedding) "
            "SELECT %s, '{}', 'seen often', %s, "
            "ARRAY(SELECT episode_id FROM agent_episodes LIMIT 3), "
            "20, 12 + n, 8 - n, "
            "(SELECT embedding FROM agent_episodes WHERE embedding IS NOT NULL LIMIT 1) "
            "FROM generate_series(1, 5) AS n",
            kind,
            confidence - 0.1 / (number + 1),
        )
