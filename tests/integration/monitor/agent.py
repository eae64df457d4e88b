"""An agent with a memory, as a process of its own; it shows its metrics to Prometheus.

The memory is that of ``PGRECALL_DSN``, and the metrics are served at ``PGRECALL_PROMETHEUS_PORT``.
It works in a loop: records decisions and their outcomes, recalls, learns, thinks in sessions. A
line on standard input is a command, and is answered by ``done: COMMAND`` on standard output:

- ``pause``, ``work``: stop working, go on.
- ``fail``: from now on the model that makes vectors is out of order, and whatever needs one fails.
- ``heal``: it works again.
- ``later COUNT``: record so many episodes that wait for their vectors.
- ``embed``: from now on, record episodes with their vectors at once, as at the beginning.
- ``stop``: end; so does the end of the input.

With the argument ``crowd N`` it is N threads that count episodes instead, and takes no commands.
"""

from __future__ import annotations

import itertools
import queue
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pgrecall import Memory
from pgrecall.embedding.base import Mode
from pgrecall.errors import DatabaseError, EmbeddingError
from pgrecall.testing import HashEmbedder

if TYPE_CHECKING:
    from uuid import UUID

PAUSE_SECONDS = 0.02


class Model(HashEmbedder):
    """An embedder that can be put out of order."""

    failing = False

    def embed(self, texts: Sequence[str], mode: Mode = "document") -> list[list[float]]:
        if self.failing:
            raise EmbeddingError("the model is out of order", hint="say heal")
        return super().embed(texts, mode)


class Agent:
    """Works with a memory, a round at a time."""

    def __init__(self, memory: Memory, model: Model) -> None:
        self.memory = memory
        self.model = model
        self.working = True
        self._rounds = itertools.count()
        self._evidence: list[UUID] = []

    def work(self) -> None:
        """Make a decision, with all that belongs to it."""
        number = next(self._rounds)
        project = f"project-{number % 3}"
        memory = self.memory
        session = memory.sessions.open(project_id=project, goal="plan the sprint")
        memory.episodes.recall(f"backlog of {number % 40}", project_id=project)
        memory.knowledge.recall("small sprints", project_id=project)
        episode = memory.episodes.record(**_decision(number, project))
        memory.episodes.record_outcome(
            episode.episode_id, outcome={"completed": number % 6}, quality=(number % 5) / 4
        )
        memory.sessions.append_thought(session.session_id, {"number": number})
        memory.sessions.close(session.session_id)
        self._evidence.append(episode.episode_id)
        if len(self._evidence) == 5:
            self._learn(project)

    def _learn(self, project: str) -> None:
        learned = self.memory.knowledge.add(
            knowledge_type="strategy",
            description="small sprints end well",
            content={"sprint": "small"},
            supporting_episodes=self._evidence,
            project_id=project,
        )
        self._evidence.clear()
        self.memory.knowledge.record_application(learned.knowledge_id, success=True)

    def obey(self, command: str) -> bool:
        """Do what a command says; returns whether to go on."""
        word, _, rest = command.partition(" ")
        if word in ("pause", "work"):
            self.working = word == "work"
        elif word in ("fail", "heal"):
            self.model.failing = word == "fail"
        elif word == "later":
            self.memory.episodes.record_many(
                [_decision(-n, "project-0") for n in range(int(rest))], embed="later"
            )
        elif word != "stop":
            raise ValueError(f"no such command: {command!r}")
        print(f"done: {command}", flush=True)
        return word != "stop"


def _decision(number: int, project: str) -> dict[str, Any]:
    return {
        "project_id": project,
        "agent_version": "1.4.0",
        "perception": {"backlog": number % 40, "velocity": "declining" if number % 2 else "steady"},
        "reasoning": {"decision": "create_sprint"},
        "action": {"sprint": number},
    }


def _read(commands: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        commands.put(line.strip())
    commands.put("stop")


def crowd(threads: int) -> None:
    """Count episodes in several threads, until killed."""

    def count(memory: Memory) -> None:
        while True:
            memory.episodes.count(project_id="project-1")

    with Memory.open(embedder=HashEmbedder()) as memory:
        for _ in range(threads - 1):
            threading.Thread(target=count, args=[memory], daemon=True).start()
        count(memory)


def main() -> None:
    """Work until told to stop."""
    if sys.argv[1:2] == ["crowd"]:
        crowd(int(sys.argv[2]))
    commands: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=[commands], daemon=True).start()
    model = Model()
    with Memory.open(embedder=model) as memory:
        agent = Agent(memory, model)
        while True:
            try:
                if not agent.obey(commands.get(timeout=PAUSE_SECONDS)):
                    return
            except queue.Empty:
                if not agent.working:
                    continue
            else:
                continue
            try:
                agent.work()
            except (DatabaseError, EmbeddingError) as error:
                print(f"failed: {type(error).__name__}: {error.message}", flush=True)


if __name__ == "__main__":
    main()
