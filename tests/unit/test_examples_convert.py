"""The converters of ``examples/``, run as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
DATA = os.environ.get("PGRECALL_EVAL_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="PGRECALL_EVAL_DATA is not set")
COLUMNS = {
    *("project_id", "agent_version", "perception", "reasoning", "action", "outcome"),
    *("outcome_quality", "external_id", "decision_source", "sprint_id", "control_mode"),
}


def run(name: str, *arguments: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, EXAMPLES / f"convert_{name}.py", *arguments],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
        errors="surrogatepass",
    )


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def check(episodes: list[dict[str, Any]]) -> None:
    for episode in episodes:
        assert set(episode) <= COLUMNS
        assert 0 < len(episode["project_id"]) <= 50
        assert 0 < len(episode["agent_version"]) <= 20
        assert len(episode["decision_source"]) <= 50
        assert len(episode.get("sprint_id", "")) <= 50
        assert 0 <= episode["outcome_quality"] <= 1
        for part in ("perception", "reasoning", "action", "outcome"):
            assert isinstance(episode[part], dict)
            assert episode[part]
    assert len({episode["external_id"] for episode in episodes}) == len(episodes)


def trajectory(**changes: Any) -> dict[str, Any]:
    return {
        "task_id": 12,
        "trial": 3,
        "reward": 1.0,
        "info": {"task": {"instruction": "HIDDEN", "actions": [{"name": "GROUND_TRUTH"}]}},
        "traj": [
            {"role": "system", "content": "# Policy"},
            {"role": "user", "content": "My flight is late \u2708"},
            {"role": "assistant", "content": "Which one?"},
            {"role": "user", "content": "LATER: HAT001"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"function": {"name": "find", "arguments": '{"id": "HAT001"}'}}],
            },
            {"role": "tool", "name": "find", "content": "RESULT"},
            {"role": "assistant", "content": "Found it."},
            {"role": "user", "content": "###STOP###"},
        ],
    } | changes


def question(**changes: Any) -> dict[str, Any]:
    return {
        "reward": True,
        "em": True,
        "f1": 1.0,
        "gt": "GROUND_TRUTH",
        "pred": "rhine",
        "traj": [
            {"role": "user", "content": "Which river?"},
            {"role": "assistant", "content": "Thought: look\nAction: search[river\nnames]"},
            {"role": "user", "content": "Observation: Rhine [2]"},
            {"role": "assistant", "content": "Thought: done\nAction:  finish[Rhine]"},
            {"role": "user", "content": "Observation: Episode finished, reward = True"},
        ],
    } | changes


def test_a_trajectory_becomes_an_episode() -> None:
    done = run("trajectories", "-", "--project", "airline", given=json.dumps([trajectory()]))
    assert done.returncode == 0, done.stderr
    assert done.stderr == "1 episodes, mean reward 1.000\n"
    (episode,) = lines(done.stdout)
    check([episode])
    assert episode["perception"] == {"request": "My flight is late \u2708"}
    assert episode["reasoning"] == {"turns": 3, "replies": ["Which one?"]}
    assert episode["action"] == {
        "tools": [{"name": "find", "arguments": {"id": "HAT001"}}],
        "tool_calls": 1,
        "final_message": "Found it.",
    }
    assert episode["outcome"] == {"reward": 1.0, "success": True}
    assert episode["external_id"] == "airline/task-12/trial-3/unknown"
    for hidden in ("HIDDEN", "GROUND_TRUTH", "LATER", "STOP", "RESULT"):
        assert hidden not in done.stdout


def test_both_kinds_of_react_logs_give_the_same_episode() -> None:
    chat = question()
    log = "\n".join(turn["content"] for turn in chat["traj"][1:])
    text = f"Preamble\n\n### Instruction:\nWhich river?\n\n### Response:\n{log}\n"
    first = run("react", "-", given=json.dumps({"7": chat}))
    second = run("react", "-", given=json.dumps({"7": chat | {"traj": text}}))
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert first.stdout == second.stdout
    (episode,) = lines(first.stdout)
    check([episode])
    assert episode["perception"] == {"question": "Which river?"}
    assert episode["reasoning"] == {"thoughts": ["look", "done"]}
    assert episode["action"] == {
        "steps": [{"search": "river\nnames"}, {"finish": "Rhine"}],
        "step_count": 2,
        "answer": "rhine",
    }
    assert "GROUND_TRUTH" not in first.stdout
    assert "Observation" not in first.stdout


def test_file_names_give_project_and_version(tmp_path: Path) -> None:
    source, target = tmp_path / "gpt-4o-airline.json", tmp_path / "out.jsonl"
    source.write_text(json.dumps([trajectory()]), encoding="utf-8")
    done = run("trajectories", source, "-o", target)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    (episode,) = lines(target.read_text(encoding="utf-8"))
    assert (episode["project_id"], episode["agent_version"]) == ("airline", "gpt-4o")
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name, target.name]


def test_text_that_postgresql_cannot_store_is_replaced() -> None:
    messages = [
        {"role": "user", "content": "a\x00b\ud800c"},
        {"role": "assistant", "content": "fine"},
    ]
    done = run("trajectories", "-", given=json.dumps([trajectory(traj=messages)]))
    assert done.returncode == 0, done.stderr
    assert lines(done.stdout)[0]["perception"] == {"request": "a\ufffdb\ufffdc"}


def test_a_trajectory_that_broke_off_at_once_is_left_out() -> None:
    done = run("trajectories", "-", given=json.dumps([trajectory(), trajectory(trial=0, traj=[])]))
    assert done.returncode == 0
    assert len(lines(done.stdout)) == 1
    assert "1 without any decision left out" in done.stderr


def test_large_and_oddly_spaced_input_is_read_in_pieces() -> None:
    long = "x" * 200_000
    many = [trajectory(trial=number, note=long) for number in range(3)]
    done = run("trajectories", "-", given=" \n" + json.dumps(many, indent=9) + "\n ")
    assert done.returncode == 0, done.stderr
    assert len(lines(done.stdout)) == 3


TRAJECTORIES = "expected a JSON array of objects with task_id"
REACT = "expected a JSON object of question ids"
REFUSED = [
    ("trajectories", "", "an empty input"),
    ("trajectories", "task_id,reward\n1,0.5\n", "begins with 'task_id,reward"),
    ("trajectories", '"text"', "begins with"),
    ("trajectories", "[]", "no episode at all"),
    ("trajectories", '[{"qa": [], "conversation": {}}]', "without task_id, trial, reward, traj"),
    ("trajectories", "[1, 2]", "entry 0: int"),
    ("trajectories", '{"6238": {}}', "a JSON object with the key '6238'"),
    ("trajectories", json.dumps([trajectory()])[:-1], "is the file complete?"),
    ("trajectories", json.dumps([trajectory()])[:200], "entry 0 is broken or cut off"),
    ("trajectories", json.dumps([trajectory()]) + "[]", "text after the end"),
    ("trajectories", json.dumps([trajectory(reward=1.5)]), "the reward 1.5"),
    ("trajectories", json.dumps([trajectory(reward=None)]), "the reward None"),
    ("trajectories", json.dumps([trajectory(reward=float("nan"))]), "NaN"),
    ("trajectories", json.dumps([trajectory(), trajectory()]), "twice"),
    ("trajectories", json.dumps([trajectory(traj="text")]), "no list of chat messages"),
    ("trajectories", "[" * 100_000, "broken or cut off"),
    ("react", "", "an empty input"),
    ("react", json.dumps([question()]), "a JSON array"),
    ("react", '{"a": 1}', "'a': int"),
    ("react", '{"a": {"qa": []}}', "without reward, f1, pred, traj"),
    ("react", json.dumps({"a": question(traj="no headings")}), "neither of the two kinds"),
    ("react", json.dumps({"a": question(traj=[{"role": "user"}])}), "neither of the two kinds"),
    ("react", json.dumps({"a": question()})[:-30], "broken or cut off"),
]


@pytest.mark.parametrize(("name", "given", "found"), REFUSED)
def test_an_unknown_format_is_refused(tmp_path: Path, name: str, given: str, found: str) -> None:
    target = tmp_path / "out.jsonl"
    done = run(name, "-", "-o", target, given=given)
    assert done.returncode == 2
    assert found in done.stderr
    assert (TRAJECTORIES if name == "trajectories" else REACT) in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "length", "column"),
    [("--project", 51, "project_id"), ("--agent-version", 21, "agent_version")],
)
def test_names_that_do_not_fit_are_refused(option: str, length: int, column: str) -> None:
    done = run("trajectories", "-", option, "x" * length, given=json.dumps([trajectory()]))
    assert done.returncode == 2
    assert column in done.stderr
    assert done.stdout == ""


def test_a_missing_file_and_bytes_are_refused(tmp_path: Path) -> None:
    assert "No such file" in run("react", tmp_path / "none.json").stderr
    (tmp_path / "bytes.json").write_bytes(b"\x89PNG\xff\xfe")
    done = run("react", tmp_path / "bytes.json")
    assert done.returncode == 2
    assert "not UTF-8" in done.stderr


@needs_data
@pytest.mark.eval_data
def test_real_trajectories() -> None:
    source = Path(DATA or "") / "taubench" / "gpt-4o-airline.json"
    done = run("trajectories", source)
    assert done.returncode == 0, done.stderr
    episodes = lines(done.stdout)
    check(episodes)
    assert len(episodes) == 200
    assert sum(episode["outcome_quality"] for episode in episodes) == 84
    originals = json.loads(source.read_text(encoding="utf-8"))
    for episode, original in zip(episodes, originals, strict=True):
        assert episode["perception"] == {"request": original["traj"][1]["content"]}
        assert original["info"]["task"]["instruction"] not in json.dumps(episode)
        assert episode["external_id"].startswith(
            f"airline/task-{original['task_id']}/trial-{original['trial']}/"
        )


@needs_data
@pytest.mark.eval_data
def test_real_react_logs() -> None:
    counts = {}
    for source in sorted((Path(DATA or "") / "fireact").glob("*.json")):
        done = run("react", source)
        assert done.returncode == 0, done.stderr
        episodes = lines(done.stdout)
        check(episodes)
        assert not any("Episode finished" in line for line in done.stdout.splitlines())
        counts[episodes[0]["agent_version"]] = len(episodes)
    assert counts == {"gpt-3.5-turbo-0613": 465, "llama-2-13b-d": 499, "llama-2-7b-d": 500}


@needs_data
@pytest.mark.eval_data
@pytest.mark.parametrize("name", ["trajectories", "react"])
def test_real_data_of_another_kind_is_refused(name: str) -> None:
    done = run(name, Path(DATA or "") / "locomo" / "locomo10.json")
    assert done.returncode == 2
    assert "expected" in done.stderr
    assert done.stdout == ""
