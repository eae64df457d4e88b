"""Keys and passwords show nowhere: not in messages, tracebacks, logs or what `repr` says."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from tests.integration.embedding.conftest import Provider
from tests.integration.embedding.servers import half_json, hang_up, status

from pgrecall.errors import EmbeddingError

KEY = "sk-recognisable-7391"
PASSWORD = "recognisable-password-42"
ECHO = f"not good: Bearer {KEY}, http://someone:{PASSWORD}@127.0.0.1/"


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OLLAMA_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)


def everything(error: BaseException) -> str:
    """All that a program could show of an error and its causes."""
    shown = ["".join(traceback.format_exception(error))]
    cause: BaseException | None = error
    while cause is not None:
        shown += [str(cause), repr(cause), repr(cause.args), repr(getattr(cause, "hint", ""))]
        cause = cause.__cause__
    return "\n".join(shown)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 429, 500])
def test_an_echo_is_not_passed_on(
    provider: Provider, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    provider.server.always = status(code, ECHO)
    embedder = provider()
    with pytest.raises(EmbeddingError, match=f"HTTP {code}: not good: Bearer \\*\\*\\*") as caught:
        embedder.embed(["text"])
    assert KEY not in everything(caught.value)
    assert KEY not in caplog.text
    assert KEY not in repr(embedder) + embedder.identity + repr(vars(embedder))


@pytest.mark.parametrize("fault", [hang_up, half_json, None])
def test_other_faults_tell_nothing(
    provider: Provider, fault: Callable[..., Any] | None, caplog: pytest.LogCaptureFixture
) -> None:
    provider.server.always = fault
    embedder = provider()
    if fault is None:
        embedder.embed(["text"])
    else:
        with pytest.raises(EmbeddingError) as caught:
            embedder.embed(["text"])
        assert KEY not in everything(caught.value)
    assert KEY in provider.server.asked[0].headers["authorization"]
    assert caplog.records
    assert KEY not in caplog.text


def test_a_login_in_the_address_is_used_and_not_shown(
    openai: Provider, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    host = openai.server.address.removeprefix("http://")
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://someone:{PASSWORD}@{host}/v1")
    embedder = openai()
    embedder.embed(["text"])
    assert openai.server.asked[0].headers["authorization"].startswith("Basic ")
    for fault in (status(401, ECHO), status(500, ECHO), hang_up):
        openai.server.always = fault
        with pytest.raises(EmbeddingError) as caught:
            embedder.embed(["text"])
        assert PASSWORD not in everything(caught.value)
    assert host in caplog.text
    assert PASSWORD not in caplog.text
    assert PASSWORD not in repr(embedder) + embedder.identity + repr(vars(embedder))


def test_an_address_that_is_none_is_not_shown(
    openai: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://someone:{PASSWORD}@:port/v1")
    with pytest.raises(EmbeddingError) as caught:
        openai().embed(["text"])
    assert PASSWORD not in everything(caught.value)
