"""Requests that are wrong, and embedders that fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from tests.integration.serving.conftest import Serve, Serving, serving, wait_for
from tests.integration.serving.stub import PRIVATE_PATH, SECRET, Stub

JSON = {"Content-Type": "application/json"}


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check the form of an answer, and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"urn:problem-type:pgrecall:{code}"
    assert body["status"] == status
    assert body["title"] == HTTPStatus(status).phrase
    assert body["detail"]
    for private in (SECRET, PRIVATE_PATH, "Traceback", ".py", "/srv"):
        assert private not in answer.text
    return body


@pytest.mark.parametrize("path", ["/embed", "/embed/batch"])
@pytest.mark.parametrize(
    "content", [b"{", b'{"text": ', b"nonsense", b"\xff\xfe{}", b"[" * 100_000, b'{"text": "\xc3"}']
)
def test_malformed_json(stubbed: Serving, path: str, content: bytes) -> None:
    problem(stubbed.client.post(path, content=content, headers=JSON), 400, "malformed-json")


@pytest.mark.parametrize("content", [b"[]", b'"text"', b"5", b"null", b""])
def test_no_object(stubbed: Serving, content: bytes) -> None:
    body = problem(stubbed.client.post("/embed", content=content, headers=JSON), 422, "invalid")
    assert "no JSON object" in body["detail"]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/embed", {}, "text"),
        ("/embed", {"text": 5}, "text"),
        ("/embed", {"text": None}, "text"),
        ("/embed", {"text": ["a"]}, "text"),
        ("/embed", {"text": "a", "mode": "other"}, "mode"),
        ("/embed", {"text": "a", "mode": None}, "mode"),
        ("/embed", {"text": "a", "mdoe": "query"}, "mdoe"),
        ("/embed/batch", {}, "texts"),
        ("/embed/batch", {"texts": "a"}, "texts"),
        ("/embed/batch", {"texts": {"0": "a"}}, "texts"),
        ("/embed/batch", {"texts": ["a", "b", 5]}, "texts[2]"),
        ("/embed/batch", {"texts": ["a", None]}, "texts[1]"),
        ("/embed/batch", {"text": "a"}, "text"),
    ],
)
def test_wrong_fields_are_named(stubbed: Serving, path: str, body: Any, field: str) -> None:
    told = problem(stubbed.post(path, body), 422, "invalid")
    assert told["field"] == field
    assert field in told["detail"]


def test_many_faults_are_one(stubbed: Serving) -> None:
    """pydantic makes an object of each, which take a kilobyte each."""
    fields = {str(number): 0 for number in range(100_000)}
    before = stubbed.most_memory()
    answers = [
        stubbed.post("/embed", fields),
        stubbed.post("/embed/batch", {"texts": [1] * 300_000}),
        stubbed.post("/embed", {"x" * 1_000_000: 1}),
    ]
    for answer in answers:
        problem(answer, 422, "invalid")
        assert len(answer.content) < 1000
    assert stubbed.most_memory() - before < 150_000_000


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u200b"])
def test_texts_without_a_word(stubbed: Serving, text: str) -> None:
    told = problem(stubbed.post("/embed", {"text": text}), 422, "text-refused")
    assert told["field"] == "text"
    assert told["detail"].startswith("text holds no word")
    told = problem(stubbed.post("/embed/batch", {"texts": ["a", text]}), 422, "text-refused")
    assert told["field"] == "texts[1]"
    assert told["detail"].startswith("texts[1] holds no word")


def test_half_a_character(stubbed: Serving) -> None:
    answer = stubbed.client.post("/embed", content=b'{"text": "a\\ud83d"}', headers=JSON)
    assert "text" in problem(answer, 422, answer.json()["type"].rpartition(":")[2])["field"]


def test_no_texts(stubbed: Serving) -> None:
    assert problem(stubbed.post("/embed/batch", {"texts": []}), 422, "no-text")["field"] == "texts"


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""]
)
def test_other_types_than_json(stubbed: Serving, kind: str) -> None:
    answer = stubbed.client.post("/embed", content=b'{"text":"a"}', headers={"Content-Type": kind})
    problem(answer, 415, "unsupported-media-type")


def test_json_with_a_character_set(stubbed: Serving) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert stubbed.client.post("/embed", content=b'{"text":"a"}', headers=headers).is_success


def test_other_paths_and_methods(stubbed: Serving) -> None:
    problem(stubbed.get("/nothing"), 404, "not-found")
    answer = stubbed.get("/embed")
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "POST"


def test_texts_that_the_model_refuses(stubbed: Serving) -> None:
    told = problem(stubbed.post("/embed", {"text": "REFUSE"}), 422, "text-refused")
    assert told["field"] == "text"
    body = {"texts": ["a", "REFUSE", "b"]}
    assert problem(stubbed.post("/embed/batch", body), 422, "text-refused")["field"] == "texts[1]"
    body = {"texts": ["a", "REFUSE SOMEWHERE"]}
    told = problem(stubbed.post("/embed/batch", body), 422, "text-refused")
    assert told["field"] == "texts"
    assert "one of 2 texts" in told["detail"]
    assert stubbed.get("/health").status_code == 200


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("own")) as found:
        yield found


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("down", 503, "embedder-unavailable"),
        ("wrong", 500, "embedder-failed"),
        ("bug", 500, "embedder-failed"),
    ],
)
def test_an_embedder_that_fails(own: Serving, fault: str, status: int, code: str) -> None:
    server = own
    with server.fault(fault):
        answer = server.post("/embed", {"text": "a"})
        problem(answer, status, code)
        assert ("retry-after" in answer.headers) == (status == 503)
        health = server.get("/health")
        assert health.status_code == 503
        assert health.json()["status"] == "unavailable"
        assert health.json()["dimensions"] == 8
        answer = server.post("/v1/embeddings", {"input": "a"})
        assert answer.status_code == status
        assert answer.json()["error"]["type"] == "server_error"
        for private in (SECRET, PRIVATE_PATH):
            assert private not in health.text + answer.text
    assert server.post("/embed", {"text": "a"}).is_success
    assert server.get("/health").status_code == 200
    assert f"{fault}: {SECRET}" in server.told()  # the operator learns why


def test_health_notices_by_itself(serve: Serve) -> None:
    server = serve()
    assert server.get("/health").status_code == 200
    with server.fault("down"):
        wait_for(lambda: server.get("/health").status_code == 503, "it was not noticed")
    wait_for(lambda: server.get("/health").status_code == 200, "its return was not noticed")


def test_it_starts_while_the_embedder_is_down(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "down").touch()
    server = serve()
    answer = server.get("/health")
    assert answer.status_code == 503
    assert answer.json()["dimensions"] is None
    assert "down, slow or refuses" in answer.json()["reason"]


@pytest.mark.parametrize("text", ["SHORT", "FEW"])
def test_vectors_that_are_none(stubbed: Serving, text: str) -> None:
    problem(stubbed.post("/embed/batch", {"texts": ["a", text]}), 500, "embedder-failed")
    assert stubbed.post("/embed", {"text": "a"}).is_success


async def test_other_routers_share_the_forms_of_errors(tmp_path: Path) -> None:
    """A fault of the server's own can't be caused from outside, so this one is within."""
    from tests.integration.serving.test_limits import LIMITS

    from pgrecall.serving.app import make_app
    from pgrecall.serving.work import Embedding

    router = APIRouter()

    @router.get("/fails")
    async def fails() -> None:
        raise RuntimeError(f"{SECRET} {PRIVATE_PATH}")

    @router.post("/numbers")
    async def numbers(given: list[int]) -> None: ...

    router.add_api_route("/v1/fails", fails)
    embedding = Embedding(Stub(tmp_path), LIMITS)
    transport = httpx.ASGITransport(make_app(embedding, [router]), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        problem(await client.get("/fails"), 500, "internal")
        answer = await client.get("/v1/fails")
        problem(await client.get("/embed"), 404, "not-found")
        many = await client.post("/numbers", json=["a"] * 200)
        assert problem(many, 422, "invalid")["field"] == "[0]"
        assert len(many.content) < 2000
    assert json.loads(answer.text)["error"]["type"] == "server_error"
    assert SECRET not in answer.text
    embedding.close()
