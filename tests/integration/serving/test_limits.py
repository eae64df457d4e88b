"""Every limit, at it and beyond it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from tests.integration.serving.conftest import Serve, Serving, serving
from tests.integration.serving.test_errors import JSON, problem

from pgrecall.serving.limits import Limits

LIMITS = Limits(body_bytes=1000, texts=3, characters=10, concurrency=1, wait=1, timeout=1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    limits = {
        "PGRECALL_SERVE_MAX_BODY_BYTES": "1000",
        "PGRECALL_SERVE_MAX_TEXTS": "3",
        "PGRECALL_SERVE_MAX_CHARACTERS": "10",
    }
    with serving(tmp_path_factory.mktemp("small"), **limits) as found:
        yield found


def padded(size: int) -> bytes:
    return b'{"text": "a"}'.ljust(size)


@pytest.mark.parametrize("chunked", [False, True])
def test_bytes_of_a_body(small: Serving, chunked: bool) -> None:
    def send(path: str, size: int) -> httpx.Response:
        content: Any = padded(size)
        if chunked:
            content = (padded(size)[start : start + 64] for start in range(0, size, 64))
        answer = small.client.post(path, content=content, headers=JSON)
        assert ("content-length" in answer.request.headers) != chunked
        return answer

    assert send("/embed", 1000).status_code == 200
    told = problem(send("/embed", 1001), 413, "too-large")
    assert "1000 bytes" in told["detail"]
    answer = send("/v1/embeddings", 1001)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"
    assert small.post("/embed", {"text": "a"}).is_success


def test_a_body_is_refused_before_it_has_come(small: Serving) -> None:
    """Both a stated length and bytes that go on and on."""
    where = urlsplit(small.address)
    head = "POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for more in (
        "Content-Length: 9999999999\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n" + "3e8\r\n" + "x" * 1000 + "\r\n" + "1\r\nx\r\n",
    ):
        with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
            connection.sendall((head + more).encode())  # and nothing more, ever
            answer = b""
            while chunk := connection.recv(65536):  # to the end: it is closed
                answer += chunk
        assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("length", ["-5", "many", "1e3"])
def test_lengths_that_are_none(small: Serving, length: str) -> None:
    where = urlsplit(small.address)
    with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
        connection.sendall(
            f"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode()
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_a_body_that_never_ends(serve: Serve) -> None:
    server = serve(PGRECALL_SERVE_TIMEOUT="0.5")
    where = urlsplit(server.address)
    with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
        connection.sendall(
            b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{"
        )
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"too-slow" in answer


def test_texts_in_a_batch(small: Serving) -> None:
    assert small.post("/embed/batch", {"texts": ["a"] * 3}).json()["count"] == 3
    told = problem(small.post("/embed/batch", {"texts": ["a"] * 4}), 422, "too-many-texts")
    assert told["field"] == "texts"
    assert "4 texts, 3 are taken" in told["detail"]
    assert len(small.post("/v1/embeddings", {"input": ["a"] * 3}).json()["data"]) == 3
    answer = small.post("/v1/embeddings", {"input": ["a"] * 4})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "too_many_texts")


def test_characters_of_a_text(small: Serving) -> None:
    assert small.post("/embed", {"text": "ü" * 10}).is_success
    told = problem(small.post("/embed", {"text": "ü" * 11}), 422, "text-too-long")
    assert told["field"] == "text"
    assert "11 characters, 10 are taken" in told["detail"]
    body = {"texts": ["a", "ü" * 11]}
    assert problem(small.post("/embed/batch", body), 422, "text-too-long")["field"] == "texts[1]"
    answer = small.post("/v1/embeddings", {"input": "ü" * 11})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "input")


def test_only_so_many_at_once(serve: Serve) -> None:
    """Those that find no slot wait, and are then told to come again; health goes on."""
    server = serve(PGRECALL_SERVE_MAX_CONCURRENCY="2", PGRECALL_SERVE_WAIT="0.5")
    with ThreadPoolExecutor(2) as threads:
        held = [threads.submit(server.post, "/embed", {"text": f"HOLD {i}"}) for i in range(2)]
        server.wait_for_work(2)
        answer = server.post("/embed", {"text": "a"})
        told = problem(answer, 503, "busy")
        assert "2 requests" in told["detail"]
        assert int(answer.headers["retry-after"]) > 0
        answer = server.post("/v1/embeddings", {"input": "a"})
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
        assert server.get("/health").status_code == 200
        server.let_go()
        assert [one.result().status_code for one in held] == [200, 200]
    assert server.post("/embed", {"text": "a"}).is_success


def test_those_that_wait_get_their_turn(serve: Serve) -> None:
    server = serve(PGRECALL_SERVE_MAX_CONCURRENCY="1", PGRECALL_SERVE_WAIT="60")
    with ThreadPoolExecutor(4) as threads:
        held = threads.submit(server.post, "/embed", {"text": "HOLD"})
        server.wait_for_work()
        waiting = [threads.submit(server.post, "/embed", {"text": f"{i}"}) for i in range(3)]
        server.let_go()
        assert {one.result().status_code for one in [held, *waiting]} == {200}


def test_only_so_long(serve: Serve) -> None:
    """A thread can't be ended: its slot stays taken until it ends by itself."""
    server = serve(
        PGRECALL_SERVE_MAX_CONCURRENCY="1",
        PGRECALL_SERVE_WAIT="0.2",
        PGRECALL_SERVE_TIMEOUT="0.3",
    )
    problem(server.post("/embed", {"text": "HOLD"}), 504, "timed-out")
    problem(server.post("/embed", {"text": "a"}), 503, "busy")
    server.let_go()
    for _ in range(100):
        if (answer := server.post("/embed", {"text": "a"})).is_success:
            break
    assert answer.is_success


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_BODY_BYTES", "0"),
        ("MAX_TEXTS", "-1"),
        ("MAX_CHARACTERS", "many"),
        ("MAX_CONCURRENCY", "0"),
        ("WAIT", "0"),
        ("TIMEOUT", "0"),
        ("DRAIN", "-1"),
    ],
)
def test_limits_that_are_none(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pgrecall.config import load_settings
    from pgrecall.errors import ConfigurationError

    monkeypatch.setenv(f"PGRECALL_SERVE_{name}", value)
    with pytest.raises(ConfigurationError, match=f"PGRECALL_SERVE_{name}"):
        load_settings()
