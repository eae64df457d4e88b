"""Servers of Ollama's and OpenAI's protocols on the loopback, and the faults they can have.

Written from the providers' documentation; they share no code with the clients. Models of 384
dimensions give the vectors of the builtin model, others any that depend on the text alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgrecall.embedding.minilm import MiniLM

WIDTHS = {
    "all-minilm": 384,
    "house-model": 384,
    "multilingual-e5-small": 384,
    "mxbai-embed-large": 1024,
    "nomic-embed-text": 768,
    "text-embedding-3-large": 3072,
    "text-embedding-3-small": 1536,
}
DIGEST = "1b226e2802dbb772b5fc32a58f103ca1804ef7501331012de126ab22f67475ef"

Body = dict[str, Any]


@dataclass
class Answer:
    """What goes back, before faults change it."""

    status: int = 200
    body: Body = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Asked:
    """A request as the server saw it; ``port`` is the client's, and tells connections apart."""

    method: str
    path: str
    headers: dict[str, str]
    body: Body
    port: int


Fault = Callable[["Handler", Answer], bool]
"""Changes the answer, or sends something itself and returns True."""


def vectors(model: str, texts: Sequence[str], width: int) -> NDArray[np.float32]:
    if width == 384:
        return np.array(MiniLM().embed(texts), dtype=np.float32)
    rows = []
    for text in texts:
        seed = int.from_bytes(hashlib.sha256(f"{model} {text}".encode()).digest()[:8], "big")
        # Not of unit length, as of some servers.
        rows.append(np.random.default_rng(seed).normal(size=width))
    return np.array(rows, dtype=np.float32)


class Server(ThreadingHTTPServer):
    """A server with ``faults``, one for each of the next requests, and a memory of all requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[Asked] = []
        self.faults: list[Fault | None] = []
        self.always: Fault | None = None
        # Texts for which this is true are refused, with the whole request.
        self.refuses: Callable[[str], bool] = lambda text: False
        self.heeds_dimensions = True
        self.given_up = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def inputs(self) -> list[list[str]]:
        """The texts of each request for vectors."""
        return [asked.body["input"] for asked in self.asked if "input" in asked.body]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""

    def answer(self, asked: Asked) -> Answer:
        raise NotImplementedError


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    # Else each body waits for the headers to be acknowledged: 40 ms an answer.
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, body, self.client_address[1])
        self.server.asked.append(asked)
        fault = self.server.faults.pop(0) if self.server.faults else self.server.always
        answer = self.server.answer(asked)
        if fault is None or not fault(self, answer):
            self.send(answer)

    def send(self, answer: Answer, *, cut: int | None = None) -> None:
        content = json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[:cut])
        if cut is not None:
            self.close_connection = True


class OllamaServer(Server):
    """``/api/embed``, ``/api/tags`` and ``/api/show``."""

    def answer(self, asked: Asked) -> Answer:
        model = asked.body.get("model", "").removesuffix(":latest")
        if asked.path == "/api/tags":
            listed = [
                {"name": f"{name}:latest", "model": f"{name}:latest", "digest": DIGEST}
                for name in WIDTHS
            ]
            return Answer(body={"models": listed})
        if model not in WIDTHS:
            return Answer(404, {"error": f'model "{model}" not found, try pulling it first'})
        if asked.path == "/api/show":
            return Answer(body={"model_info": {"bert.embedding_length": WIDTHS[model]}})
        if asked.path != "/api/embed":
            return Answer(404, {"error": "404 page not found"})
        texts = asked.body["input"]
        if any(map(self.refuses, texts)):
            return Answer(400, {"error": "the input length exceeds the context length"})
        found = vectors(model, texts, WIDTHS[model])
        if self.heeds_dimensions and asked.body.get("dimensions"):
            found = found[:, : asked.body["dimensions"]]
        return Answer(
            body={
                "model": asked.body["model"],
                "embeddings": found.tolist(),
                "total_duration": 14143917,
                "load_duration": 1019500,
                "prompt_eval_count": 8,
            }
        )


class OpenAIServer(Server):
    """``/v1/embeddings``."""

    key: str | None = None

    def answer(self, asked: Asked) -> Answer:
        model = asked.body.get("model", "")
        if self.key is not None and asked.headers.get("authorization") != f"Bearer {self.key}":
            return self.error(401, f"Incorrect API key provided: {asked.headers}")
        if asked.path != "/v1/embeddings":
            return self.error(404, f"Unknown request URL: POST {asked.path}")
        if model not in WIDTHS:
            return self.error(404, f"The model `{model}` does not exist")
        texts = asked.body["input"]
        if any(map(self.refuses, texts)):
            return self.error(400, "This model's maximum context length is 8192 tokens")
        found = vectors(model, texts, WIDTHS[model])
        if self.heeds_dimensions and asked.body.get("dimensions"):
            found = found[:, : asked.body["dimensions"]]
        return Answer(body=embedding_list(model, found, asked.body.get("encoding_format")))

    @staticmethod
    def error(status: int, message: str) -> Answer:
        kind = "invalid_request_error" if status < 500 else "server_error"
        body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
        return Answer(status, body)


def embedding_list(model: str, found: NDArray[np.float32], form: str | None) -> Body:
    shown: list[Any] = found.tolist()
    if form == "base64":
        shown = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in found]
    data = [
        {"object": "embedding", "index": place, "embedding": one} for place, one in enumerate(shown)
    ]
    # The protocol gives places; nothing says that the order is theirs.
    return {"object": "list", "data": data[::-1], "model": model, "usage": {}}


# -- faults -----------------------------------------------------------------------------------


def status(code: int, message: str = "it went wrong", **headers: str) -> Fault:
    """Another status, with what its body says in both protocols."""

    def fault(handler: Handler, answer: Answer) -> bool:
        answer.status = code
        said: Any = message if isinstance(handler.server, OllamaServer) else {"message": message}
        answer.body = {"error": said}
        answer.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return False

    return fault


def sleep(seconds: float) -> Fault:
    """No byte for a while."""

    def fault(handler: Handler, answer: Answer) -> bool:
        time.sleep(seconds)
        return False

    return fault


def trickle(handler: Handler, answer: Answer) -> bool:
    """The answer, so slowly that it takes minutes, though bytes come all the time."""
    answer.body |= {"padding": "x" * 100_000}
    content = json.dumps(answer.body).encode()
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    try:
        for place in range(len(content)):
            handler.wfile.write(content[place : place + 1])
            time.sleep(0.02)
    except OSError:
        handler.server.given_up.set()
    return True


def hang_up(handler: Handler, answer: Answer) -> bool:
    """The connection ends without an answer."""
    handler.close_connection = True
    return True


def cut_short(handler: Handler, answer: Answer) -> bool:
    """The connection ends within the body."""
    handler.send(answer, cut=40)
    return True


def half_json(handler: Handler, answer: Answer) -> bool:
    """A whole answer of half a document."""
    content = json.dumps(answer.body).encode()[:-20]
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)
    return True


def change(what: Callable[[list[list[float]]], list[Any]]) -> Fault:
    """Other vectors than were asked for; plain lists in both protocols."""

    def fault(handler: Handler, answer: Answer) -> bool:
        texts = handler.server.inputs[-1]
        rows = what([[0.6, 0.8] + [0.0] * 382 for _ in texts])
        if isinstance(handler.server, OllamaServer):
            answer.body["embeddings"] = rows
        else:
            answer.body["data"] = [
                {"object": "embedding", "index": place, "embedding": row}
                for place, row in enumerate(rows)
            ]
        return False

    return fault
