from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fllm_export import Bundle, BundleError, Runtime

onnx = pytest.importorskip("onnx")

TEXTS = ["a novel about the sea", "jazz", "a film for children"]


def spoil_embedding(model: Path, token: int) -> None:
    """Make the embedding row of a token NaN."""
    graph = onnx.load(model)
    (lookup,) = [node for node in graph.graph.node if node.op_type == "Gather" and node.input[1] == "input_ids"]
    (table,) = [tensor for tensor in graph.graph.initializer if tensor.name == lookup.input[0]]
    numbers = onnx.numpy_helper.to_array(table).copy()
    numbers[token] = np.nan
    table.CopyFrom(onnx.numpy_helper.from_array(numbers, table.name))
    onnx.save(graph, model)


@pytest.mark.parametrize("engine", ["native", "onnxruntime", "numpy"])
def test_an_encoder_that_gives_no_number_is_told_with_the_text(
    tiny_bundle: Bundle, tmp_path: Path, engine: str
) -> None:
    shutil.copytree(tiny_bundle.path, tmp_path / "b")
    tokens = Runtime.open(tmp_path / "b")._opened.encoder.tokenize(TEXTS)
    only = set(tokens[1]) - set(tokens[0]) - set(tokens[2])
    spoil_embedding(tmp_path / "b" / "encoder" / "model.onnx", min(only))
    runtime = Runtime.open(tmp_path / "b", engine=engine)
    for ask in (runtime.encode, runtime.topk):
        with pytest.raises(BundleError, match=r"the encoder gives text 1 \(counted from 0\) an item vector"):
            ask(TEXTS)
    assert runtime.topk([TEXTS[0], TEXTS[2]], 5).complete.all()
