"""The official client of OpenAI, and what it is told."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
from tests.integration.serving.conftest import Serving
from tests.integration.serving.stub import vector

from pgrecall.embedding import get_embedder


@pytest.fixture
def client(stubbed: Serving) -> Iterator[openai.OpenAI]:
    with connect(stubbed) as client:
        yield client


def connect(server: Serving) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.address}/v1", api_key="any", max_retries=0)


def same(found: Any, expected: Any) -> bool:
    return np.array_equal(np.asarray(found, np.float32), np.asarray(expected, np.float32))


def test_the_client_embeds_as_it_does_by_itself(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="", input=["a", "b"])
    assert answer.object == "list"
    assert answer.model == "stub:tiny"
    assert [one.index for one in answer.data] == [0, 1]
    assert same([one.embedding for one in answer.data], [vector("a"), vector("b")])
    assert answer.usage.total_tokens == 0


def test_a_single_text_as_floats(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(
        model="tiny", input="a", encoding_format="float", dimensions=8, user="someone"
    )
    assert len(answer.data) == 1
    assert same(answer.data[0].embedding, vector("a"))


def test_base64_is_of_little_endian_floats(stubbed: Serving) -> None:
    body = {"input": "a", "encoding_format": "base64"}
    found = stubbed.post("/v1/embeddings", body).json()["data"][0]["embedding"]
    assert same(np.frombuffer(base64.b64decode(found), "<f4"), vector("a"))


def test_nothing_but_the_input_is_needed(stubbed: Serving) -> None:
    empty = {"model": None, "encoding_format": None, "dimensions": None, "user": None}
    for more in ({}, empty):
        found = stubbed.post("/v1/embeddings", {"input": "a", **more}).json()
        assert same(found["data"][0]["embedding"], vector("a"))


def test_the_builtin_model(builtin: Serving) -> None:
    with connect(builtin) as client:
        (model,) = client.models.list().data
        texts = ["The sprint was overcommitted.", "Velocity declined twice."]
        answer = client.embeddings.create(model=model.id, input=texts)
    assert same([one.embedding for one in answer.data], get_embedder("builtin").embed(texts))


def test_the_async_client(stubbed: Serving) -> None:
    import asyncio

    async def ask() -> list[float]:
        async with openai.AsyncOpenAI(base_url=f"{stubbed.address}/v1", api_key="any") as client:
            answer = await client.embeddings.create(model="", input="a")
            return answer.data[0].embedding

    assert same(asyncio.run(ask()), vector("a"))


def test_the_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.object, model.owned_by) == ("stub:tiny", "model", "pgrecall")
    assert model.created > 1_700_000_000


@pytest.mark.parametrize("name", ["", "stub:tiny", "tiny", "python:stub:make"])
def test_names_of_the_model(client: openai.OpenAI, name: str) -> None:
    assert client.embeddings.create(model=name, input="a").model == "stub:tiny"


def test_another_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="text-embedding-3-small") as caught:
        client.embeddings.create(model="text-embedding-3-small", input="a")
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert caught.value.type == "invalid_request_error"
    assert "stub:tiny is served" in caught.value.message


@pytest.mark.parametrize("tokens", [[1, 2, 3], [[1, 2], [3]]])
def test_tokens_are_refused(client: openai.OpenAI, tokens: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="token arrays are not taken") as caught:
        client.embeddings.create(model="", input=tokens)
    assert caught.value.param == "input"


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({}, "input", "input: Field required"),
        ({"input": None}, "input", "a string or a list of strings"),
        ({"input": {"a": "b"}}, "input", "a string or a list of strings"),
        ({"input": ["a", None]}, "input", "item 1 is no string"),
        ({"input": ["a", True]}, "input", "token arrays"),
        ({"input": "a", "model": 7}, "model", "valid string"),
        ({"input": "a", "dimensions": 7}, "dimensions", "makes vectors of 8 dimensions, not 7"),
        ({"input": "a", "dimensions": "8"}, "dimensions", "valid integer"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "'float' or 'base64'"),
        ({"input": "a", "mode": "query"}, "mode", "there is no field 'mode'"),
    ],
)
def test_wrong_fields(stubbed: Serving, body: Any, field: str, message: str) -> None:
    answer = stubbed.post("/v1/embeddings", body)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert [*error] == ["message", "type", "param", "code"]
    assert message in error["message"]
    assert error["param"] == field
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("text", ["", " \n", "REFUSE"])
def test_texts_without_a_vector(client: openai.OpenAI, text: str) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.embeddings.create(model="", input=["a", text])
    assert caught.value.param == "input[1]"
    assert caught.value.code == "text_refused"


def test_no_texts(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="input is empty"):
        client.embeddings.create(model="", input=[])


def test_other_failures_have_its_form_too(stubbed: Serving) -> None:
    answers = [
        stubbed.client.post("/v1/embeddings", content=b"{", headers={"Content-Type": "text/json"}),
        stubbed.client.post(
            "/v1/embeddings", content=b"{", headers={"Content-Type": "application/json"}
        ),
        stubbed.get("/v1/embeddings"),
        stubbed.get("/v1/nothing"),
    ]
    assert [answer.status_code for answer in answers] == [415, 400, 405, 404]
    for answer in answers:
        assert [*answer.json()["error"]] == ["message", "type", "param", "code"]
