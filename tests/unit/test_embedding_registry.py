"""The names of providers, what they are taken for, and what is loaded for them."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest

from pgrecall.config import Settings
from pgrecall.embedding import embed_each, get_embedder, registry
from pgrecall.embedding.known import known
from pgrecall.embedding.minilm import MiniLM
from pgrecall.embedding.resilience import Guard, Passing, Policy, hide, hooks, seconds
from pgrecall.errors import ConfigurationError, EmbeddingError, EmbeddingRefused, MissingExtra

HEAVY = (
    "circuitbreaker", "httpx", "httpx2", "numpy", "ollama", "openai", "sentence_transformers",
    "tenacity", "torch",
)  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "identity", "dimensions", "tokens"),
    [
        ("ollama:mxbai-embed-large", "ollama:mxbai-embed-large", 1024, 512),
        ("ollama:mxbai-embed-large@1024", "ollama:mxbai-embed-large@1024", 1024, 512),
        ("ollama:all-minilm:latest", "ollama:all-minilm", 384, 256),
        ("ollama:hf.co/someone/bge-m3:Q4", "ollama:hf.co/someone/bge-m3:Q4", 1024, 8192),
        ("ollama:nomic-embed-text@256", "ollama:nomic-embed-text@256", 256, 2048),
        (" openai:text-embedding-3-small ", "openai:text-embedding-3-small", 1536, 8191),
        ("openai:text-embedding-3-large@1024", "openai:text-embedding-3-large@1024", 1024, 8191),
        ("openai:@cf/baai/bge-m3", "openai:@cf/baai/bge-m3", 1024, 8192),
        ("openai:intfloat/E5-base-v2", "openai:intfloat/E5-base-v2", 768, 512),
    ],
)
def test_a_name_is_enough(spec: str, identity: str, dimensions: int, tokens: int) -> None:
    chosen = get_embedder(spec, dimensions=dimensions)
    assert (chosen.identity, chosen.dimensions, chosen.max_tokens) == (identity, dimensions, tokens)
    assert chosen.available


def test_another_length_than_wanted_is_refused_without_asking() -> None:
    with pytest.raises(ConfigurationError, match="1536 dimensions, not 384"):
        get_embedder("openai:text-embedding-3-small", dimensions=384)
    with pytest.raises(ConfigurationError, match="256 dimensions, not 384"):
        get_embedder("ollama:house-model@256", dimensions=384)


@pytest.mark.parametrize("spec", ["ollama:", "openai: ", "sentence-transformers:", "ollama", "x:y"])
def test_a_provider_without_a_model_is_refused(spec: str) -> None:
    with pytest.raises(ConfigurationError, match="there is no embedder"):
        get_embedder(spec)


@pytest.mark.parametrize("width", [0, 4001])
def test_a_width_that_cannot_be_stored_is_refused(width: int) -> None:
    with pytest.raises(ConfigurationError, match=f"cannot have {width} dimensions"):
        get_embedder(f"openai:text-embedding-3-large@{width}")


def test_an_address_in_place_of_a_model_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError, match="an address in place of a model") as caught:
        get_embedder("openai:https://someone:secret@host/v1")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("provider", ["ollama", "openai", "sentence-transformers"])
def test_missing_packages_are_named_with_the_command(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._PACKAGES, provider, ("no_such_package_here",))
    with pytest.raises(MissingExtra, match=rf"pip install 'pgrecall\[{provider}\]'"):
        get_embedder(f"{provider}:model")


@pytest.mark.parametrize("then", ["", "pgrecall.embedding.get_embedder('none')"])
def test_nothing_is_loaded_before_it_is_needed(then: str) -> None:
    code = f"import sys, pgrecall, pgrecall.embedding; {then or 'pass'}\n"
    code += f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""
    assert all(find_spec(name) for name in ("circuitbreaker", "ollama", "openai", "tenacity"))


def test_the_policy_is_that_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGRECALL_EMBED_TIMEOUT", "7")
    monkeypatch.setenv("PGRECALL_EMBED_ATTEMPTS", "2")
    chosen: Any = get_embedder("ollama:all-minilm")
    assert chosen._policy == Policy(timeout=7, attempts=2)
    chosen = get_embedder("ollama:all-minilm", settings=Settings(embed_timeout=1.5))  # type: ignore[call-arg]
    assert chosen._policy == Policy(timeout=1.5, attempts=2)


def test_an_attempt_has_what_is_left_of_the_time() -> None:
    policy = Policy(timeout=20, first_wait=0)
    (limit,) = hooks(policy)["request"]
    request, seen = SimpleNamespace(extensions={}), []

    def attempt() -> None:
        limit(request)
        seen.append(dict(request.extensions["timeout"]))
        time.sleep(0.02)
        if len(seen) < 2:
            raise Passing("once more")

    Guard("a model", policy).call(attempt)
    assert [one["connect"] for one in seen] == [5, 5]
    assert 20 >= seen[0]["read"] >= seen[1]["read"] + 0.02
    (limit,) = hooks(Policy(timeout=2))["request"]
    Guard("a model", Policy(timeout=2)).call(lambda: limit(request))
    assert request.extensions["timeout"]["connect"] <= 2


def test_a_pause_is_read_in_both_forms() -> None:
    assert seconds("1.5") == 1.5
    assert seconds("-3") == 0
    assert seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert (seconds("Fri, 31 Dec 2100 23:59:59 GMT") or 0) > 1e9
    assert seconds("soon") is None
    assert seconds(None) is None


def test_a_servers_words_are_short_and_clean() -> None:
    assert hide("bad\n  key sk-1, really sk-1", ("sk-1",)) == "bad key ***, really ***"
    assert len(hide("x" * 10_000, ())) < 400


def test_models_are_known_by_any_of_their_names() -> None:
    assert known("mixedbread-ai/mxbai-embed-large-v1").query.startswith("Represent this sentence")
    assert known("nomic-embed-text:v1.5").document == "search_document: "
    assert known("no-such-model") == known("")


# -- embed_each, with the builtin model -------------------------------------------------------


def test_each_text_gets_its_vector_or_its_reason() -> None:
    texts: list[Any] = [f"text {number}" for number in range(70)]
    texts[3], texts[66], texts[67] = "", None, "a\ud800"
    found = embed_each(MiniLM(), texts)
    refused = {at: one for at, one in enumerate(found) if isinstance(one, EmbeddingRefused)}
    assert sorted(refused) == [3, 66, 67]
    assert [one.index for one in refused.values()] == [3, 66, 67]
    (alone,) = MiniLM().embed(["text 69"])
    assert float(alone @ found[69]) == pytest.approx(1, abs=1e-5)  # type: ignore[operator]
    assert embed_each(MiniLM(), []) == []


def test_other_errors_are_not_taken_for_bad_texts() -> None:
    with pytest.raises(EmbeddingError, match="no embedder is configured"):
        embed_each(get_embedder("none"), ["text", "another"])
