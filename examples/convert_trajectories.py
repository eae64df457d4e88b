"""Turn agent trajectories with rewards (the result files of tau-bench) into episodes to import.

    python examples/convert_trajectories.py gpt-4o-airline.json -o airline.jsonl
    pgrecall episodes import airline.jsonl

One trajectory is one episode. Its perception is what the agent had before its first step, the
user's first message, and nothing that was said or known only later.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from converting import Episode, UnknownFormatError, parser, quality, run

EXPECTED = "a JSON array of objects with task_id, trial, reward and traj (a list of chat messages)"


def convert(key: str | int, entry: Any, args: argparse.Namespace) -> Episode | None:
    """Return the episode of one trajectory; None if it broke off before the agent did anything.

    Raises:
        UnknownFormatError: The entry is no trajectory.
    """
    task, trial, reward, messages = _fields(key, entry)
    said = [turn for turn in messages if turn["role"] == "assistant"]
    request = next((turn for turn in messages if turn["role"] == "user"), None)
    if request is None or not said:
        return None
    replies = [text for turn in said if isinstance(text := turn.get("content"), str)]
    calls = [_call(call, key) for turn in said for call in turn.get("tool_calls") or []]
    return {
        "project_id": args.project,
        "agent_version": args.agent_version,
        "perception": {"request": request.get("content")},
        "reasoning": {"turns": len(said), "replies": replies[:-1]},
        "action": {
            "tools": calls,
            "tool_calls": len(calls),
            "final_message": replies[-1] if replies else None,
        },
        "outcome": {"reward": reward, "success": reward == 1},
        "outcome_quality": reward,
        "external_id": f"{args.project}/task-{task}/trial-{trial}/{args.agent_version}",
        "decision_source": "language-model",
        "sprint_id": f"trial-{trial}",
        "control_mode": "intelligence_enhanced",
    }


def _fields(key: str | int, entry: Any) -> tuple[int, int, float, list[dict[str, Any]]]:
    wanted = ("task_id", "trial", "reward", "traj")
    if not isinstance(key, int):
        raise UnknownFormatError(f"a JSON object with the key {key!r}")
    if not isinstance(entry, dict):
        raise UnknownFormatError(f"entry {key}: {type(entry).__name__}")
    if missing := [name for name in wanted if name not in entry]:
        raise UnknownFormatError(
            f"entry {key} without {', '.join(missing)}, with {', '.join(list(entry)[:6])}"
        )
    messages = entry["traj"]
    if not isinstance(messages, list) or not all(
        isinstance(turn, dict) and "role" in turn for turn in messages
    ):
        raise UnknownFormatError(f"entry {key} whose traj is no list of chat messages")
    reward = quality(entry["reward"], f"entry {key}")
    return entry["task_id"], entry["trial"], reward, messages


def _call(call: Any, key: str | int) -> dict[str, Any]:
    """Return the name and the arguments of a tool call; arguments that are no JSON stay text."""
    try:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
    except (KeyError, TypeError) as error:
        raise UnknownFormatError(f"entry {key} with the tool call {call!r:.80}") from error
    try:
        return {"name": name, "arguments": json.loads(arguments)}
    except (TypeError, ValueError):
        return {"name": name, "arguments": arguments}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = parser("Agent trajectories with rewards to episodes as JSON Lines.").parse_args(
        arguments
    )
    # Result files are named after the agent and the domain: gpt-4o-airline.json
    agent, _, project = Path(args.input).stem.rpartition("-")
    defaults = (project or "trajectories", agent or "unknown")
    return run(convert, args, expected=EXPECTED, defaults=defaults)


if __name__ == "__main__":
    sys.exit(main())
