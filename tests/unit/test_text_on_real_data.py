"""Rendered texts of real agent trajectories: within the model's window, and found again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from pgrecall.core.text import render_episode
from pgrecall.embedding.minilm import MiniLM, runtime

Trajectory: TypeAlias = dict[str, Any]
Documents: TypeAlias = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]

pytestmark = [
    pytest.mark.eval_data,
    pytest.mark.skipif(
        "PGRECALL_EVAL_DATA" not in os.environ, reason="PGRECALL_EVAL_DATA is not set"
    ),
]


def turns(trajectory: Trajectory, role: str) -> list[str]:
    return [
        turn["content"] for turn in trajectory["traj"] if turn["role"] == role and turn["content"]
    ]


def first_request(trajectory: Trajectory) -> Documents:
    return {"request": turns(trajectory, "user")[0]}, {}, {}


def dialogue(trajectory: Trajectory) -> Documents:
    first, *more = turns(trajectory, "user")[:4]
    return {"request": first, "more": more}, {}, {}


def everything(trajectory: Trajectory) -> Documents:
    calls = [
        call["function"] for turn in trajectory["traj"] for call in turn.get("tool_calls") or []
    ]
    perception, _, _ = dialogue(trajectory)
    return perception, {"replies": turns(trajectory, "assistant")[:4]}, {"calls": calls}


@pytest.fixture(scope="module")
def trajectories() -> list[Trajectory]:
    path = Path(os.environ["PGRECALL_EVAL_DATA"]) / "taubench" / "gpt-4o-airline.json"
    found: list[Trajectory] = json.loads(path.read_text())
    assert len(found) == 200
    return found


@pytest.fixture(scope="module")
def full_tokenizer() -> Any:
    """The model's tokenizer, which here counts to the end."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(runtime.__file__).with_name("tokenizer.json")))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@pytest.mark.parametrize("documents", [dialogue, everything])
@pytest.mark.parametrize("budget", [64, 256])
def test_the_estimate_keeps_real_text_within_the_window(
    trajectories: list[Trajectory],
    full_tokenizer: Any,
    documents: Callable[[Trajectory], Documents],
    budget: int,
) -> None:
    lengths = [
        len(full_tokenizer.encode(render_episode(*documents(one), max_tokens=budget)).ids)
        for one in trajectories
    ]
    over = [length for length in lengths if length > budget]
    print(f"{documents.__name__}, {budget}: mean {np.mean(lengths):.0f}, over {over}")
    assert len(over) <= len(lengths) * 0.05
    assert max(lengths) <= budget * 1.1


@pytest.mark.parametrize(("documents", "least"), [(first_request, 0.36), (dialogue, 0.46)])
def test_episodes_of_the_same_task_find_each_other(
    trajectories: list[Trajectory], documents: Callable[[Trajectory], Documents], least: float
) -> None:
    """Each task has four trials, so of the first five at most three (0.6) can be of the same."""
    tasks = np.array([one["task_id"] for one in trajectories])
    vectors = np.array(MiniLM().embed([render_episode(*documents(one)) for one in trajectories]))
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -2)
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, :5]
    share = float((tasks[nearest] == tasks[:, None]).mean())
    print(f"{documents.__name__}: {share:.3f} of the first five are of the same task (at most 0.6)")
    assert share >= least
