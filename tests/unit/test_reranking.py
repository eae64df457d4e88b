"""A cross-encoder in ONNX form: a tiny one, made here, run by the real runtime and tokenizer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from pgrecall import errors
from pgrecall.reranking import CrossEncoder

VOCABULARY = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "gold": 4, "ship": 5, "where": 6}
WORTH = {"gold": 10.0, "ship": 1.0, "[PAD]": -1000.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that sums what each token of the second text is worth; padding must not count."""
    directory = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer(WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )  # fmt: skip
    tokenizer.save(str(directory / "tokenizer.json"))
    worth = np.array([WORTH.get(word, 0.0) for word in VOCABULARY], dtype=np.float32)
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "s"]) for name in names]
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["worth", "input_ids"], ["each"]),
            helper.make_node("Mul", ["attention_mask", "token_type_ids"], ["counts"]),
            helper.make_node("Cast", ["counts"], ["shown"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["each", "shown"], ["counted"]),
            helper.make_node("ReduceSum", ["counted", "axis"], ["logits"], keepdims=1),
        ],
        "tiny", inputs, [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 1])],
        [numpy_helper.from_array(worth, "worth"),
         numpy_helper.from_array(np.array([1], dtype=np.int64), "axis")],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    onnx.save(made, str(directory / "model.onnx"))
    return directory


def test_texts_are_scored_with_the_query(model: Path) -> None:
    encoder = CrossEncoder(model, threads=1)
    texts = ["ship", "gold gold ship", "nothing of that", ""]
    assert encoder("where gold", texts) == [1.0, 21.0, 0.0, 0.0]
    assert encoder("where gold", []) == []
    with ThreadPoolExecutor(4) as pool:
        assert set(map(tuple, pool.map(lambda _: encoder("gold", texts), range(20)))) == {
            (1.0, 21.0, 0.0, 0.0)
        }


def test_a_long_text_is_cut(model: Path) -> None:
    encoder = CrossEncoder(model, max_tokens=10)
    (score,) = encoder("where gold", ["gold " * 100])
    assert score == 10.0 * (10 - 5)  # two words of the query, three marks


def test_the_usual_folder_of_an_export(model: Path, tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes((model / "model.onnx").read_bytes())
    (tmp_path / "tokenizer.json").write_bytes((model / "tokenizer.json").read_bytes())
    assert CrossEncoder(tmp_path)("q", ["gold"]) == [10.0]


def test_what_is_missing_is_named(model: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidInput, match=r"there is no file .*model\.onnx"):
        CrossEncoder(tmp_path)
    (tmp_path / "model.onnx").write_bytes((model / "model.onnx").read_bytes())
    with pytest.raises(errors.InvalidInput, match=r"there is no file .*tokenizer\.json"):
        CrossEncoder(tmp_path)
