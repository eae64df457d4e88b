"""Models on this machine, by sentence-transformers: a tiny one, made here, as no hub is reached.

Skipped where sentence-transformers is not installed, which brings PyTorch.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgrecall.embedding import Embedder, embed_each, get_embedder
from pgrecall.errors import EmbeddingError, EmbeddingRefused

pytest.importorskip(
    "sentence_transformers", reason="this needs pip install 'pgrecall[sentence-transformers]'"
)
# Torch and transformers warn of what is to come in them.
pytestmark = pytest.mark.filterwarnings("default")

WORDS = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "query", "passage", ":", "declining", "velocity",
    "backlog", "grows", "plan", "the", "sprint",
]  # fmt: skip


def make(directory: Path, *, prompts: dict[str, str] | None = None) -> str:
    """A BERT of random weights, 32 wide, that reads 16 tokens."""
    # By name, as type checkers have them as little as most who run the tests.
    torch = import_module("torch")
    transformers = import_module("transformers")
    sentence_transformers = import_module("sentence_transformers")
    modules = import_module("sentence_transformers.sentence_transformer.modules")

    torch.manual_seed(7)
    bert = directory / "bert"
    bert.mkdir(parents=True)
    (bert / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    transformers.BertTokenizerFast(str(bert / "vocab.txt")).save_pretrained(bert)
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(bert)
    words = modules.Transformer(str(bert), max_seq_length=16)
    pooling = modules.Pooling(32)
    model = sentence_transformers.SentenceTransformer(
        modules=[words, pooling], prompts=prompts, device="cpu"
    )
    model.save(str(directory / "model"))
    return f"sentence-transformers:{directory / 'model'}"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make(tmp_path_factory.mktemp("plain"))


def similarity(one: Any, other: Any) -> float:
    return float(np.asarray(one) @ np.asarray(other))


def test_a_directory_is_a_model(plain: str) -> None:
    embedder = get_embedder(plain)
    assert isinstance(embedder, Embedder)
    assert (embedder.dimensions, embedder.max_tokens, embedder.available) == (32, 16, True)
    assert embedder.identity == plain
    assert plain in repr(embedder)
    found = np.array(embedder.embed(["declining velocity", "backlog grows", "the plan"]))
    assert found.dtype == np.float32
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert similarity(*embedder.embed(["plan " * 14, "plan " * 14_000])) == pytest.approx(1)
    assert embedder.embed([]) == []
    with pytest.raises(EmbeddingError, match="32 dimensions, 384 were expected"):
        get_embedder(plain, dimensions=384).embed(["text"])


def test_prompts_are_those_of_the_model(tmp_path: Path) -> None:
    own = make(tmp_path, prompts={"query": "query: ", "document": "passage: "})
    embedder = get_embedder(own)
    (query,) = embedder.embed(["velocity"], "query")
    (document,) = embedder.embed(["velocity"])
    assert similarity(query, document) < 0.9999


def test_prompts_that_the_model_lacks_are_known(tmp_path: Path, plain: str) -> None:
    directory = plain.removeprefix("sentence-transformers:")
    link = tmp_path / "e5-small-v2"
    link.symlink_to(directory)
    embedder = get_embedder(f"sentence-transformers:{link}")
    with pytest.raises(EmbeddingError, match="32 dimensions, 384 were expected.*give the path"):
        embedder.embed(["velocity"])
    embedder._width = 32  # type: ignore[attr-defined]
    bare = get_embedder(plain)
    (query,) = embedder.embed(["velocity"], "query")
    (same,) = bare.embed(["query: velocity"])
    assert similarity(query, same) == pytest.approx(1, abs=1e-5)


def test_bad_texts_are_refused(plain: str) -> None:
    found = embed_each(get_embedder(plain), ["plan", "", "a\ud800"])
    assert [isinstance(one, EmbeddingRefused) for one in found] == [False, True, True]


def test_a_model_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EmbeddingError, match="cannot be loaded.*give the path of a directory"):
        _ = get_embedder(f"sentence-transformers:{tmp_path / 'empty'}").dimensions


def test_threads_share_one_model(plain: str) -> None:
    embedder = get_embedder(plain)
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(embedder.embed(["plan", "sprint " * 40])))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert all(np.allclose(one, results[0], atol=1e-6) for one in results)


FORK = textwrap.dedent("""
    import os, sys
    from pgrecall.embedding import get_embedder

    embedder = get_embedder(sys.argv[1])
    (before,) = embedder.embed(["declining velocity"])
    embedder._loaded.get().lock.acquire()  # as another thread may, at the moment of the fork
    child = os.fork()
    if child == 0:
        (after,) = embedder.embed(["declining velocity"])
        os._exit(0 if abs(float(before @ after) - 1) < 1e-5 else 3)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_loads_its_own(plain: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, plain],
        timeout=120, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
