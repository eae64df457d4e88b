"""What goes wrong between an embedder and its server, and what becomes of it."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.integration.embedding.conftest import QUICK, Provider
from tests.integration.embedding.servers import (
    Fault,
    change,
    cut_short,
    half_json,
    hang_up,
    sleep,
    status,
    trickle,
)

from pgrecall.embedding.batches import embed_each
from pgrecall.errors import EmbedderUnavailable, EmbeddingError, EmbeddingRefused

SHORT = replace(QUICK, timeout=0.5)

PASSING = [
    hang_up,
    cut_short,
    half_json,
    status(429, "slow down"),
    status(429, "slow down", Retry_After="0"),
    status(500),
    status(503, "loading"),
    status(408),
]


def ids(fault: Any) -> str:
    return str(getattr(fault, "__qualname__", fault)).split(".")[0]


# -- what passes ------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", PASSING, ids=ids)
def test_what_passes_is_tried_again(provider: Provider, fault: Fault) -> None:
    provider.server.faults = [fault, fault]
    assert len(provider().embed(["declining velocity"])) == 1
    assert len(provider.server.asked) == 3


@pytest.mark.parametrize("fault", PASSING[:4], ids=ids)
def test_but_not_for_ever(provider: Provider, fault: Fault) -> None:
    provider.server.always = fault
    with pytest.raises(EmbedderUnavailable, match=r"model all-minilm is unavailable.*attempt 3"):
        provider().embed(["declining velocity"])
    assert len(provider.server.asked) == 3


def test_as_often_as_the_setting_says(provider: Provider) -> None:
    provider.server.always = status(500, "out of order")
    with pytest.raises(EmbedderUnavailable, match="HTTP 500: out of order"):
        provider(policy=replace(QUICK, attempts=5)).embed(["text"])
    assert len(provider.server.asked) == 5


def test_a_refused_connection_is_unavailable(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("OLLAMA_HOST", address)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{address}/v1")
        with pytest.raises(EmbedderUnavailable, match=r"no connection.*attempt 3 of 3"):
            provider().embed(["text"])


def test_a_host_that_does_not_accept_is_unavailable(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # nobody accepts them, and further ones get no answer
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        address = f"http://127.0.0.1:{full.getsockname()[1]}"
        monkeypatch.setenv("OLLAMA_HOST", address)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{address}/v1")
        with pytest.raises(EmbedderUnavailable, match=r"no answer in time.*attempt 3 of 3"):
            provider(policy=replace(QUICK, connect_timeout=0.1)).embed(["text"])


def test_a_server_that_comes_back_is_found(provider: Provider) -> None:
    embedder = provider()
    embedder.embed(["before"])
    provider.server.faults = [hang_up]
    assert len(embedder.embed(["after"])) == 1


@pytest.mark.parametrize("fault", [sleep(3), trickle], ids=["silent", "trickling"])
def test_a_slow_answer_is_given_up(provider: Provider, fault: Fault) -> None:
    provider.server.faults = [fault]
    started = time.monotonic()
    with pytest.raises(EmbedderUnavailable, match=r"no answer in time.* of 0\.5 s"):
        provider(policy=SHORT).embed(["text"])
    assert time.monotonic() - started >= 0.5
    if fault is trickle:
        assert provider.server.given_up.wait(10)


def test_the_time_out_holds_for_all_attempts_together(provider: Provider) -> None:
    provider.server.always = status(500)
    patient = replace(SHORT, attempts=10_000, first_wait=0.1, longest_wait=0.1)
    with pytest.raises(EmbedderUnavailable, match=r"attempt \d{1,3} of 10000"):
        provider(policy=patient).embed(["text"])


def test_a_pause_that_is_asked_for_is_kept(provider: Provider) -> None:
    provider.server.faults = [status(429, Retry_After="1")]
    started = time.monotonic()
    assert len(provider().embed(["text"])) == 1
    assert time.monotonic() - started >= 1


def test_a_pause_beyond_the_time_out_is_not_waited_for(provider: Provider) -> None:
    provider.server.always = status(429, "quota", Retry_After="3600")
    with pytest.raises(EmbedderUnavailable, match=r"asks for a pause of 3600 s.*attempt 1 of 3"):
        provider().embed(["text"])
    assert len(provider.server.asked) == 1


# -- the circuit breaker ----------------------------------------------------------------------


def fail(embedder: Any, times: int) -> None:
    for _ in range(times):
        with pytest.raises(EmbedderUnavailable, match="is unavailable"):
            embedder.embed(["text"])


def test_after_five_failures_nothing_is_sent(provider: Provider) -> None:
    provider.server.always = status(500)
    embedder = provider(policy=replace(QUICK, attempts=1))
    fail(embedder, 5)
    with pytest.raises(EmbedderUnavailable, match=r"failed 5 times.*:\d\d UTC, in \d+ s"):
        embedder.embed(["text"])
    assert len(provider.server.asked) == 5
    # Another embedder has its own.
    provider.server.always = None
    assert len(provider().embed(["text"])) == 1


def test_later_it_is_tried_again(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.monotonic()]
    monkeypatch.setattr("circuitbreaker.monotonic", lambda: now[0])
    provider.server.always = status(500)
    embedder = provider(policy=replace(QUICK, attempts=1))
    fail(embedder, 5)
    now[0] += 29
    with pytest.raises(EmbedderUnavailable, match="failed 5 times"):
        embedder.embed(["text"])
    now[0] += 2
    fail(embedder, 1)  # one request, which failed
    with pytest.raises(EmbedderUnavailable, match="failed 6 times"):
        embedder.embed(["text"])
    assert len(provider.server.asked) == 6
    provider.server.always = None
    now[0] += 31
    assert len(embedder.embed(["text"])) == 1
    provider.server.always = status(500)
    fail(embedder, 5)


def test_refusals_and_wrong_answers_do_not_count(provider: Provider) -> None:
    embedder = provider(policy=replace(QUICK, attempts=1))
    for _ in range(2):
        provider.server.always = status(500)
        fail(embedder, 4)
        provider.server.always = status(403)
        with pytest.raises(EmbeddingError, match="HTTP 403"):
            embedder.embed(["text"])


def test_a_slow_call_does_not_hold_up_other_threads(provider: Provider) -> None:
    embedder = provider()
    release = threading.Event()

    def wait(handler: Any, answer: Any) -> bool:
        release.wait(30)
        return False

    provider.server.faults = [wait]
    slow = threading.Thread(target=embedder.embed, args=(["slow"],))
    slow.start()
    while not provider.server.asked:
        time.sleep(0.01)
    assert len(embedder.embed(["quick"])) == 1
    assert slow.is_alive()
    release.set()
    slow.join()


# -- wrong answers ----------------------------------------------------------------------------

Rows = list[list[float]]


def put(value: float) -> Callable[[Rows], list[Any]]:
    def changed(rows: Rows) -> list[Any]:
        return [[value, *row[1:]] for row in rows]

    return changed


WRONG = {
    "narrow": (lambda rows: [row[:100] for row in rows], "of 100 dimensions, 384 were expected"),
    "wide": (lambda rows: [[*row, 0.0] for row in rows], "of 385 dimensions, 384 were expected"),
    "empty": (lambda rows: [[] for _ in rows], "of 0 dimensions, 384 were expected"),
    "few": (lambda rows: rows[:-1], "1 vectors for 2 texts"),
    "many": (lambda rows: [*rows, rows[0]], "3 vectors for 2 texts"),
    "nan": (put(math.nan), "even for 'hello'.*NaN"),
    "infinite": (put(math.inf), "even for 'hello'.*infinite"),
    "zero": (lambda rows: [[0.0] * 384 for _ in rows], "even for 'hello'.*all zero"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_told(provider: Provider, name: str) -> None:
    how, message = WRONG[name]
    provider.server.always = change(how)
    with pytest.raises(EmbeddingError, match=message) as caught:
        provider().embed(["one", "two"])
    assert "model all-minilm" in str(caught.value)
    assert caught.value.hint
    assert type(caught.value) is EmbeddingError


def test_a_width_that_is_not_heeded_is_told(provider: Provider) -> None:
    provider.server.heeds_dimensions = False
    with pytest.raises(EmbeddingError, match=r"384 dimensions, 128 were expected.*@128"):
        provider(width=128).embed(["text"])


def test_vectors_are_brought_to_unit_length(provider: Provider) -> None:
    provider.server.faults = [change(lambda rows: [[3e30, 4e30, *row[2:]] for row in rows])]
    found = np.asarray(provider().embed(["text"])[0])
    assert found.dtype == np.float32
    assert found[:3].tolist() == pytest.approx([0.6, 0.8, 0.0])


# -- refusals ---------------------------------------------------------------------------------


def test_a_text_that_is_refused_is_named(provider: Provider) -> None:
    provider.server.refuses = lambda text: "bad" in text
    with pytest.raises(EmbeddingRefused, match="refused text 1: HTTP 400") as caught:
        provider().embed(["bad"])
    assert caught.value.index == 0
    with pytest.raises(EmbeddingRefused, match="refused one of 2 texts") as caught:
        provider().embed(["good", "bad"])
    assert caught.value.index is None


@pytest.mark.parametrize("code", [400, 413, 422, 500])
def test_a_refusal_is_not_tried_again(provider: Provider, code: int) -> None:
    embedder = provider()
    embedder.embed(["good"])
    provider.server.always = status(code, "unsupported value: NaN")
    with pytest.raises(EmbeddingRefused, match=f"HTTP {code}"):
        embedder.embed(["bad"])
    assert len(provider.server.asked) == 2


def test_texts_are_not_blamed_for_a_model_that_takes_none(provider: Provider) -> None:
    provider.server.always = status(400, "this model does not support embeddings")
    with pytest.raises(EmbeddingError, match="even for 'hello'.*not support embeddings") as caught:
        embed_each(provider(), ["one", "two"])
    assert type(caught.value) is EmbeddingError
    assert len(provider.server.asked) == 2


def test_good_texts_are_kept_when_bad_ones_are_refused(provider: Provider) -> None:
    texts = [f"text {number}" for number in range(150)]
    bad = {0, 77, 78, 149}
    provider.server.refuses = lambda text: text in {texts[place] for place in bad}
    texts[9] = " \n"
    found = embed_each(provider(), texts)
    assert {at for at, one in enumerate(found) if isinstance(one, EmbeddingRefused)} == bad | {9}
    assert [one.index for one in found if isinstance(one, EmbeddingRefused)] == sorted(bad | {9})
    (alone,) = provider().embed([texts[100]])
    assert float(alone @ found[100]) == pytest.approx(1, abs=1e-5)  # type: ignore[operator]


def test_a_vector_without_direction_takes_no_other_with_it(provider: Provider) -> None:
    def spoil(handler: Any, answer: Any) -> bool:
        texts = handler.server.inputs[-1]
        return change(
            lambda rows: [
                [math.nan] * 384 if text == "bad" else row
                for text, row in zip(texts, rows, strict=True)
            ]
        )(handler, answer)

    provider.server.always = spoil
    found = embed_each(provider(), ["one", "bad", "three"])
    assert [isinstance(one, EmbeddingRefused) for one in found] == [False, True, False]


def test_an_outage_is_not_halved(provider: Provider) -> None:
    provider.server.always = status(503)
    with pytest.raises(EmbedderUnavailable):
        embed_each(provider(), ["text"] * 64)
    assert len(provider.server.asked) == 3


def test_a_text_that_is_too_long_is_shortened(provider: Provider) -> None:
    provider.server.refuses = lambda text: len(text) > 256
    dense = "数" * 2000
    alone, short = provider().embed([dense, "数" * 84])
    assert float(alone @ short) == pytest.approx(1, abs=1e-5)  # type: ignore[operator]
    many = provider().embed(["one", dense, "three", dense])
    assert float(many[1] @ alone) == pytest.approx(1, abs=1e-5)  # type: ignore[operator]
    # Too long for another reason stays refused.
    provider.server.refuses = lambda text: "数" in text
    with pytest.raises(EmbeddingRefused, match="refused text 2") as caught:
        provider().embed(["one", dense])
    assert caught.value.index == 1


def test_a_batch_that_is_too_large_is_split(provider: Provider) -> None:
    def limit(handler: Any, answer: Any) -> bool:
        if len(handler.server.inputs[-1]) > 8:
            return status(413, "batch size 64 > maximum allowed batch size 8")(handler, answer)
        return False

    provider.server.always = limit
    texts = [f"text {number}" for number in range(30)]
    assert len(provider().embed(texts)) == 30
    assert [one for batch in provider.server.inputs if len(batch) <= 8 for one in batch][
        -30:
    ] == texts


@pytest.mark.parametrize(
    ("text", "message"),
    [("  \t", "holds no word"), (None, "of type NoneType"), ("a\ud800", r"U\+D800")],
)
def test_what_is_no_text_is_not_sent(provider: Provider, text: Any, message: str) -> None:
    with pytest.raises(EmbeddingRefused, match=f"text 2 of 2.*{message}") as caught:
        provider().embed(["fine", text])
    assert caught.value.index == 1
    assert not provider.server.asked
