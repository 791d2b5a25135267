"""Make the frozen bundle of the format's current version; run once when a version is released, never again for it.

    python tests/format/datagen.py tests/format/v1

The encoder is a tiny ONNX graph (mean of an embedding, no transformer), so that the bundle is a few kilobytes and what
it freezes is the format. ``expected.json`` beside it holds the answers that every later reader must give.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from fllm_export import Runtime, UserTable
from fllm_export.graphs.heads import bundle_heads
from fllm_export.manifest import Manifest, describe_files
from fllm_export.prompt import Prompt
from fllm_export.table.codec_names import CODEC_NAMES
from fllm_export.table.layout import TableLayout

DIM, USERS, K = 12, 300, 25
WORDS = ["[PAD]", "a", "film", "about", "graphs", "genes", "jazz", "?"]
TEXTS = ["a film about jazz", "graphs about genes", "jazz"]


def encoder(generator: np.random.Generator) -> onnx.ModelProto:
    """Return a graph that averages the embeddings of the real tokens."""
    nodes = [
        helper.make_node("Gather", ["embedding", "input_ids"], ["states"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "two"], ["weights"]),
        helper.make_node("Mul", ["states", "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "one"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["weights", "one"], ["count"], keepdims=0),
        helper.make_node("Div", ["total", "count"], ["item_vector"]),
    ]
    embedding = generator.standard_normal((len(WORDS), DIM)).astype(np.float32)
    constants = {"embedding": embedding, "one": np.array([1], np.int64), "two": np.array([2], np.int64)}
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("item_vector", TensorProto.FLOAT, ["batch", DIM])
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "encoder", inputs, [output], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def tokenizer() -> Tokenizer:
    """Return a tokenizer of whole words."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def make(folder: Path) -> None:
    """Write a bundle for each codec and the answers it gives."""
    for quant in CODEC_NAMES:
        generator = np.random.default_rng(7)
        bundle = folder / quant
        (bundle / "encoder").mkdir(parents=True)
        (bundle / "head").mkdir()
        onnx.save(encoder(generator), bundle / "encoder" / "model.onnx")
        tokenizer().save(str(bundle / "tokenizer.json"))
        onnx.save(bundle_heads(quant, DIM, bias=True)["tile"], bundle / "head" / "tile.onnx")
        rows = generator.standard_normal((USERS, DIM)).astype(np.float32)
        ids, bias = generator.permutation(10**6)[:USERS], generator.standard_normal(USERS)
        users = bundle / "users"
        UserTable.create(users, rows, ids, bias=bias.astype(np.float32), quant=quant, shard_bytes=4000)
        prompt = Prompt("a film about {text} ?", 16, "left", 0)
        identity = TableLayout.load(users).identity
        Manifest(describe_files(bundle), prompt, DIM, identity, {"made_by": "tests/format/datagen.py"}).save(bundle)
        answers = {
            mode: Runtime.open(bundle, engine="numpy").topk(TEXTS, K, mode=mode, seed=3).to_dict()["items"]
            for mode in ("topk", "sample")
        }
        (folder / f"{quant}.json").write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
