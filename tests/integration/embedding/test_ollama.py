"""Ollama's protocol, by its official client."""

from __future__ import annotations

import numpy as np
import pytest
from tests.integration.embedding.conftest import Provider
from tests.integration.embedding.servers import DIGEST, status

from pgrecall.embedding import Embedder, get_embedder
from pgrecall.embedding.minilm import MiniLM
from pgrecall.embedding.ollama import OllamaEmbedder
from pgrecall.errors import EmbeddingError


def test_the_vectors_are_those_of_the_model(ollama: Provider) -> None:
    texts = [f"sprint {number}: declining velocity" for number in range(5)]
    embedder = ollama()
    assert isinstance(embedder, Embedder)
    found = np.array(embedder.embed(texts))
    assert found.dtype == np.float32
    assert np.allclose(found, np.array(MiniLM().embed(texts)), atol=1e-5)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    (asked,) = ollama.server.asked
    assert (asked.method, asked.path) == ("POST", "/api/embed")
    assert asked.body == {"model": "all-minilm", "input": texts, "truncate": True}


def test_what_is_known_is_not_asked(ollama: Provider) -> None:
    embedder = ollama("mxbai-embed-large:335m")
    assert (embedder.dimensions, embedder.max_tokens, embedder.available) == (1024, 512, True)
    assert embedder.identity == "ollama:mxbai-embed-large:335m"
    assert repr(embedder) == "<OllamaEmbedder ollama:mxbai-embed-large:335m>"
    assert not ollama.server.asked


def test_what_is_not_known_is_asked_once(ollama: Provider) -> None:
    embedder = ollama("house-model")
    assert (embedder.dimensions, embedder.dimensions, embedder.max_tokens) == (384, 384, 512)
    assert len(ollama.server.asked) == 1
    other = ollama("house-model")
    other.embed(["text"])
    assert other.dimensions == 384
    assert len(ollama.server.asked) == 2
    ollama.server.always = status(400, "does not support embeddings")
    with pytest.raises(EmbeddingError, match="not support embeddings.*a model for embeddings"):
        _ = ollama("house-model").dimensions


def test_what_the_database_holds_is_expected_of_a_model_that_is_not_known(ollama: Provider) -> None:
    assert get_embedder("ollama:house-model", dimensions=384).dimensions == 384
    assert not ollama.server.asked  # so a memory opens while the server is down
    other = ollama("house-model", expected=512)
    with pytest.raises(EmbeddingError, match="384 dimensions, 512 were expected.*another model"):
        other.embed(["text"])


def test_a_width_is_asked_for(ollama: Provider) -> None:
    embedder = get_embedder("ollama:mxbai-embed-large@512")
    assert isinstance(embedder, OllamaEmbedder)
    assert (embedder.identity, embedder.dimensions) == ("ollama:mxbai-embed-large@512", 512)
    (found,) = embedder.embed(["text"])
    embedder.close()
    assert found.shape == (512,)  # type: ignore[union-attr]
    assert float(found @ found) == pytest.approx(1, abs=1e-5)  # type: ignore[operator]
    assert ollama.server.asked[0].body["dimensions"] == 512


@pytest.mark.parametrize(
    ("model", "query", "document"),
    [
        ("all-minilm", "", ""),
        (
            "mxbai-embed-large",
            "Represent this sentence for searching relevant passages: ",
            "",
        ),
        ("nomic-embed-text", "search_query: ", "search_document: "),
    ],
)
def test_models_get_the_prompts_they_were_trained_with(
    ollama: Provider, model: str, query: str, document: str
) -> None:
    ollama(f"{model}:latest").embed(["text"], "query")
    ollama(model).embed(["text"])
    assert ollama.server.inputs == [[f"{query}text"], [f"{document}text"]]


def test_requests_hold_64_texts(ollama: Provider) -> None:
    texts = [f"text {number}" for number in range(130)]
    assert len(ollama().embed(texts)) == 130
    assert [len(batch) for batch in ollama.server.inputs] == [64, 64, 2]
    assert [text for batch in ollama.server.inputs for text in batch] == texts
    assert ollama().embed([]) == []


def test_the_usual_tag_makes_no_other_model(ollama: Provider) -> None:
    assert ollama("all-minilm:latest").identity == ollama("all-minilm").identity


def test_the_revision_is_the_digest(ollama: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = ollama()
    assert isinstance(embedder, OllamaEmbedder)
    assert (embedder.revision, embedder.revision) == (DIGEST[:12], DIGEST[:12])
    assert [asked.path for asked in ollama.server.asked] == ["/api/tags"]
    # Other weights may come at any time, so it is not believed for ever.
    monkeypatch.setattr("pgrecall.embedding.ollama._BELIEVED", 0.0)
    assert embedder.revision == DIGEST[:12]
    assert len(ollama.server.asked) == 2
    other = ollama("absent")
    assert isinstance(other, OllamaEmbedder)
    assert other.revision is None
    ollama.server.always = status(500)
    other = ollama()
    assert isinstance(other, OllamaEmbedder)
    assert other.revision is None


def test_a_model_that_is_not_there_is_named_with_the_command(ollama: Provider) -> None:
    with pytest.raises(EmbeddingError, match=r'model "absent" not found.*ollama pull absent;'):
        ollama("absent").embed(["text"])
    assert len(ollama.server.asked) == 1


def test_a_key_is_sent_and_asked_for(ollama: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "open sesame")
    embedder = ollama()
    embedder.embed(["text"])
    assert ollama.server.asked[0].headers["authorization"] == "Bearer open sesame"
    ollama.server.always = status(401, "unauthorized")
    with pytest.raises(EmbeddingError, match="HTTP 401: unauthorized.*set OLLAMA_API_KEY"):
        embedder.embed(["text"])


def test_an_address_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "http://host:port")
    with pytest.raises(EmbeddingError, match="OLLAMA_HOST is no address"):
        OllamaEmbedder("all-minilm").embed(["text"])
