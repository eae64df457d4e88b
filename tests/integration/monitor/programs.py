"""Programs of others that tests start for real: found, given a free port, and stopped again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 60.0
"""Seconds after which a condition that has not come true never will."""

PACKAGES = {
    "pgbouncer": "pgbouncer",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-postgres-exporter": "prometheus-postgres-exporter",
}
"""Programs and the Debian packages that they come with."""


def find(program: str) -> str:
    """Return the path of a program; skip the test where it is missing."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/bin:/usr/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed: apt-get install {PACKAGES[program]}")
    return found


def wait_until(
    condition: Callable[[], Any],
    what: str = "it did not come true",
    *,
    seconds: float = PATIENCE,
    every: float = 0.1,
) -> Any:
    """Wait until ``condition()`` returns something true, and return that.

    Args:
        condition: Asked again and again.
        what: What is said where it never does.
        seconds: How long to wait at most.
        every: Seconds between two questions.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what} within {seconds:g} s")
        time.sleep(every)
    return found


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without settings of pgrecall, but ``variables``."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PGRECALL_")}
    return {**kept, **variables}


class Program:
    """A process that can be stopped and started again with the same words.

    Args:
        words: The command.
        log: Where it writes what it prints.
        variables: Its environment, whole.
        listens: Whether to write to its standard input.
    """

    def __init__(
        self,
        words: Sequence[str],
        log: Path,
        variables: Mapping[str, str] | None = None,
        *,
        listens: bool = False,
    ) -> None:
        self._words = words
        self._log = log
        self._variables = variables
        self._listens = listens
        self._process: subprocess.Popen[str] | None = None

    @property
    def process(self) -> subprocess.Popen[str]:
        """The process; it must have been started."""
        assert self._process is not None, f"{self._words[0]} was never started"
        return self._process

    @property
    def runs(self) -> bool:
        """Whether it runs now."""
        return self._process is not None and self._process.poll() is None

    @property
    def output(self) -> str:
        """All that it has printed since its first start."""
        return self._log.read_text(encoding="utf-8") if self._log.exists() else ""

    def start(self) -> None:
        """Start it, without waiting for anything."""
        assert not self.runs, f"{self._words[0]} runs already"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._words,
                stdin=subprocess.PIPE if self._listens else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=None if self._variables is None else {**self._variables},
                text=True,
            )

    def stop(self, *, seconds: float = PATIENCE) -> int:
        """End it by SIGTERM, by force if that does not help; return its exit code."""
        if self._process is None:
            return 0
        if self.runs:
            self.process.send_signal(signal.SIGCONT)  # a test may have frozen it
            self.process.terminate()
        try:
            code = self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        return code

    def say(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def wait_until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait until a condition holds; fail with what it printed if it ends before."""

        def holds() -> Any:
            if not self.runs:
                pytest.fail(f"{self._words[0]} ended: {self.output[-4000:]}")
            return condition()

        return wait_until(holds, what)


def stop_all(programs: Iterable[Program]) -> None:
    """Stop several, the last started first."""
    for program in reversed([*programs]):
        program.stop()
