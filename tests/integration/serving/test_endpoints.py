"""What the endpoints answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from tests.integration.serving.conftest import Serving
from tests.integration.serving.stub import vector

from pgrecall.embedding import get_embedder

TEXTS = ["The sprint was overcommitted.", "Velocity declined twice.", "Größe: 再见 🙂"]
MODEL = "stub:tiny"


def same(found: Any, expected: Any) -> bool:
    return np.array_equal(np.asarray(found, np.float32), np.asarray(expected, np.float32))


def test_a_text(stubbed: Serving) -> None:
    answer = stubbed.post("/embed", {"text": TEXTS[2]})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert [*body] == ["embedding", "dimensions", "model", "generation_time_ms"]
    assert same(body["embedding"], vector(TEXTS[2]))
    assert body["dimensions"] == 8
    assert body["model"] == MODEL
    assert body["generation_time_ms"] >= 0


def test_a_batch(stubbed: Serving) -> None:
    answer = stubbed.post("/embed/batch", {"texts": TEXTS})
    assert answer.status_code == 200
    body = answer.json()
    assert [*body] == ["embeddings", "count", "dimensions", "model", "total_time_ms"]
    assert same(body["embeddings"], [vector(text) for text in TEXTS])
    assert (body["count"], body["dimensions"], body["model"]) == (3, 8, MODEL)
    assert body["total_time_ms"] >= 0


@pytest.mark.parametrize("mode", ["query", "document"])
def test_the_mode(stubbed: Serving, mode: Any) -> None:
    one = stubbed.post("/embed", {"text": "a", "mode": mode}).json()["embedding"]
    many = stubbed.post("/embed/batch", {"texts": ["a"], "mode": mode}).json()["embeddings"]
    assert same(one, vector("a", mode))
    assert same(many, [vector("a", mode)])
    assert not same(vector("a", "query"), vector("a"))


def test_health(stubbed: Serving) -> None:
    answer = stubbed.get("/health")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "model": MODEL, "dimensions": 8, "reason": None}


def test_the_builtin_model_makes_what_it_makes_directly(builtin: Serving) -> None:
    model = get_embedder("builtin")
    one = builtin.post("/embed", {"text": TEXTS[0]}).json()
    assert same(one["embedding"], model.embed(TEXTS[:1])[0])
    many = builtin.post("/embed/batch", {"texts": TEXTS}).json()
    assert same(many["embeddings"], model.embed(TEXTS))
    assert one["model"] == many["model"] == model.identity
    assert one["dimensions"] == many["dimensions"] == len(one["embedding"]) == 384
    assert builtin.get("/health").json()["dimensions"] == 384


def test_many_clients_get_each_their_own(builtin: Serving) -> None:
    """20 clients, each on a connection of its own, with texts of different lengths."""
    texts = [f"client {number} " + "said something " * (number % 7 + 1) for number in range(20)]

    def ask(text: str) -> list[Any]:
        with httpx.Client(base_url=builtin.address, timeout=60) as client:
            answers = [client.post("/embed", json={"text": f"{text}{i}"}) for i in range(5)]
        assert {answer.status_code for answer in answers} == {200}
        return [answer.json()["embedding"] for answer in answers]

    with ThreadPoolExecutor(20) as threads:
        found = [*threads.map(ask, texts)]
    model = get_embedder("builtin")
    for text, embeddings in zip(texts, found, strict=True):
        for i, embedding in enumerate(embeddings):
            assert same(embedding, model.embed([f"{text}{i}"])[0]), text


def test_everything_is_described_with_examples(stubbed: Serving) -> None:
    document = stubbed.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    operations = {
        (path, method): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert set(operations) == {
        ("/embed", "post"),
        ("/embed/batch", "post"),
        ("/health", "get"),
        ("/v1/embeddings", "post"),
        ("/v1/models", "get"),
        ("/healthz", "get"),
        ("/readyz", "get"),
    }
    for (path, method), operation in operations.items():
        if method == "post":
            assert {"400", "413", "415", "422", "500", "503", "504"} < set(operation["responses"])
        for status, answer in operation["responses"].items():
            form = "application/json"
            if path.startswith(("/embed", "/readyz")) and status != "200":
                form = "application/problem+json"
            assert [*answer["content"]] == [form], (path, status)
    assert "HTTPValidationError" not in schemas
    for name, schema in schemas.items():
        for field, described in schema["properties"].items():
            optional = "default" in described or "const" in described or "description" in described
            nested = "$ref" in str(described)
            assert "examples" in described or optional or nested, (name, field)


@pytest.mark.parametrize("name", ["EmbedRequest", "BatchRequest", "OpenAIRequest"])
def test_the_examples_are_taken(stubbed: Serving, name: str) -> None:
    schemas = stubbed.get("/openapi.json").json()["components"]["schemas"]
    path = {"EmbedRequest": "/embed", "BatchRequest": "/embed/batch"}.get(name, "/v1/embeddings")
    required = schemas[name]["required"]
    example = {field: schemas[name]["properties"][field]["examples"][0] for field in required}
    assert stubbed.post(path, example).status_code == 200
