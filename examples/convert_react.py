"""Turn ReAct logs (thought, action, observation; the result files of FireAct) into episodes.

    python examples/convert_react.py hotpotqa_dev_0_500_ft_gpt-3.5.json -o hotpotqa.jsonl
    pgrecall episodes import hotpotqa.jsonl

One question is one episode. Its perception is the question alone. The right answer stays out: the
agent never saw it. The log may be a chat or one text under "### Instruction" and "### Response".
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from converting import Episode, UnknownFormatError, parser, quality, run

EXPECTED = (
    "a JSON object of question ids, each with reward, f1, pred and traj "
    "(a list of chat messages, or text under '### Instruction:' and '### Response:')"
)
PART = re.compile(r"^(Thought|Action|Observation):[ \t]*", re.MULTILINE)
CALL = re.compile(r"(?P<name>\w+)\[(?P<argument>.*)\]\s*", re.DOTALL)
AGENT = re.compile(r"(?:gpt|llama)-[A-Za-z0-9.-]+")


def convert(key: str | int, entry: Any, args: argparse.Namespace) -> Episode | None:
    """Return the episode of one question; None if the agent did nothing.

    Raises:
        UnknownFormatError: The entry is no ReAct log.
    """
    if not isinstance(key, str):
        raise UnknownFormatError("a JSON array")
    if not isinstance(entry, dict):
        raise UnknownFormatError(f"{key!r}: {type(entry).__name__}")
    if missing := [name for name in ("reward", "f1", "pred", "traj") if name not in entry]:
        raise UnknownFormatError(f"entry {key!r} without {', '.join(missing)}")
    question, log = _question_and_log(key, entry["traj"])
    parts = PART.split(log)[1:]
    steps = [(kind, text.strip()) for kind, text in zip(parts[::2], parts[1::2], strict=True)]
    actions = [_action(text) for kind, text in steps if kind == "Action"]
    if not actions:
        return None
    reward = quality(entry["reward"], f"entry {key!r}")
    return {
        "project_id": args.project,
        "agent_version": args.agent_version,
        "perception": {"question": question},
        "reasoning": {"thoughts": [text for kind, text in steps if kind == "Thought"]},
        "action": {"steps": actions, "step_count": len(actions), "answer": entry["pred"]},
        "outcome": {"reward": reward, "success": reward == 1, "f1": entry["f1"]},
        "outcome_quality": reward,
        "external_id": f"{args.project}/question-{key}/{args.agent_version}",
        "decision_source": "language-model",
        "control_mode": "intelligence_enhanced",
    }


def _question_and_log(key: str, trajectory: Any) -> tuple[str, str]:
    if isinstance(trajectory, str):
        _, instruction, rest = trajectory.partition("### Instruction:")
        question, response, log = rest.partition("### Response:")
        if instruction and response:
            return question.strip(), log
    elif isinstance(trajectory, list) and trajectory:
        found = [turn.get("content") for turn in trajectory if isinstance(turn, dict)]
        contents = [text for text in found if isinstance(text, str)]
        if len(contents) == len(trajectory):
            return contents[0].strip(), "\n".join(contents[1:])
    raise UnknownFormatError(f"entry {key!r} whose traj is neither of the two kinds")


def _action(text: str) -> dict[str, str]:
    """Take ``search[a lake]`` apart; an action in another form is kept as it was written."""
    call = CALL.fullmatch(text)
    return {call["name"]: call["argument"]} if call else {"unreadable": text}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = parser("ReAct logs to episodes as JSON Lines.").parse_args(arguments)
    stem = Path(args.input).stem
    agent = AGENT.search(stem)
    # Result files begin with the data set and name the model in the middle.
    defaults = (stem.split("_")[0].strip("-") or "react", agent[0] if agent else "unknown")
    return run(convert, args, expected=EXPECTED, defaults=defaults)


if __name__ == "__main__":
    sys.exit(main())
