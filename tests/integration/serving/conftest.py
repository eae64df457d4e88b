"""The real command, as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import httpx
import pytest

STUB = "python:stub:make"
COMMAND = [sys.executable, "-m", "pgrecall.cli", "serve"]


def wait_for(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.02)


@dataclass
class Serving:
    """A running `pgrecall serve`."""

    process: subprocess.Popen[str]
    address: str
    directory: Path
    log: IO[str]
    client: httpx.Client

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return self.client.post(path, json=body, **more)

    def get(self, path: str) -> httpx.Response:
        return self.client.get(path)

    @contextmanager
    def fault(self, name: str) -> Iterator[None]:
        (self.directory / name).touch()
        try:
            yield
        finally:
            (self.directory / name).unlink()

    def wait_for_work(self, count: int = 1) -> None:
        """Wait until so many texts with HOLD in them are being embedded."""
        wait_for(lambda: len([*self.directory.glob("began-*")]) >= count, "nothing was begun")

    def let_go(self) -> None:
        (self.directory / "go").touch()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def most_memory(self) -> int:
        """Return the most bytes of memory that it has had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    def told(self) -> str:
        self.log.seek(0)
        return self.log.read()


def environment(directory: Path, **settings: str) -> dict[str, str]:
    here = str(Path(__file__).parent)
    path = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    return {
        **os.environ,
        "PYTHONPATH": path,
        "STUB_DIR": str(directory),
        "PGRECALL_EMBEDDER": STUB,
        **settings,
    }


@contextmanager
def serving(directory: Path, *flags: str, **settings: str) -> Iterator[Serving]:
    """Run the command, with settings such as ``PGRECALL_SERVE_WAIT="1"``."""
    with (directory / "log").open("w+") as log:
        process = subprocess.Popen(
            [*COMMAND, "--port", "0", *flags],
            env=environment(directory, **settings),
            stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            log.seek(0)
            assert line.startswith("listening: http://"), log.read()
            address = line.removeprefix("listening: ").strip()
            with httpx.Client(base_url=address, timeout=30) as client:
                yield Serving(process, address, directory, log, client)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


class Serve(Protocol):
    """Runs the command until the test ends; the stub embeds unless flags say otherwise."""

    def __call__(self, *flags: str, **settings: str) -> Serving: ...


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(*flags: str, **settings: str) -> Serving:
            return stack.enter_context(serving(tmp_path, *flags, **settings))

        yield start


@pytest.fixture(scope="session")
def stubbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One that embeds with the stub, for tests that leave it as it is."""
    with serving(tmp_path_factory.mktemp("stubbed")) as found:
        yield found


@pytest.fixture(scope="session")
def builtin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One that embeds with the builtin model."""
    with serving(tmp_path_factory.mktemp("builtin"), "--embedder", "builtin") as found:
        yield found
