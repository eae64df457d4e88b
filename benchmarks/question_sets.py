"""Sets of questions whose answers are known, from real conversations and trajectories.

They are read from the directory that ``PGRECALL_EVAL_DATA`` names; nothing of them is kept here.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Document = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A text to recall by, and the places of the documents that answer it.

    ``asker`` is the document that the text is from, if it is one; it is no answer.
    """

    text: str
    answers: frozenset[int]
    asker: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """Documents of one project, in the order of time, and questions about them.

    ``groups`` are the sprints that the documents belong to.
    """

    documents: Sequence[Document]
    questions: Sequence[Question]
    groups: Sequence[str] | None = None


Sets = dict[str, list[Collection]]


def read_all(data: Path, conversations: int | None = None) -> Sets:
    """Return every set by its name.

    Args:
        data: Where the data lie.
        conversations: How many conversations to read; all unless given.
    """
    sets: Sets = {"LoCoMo": [], "LoCoMo, facts": [], "LoCoMo, summaries": []}
    for conversation in json.loads((data / "locomo" / "locomo10.json").read_text())[:conversations]:
        for name, collection in _conversation(conversation):
            sets[name].append(collection)
    if conversations is None:
        sets["tau-bench"] = [_trials(data)]
        sets["FireAct, questions"], sets["FireAct, thoughts"] = _trajectories(data)
    return sets


def _conversation(whole: Mapping[str, Any]) -> Iterator[tuple[str, Collection]]:
    """Give the turns with questions, the turns with facts, and summaries with questions."""
    talk = whole["conversation"]
    turns: list[Document] = []
    groups: list[str] = []
    place: dict[str, int] = {}
    sessions = sorted(int(key[8:]) for key in talk if re.fullmatch(r"session_\d+", key))
    for session in sessions:
        for turn in talk[f"session_{session}"]:
            place[turn["dia_id"]] = len(turns)
            turns.append({"speaker": turn["speaker"], "text": turn["text"]})
            groups.append(str(session))

    def evidence(given: Any) -> frozenset[int]:
        named = re.findall(r"D(\d+):(\d+)", json.dumps(given))
        ids = (f"D{int(a)}:{int(b)}" for a, b in named)
        return frozenset(place[id_] for id_ in ids if id_ in place)

    asked = [
        Question(text=one["question"], answers=answers)
        for one in whole["qa"]
        if (answers := evidence(one.get("evidence", [])))
    ]
    yield "LoCoMo", Collection(documents=turns, questions=asked, groups=groups)
    facts = [
        Question(text=fact[0], answers=answers)
        for said in whole["observation"].values()
        for of_speaker in said.values()
        for fact in of_speaker
        if (answers := evidence(fact[1]))
    ]
    yield "LoCoMo, facts", Collection(documents=turns, questions=facts, groups=groups)
    summaries = [(int(key.split("_")[1]), text) for key, text in whole["session_summary"].items()]
    number = {str(session): i for i, (session, _) in enumerate(summaries)}
    yield (
        "LoCoMo, summaries",
        Collection(
            documents=[{"summary": text} for _, text in summaries],
            questions=[
                Question(text=one.text, answers=answers)
                for one in asked
                if (
                    answers := frozenset(
                        number[groups[i]] for i in one.answers if groups[i] in number
                    )
                )
            ],
        ),
    )


def _trials(data: Path) -> Collection:
    """Return episodes by their first user turn; the same task's other trials answer each."""
    runs = json.loads((data / "taubench" / "gpt-4o-airline.json").read_text())
    first = [next(m["content"] for m in run["traj"] if m["role"] == "user") for run in runs]
    same = defaultdict(set)
    for i, run in enumerate(runs):
        same[run["task_id"]].add(i)
    return Collection(
        documents=[{"request": text} for text in first],
        questions=[
            Question(text=text, answers=frozenset(same[run["task_id"]] - {i}), asker=i)
            for i, (run, text) in enumerate(zip(runs, first, strict=True))
        ],
    )


def _trajectories(data: Path) -> tuple[list[Collection], list[Collection]]:
    """Return what agents read: asked by the question, and by another agent's first thought."""
    documents, of, thoughts = [], [], []
    questions: dict[str, str] = {}
    for file in sorted((data / "fireact").glob("*.json")):
        for key, run in json.loads(file.read_text()).items():
            questions[key], text = _question_and_text(run["traj"])
            read = [line for line in re.findall(r"Observation: (.*)", text)
                    if "Episode finished" not in line]  # fmt: skip
            if read:
                documents.append({"observation": " ".join(read)})
                of.append(key)
                thoughts.append(next(iter(re.findall(r"Thought: (.*)", text)), questions[key]))
    answers = defaultdict(set)
    for i, key in enumerate(of):
        answers[key].add(i)
    asked = [
        Question(text=text, answers=frozenset(answers[key]))
        for key, text in questions.items()
        if answers[key]
    ]
    thought = [
        Question(text=thoughts[i], answers=frozenset(answers[key] - {i}), asker=i)
        for i, key in enumerate(of)
        if len(answers[key]) > 1
    ]
    return (
        [Collection(documents=documents, questions=asked)],
        [Collection(documents=documents, questions=thought)],
    )


def _question_and_text(run: Any) -> tuple[str, str]:
    if isinstance(run, list):
        return run[0]["content"], "\n".join(turn["content"] for turn in run[1:])
    found = re.search(r"### Instruction:\n(.*?)\n", run)
    return (found.group(1) if found else run.splitlines()[0]), run
