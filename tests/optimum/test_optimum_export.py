"""The exporter `optimum` gives the same interface and the same numbers as torch; runs where optimum-onnx is."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from fllm_export.checkpoint.feature_layers import feature_layers
from fllm_export.checkpoint.merge import merge
from fllm_export.checkpoint.model import ItemEncoder, MapperKind, Pooling, make_mapper
from fllm_export.errors import HardwareError, UsageError
from fllm_export.files import sha256_file
from fllm_export.graphs.optimum import export_encoder_optimum
from fllm_export.graphs.parity import compare_encoder
from tests.conftest import small_features

if TYPE_CHECKING:
    from tests.conftest import Family, TinyCheckpoint

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

installed = importlib.util.find_spec("optimum") is not None
needs_optimum = pytest.mark.skipif(
    not installed, reason="optimum-onnx is not installed; it needs the environment of constraints/optimum.txt"
)


def batch(items: int, length: int, side: str, seed: int) -> tuple[Any, Any]:
    """Return random ids and a mask; each item but the first is padded on ``side``."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(5, 40, (items, length))
    mask = np.ones((items, length), np.int64)
    for item in range(1, items):
        real = int(generator.integers(1, length + 1))
        mask[item, slice(0, length - real) if side == "left" else slice(real, length)] = 0
    return ids, mask


BATCHES = [
    batch(items, length, side, seed)
    for seed, (items, length, side) in enumerate(
        [(1, 1, "left"), (1, 7, "left"), (3, 9, "left"), (4, 9, "right"), (5, 33, "left"), (2, 64, "right")]
    )
]


def encoder_of(directory: Path, pooling: Pooling, kind: MapperKind, steps: Sequence[str] = ()) -> ItemEncoder:
    torch.manual_seed(7)
    encoder = transformers.AutoModel.from_pretrained(directory)
    features = small_features(encoder.config.hidden_size, steps, np.random.default_rng(7))
    mapper = make_mapper(kind, features.width(encoder.config.hidden_size) or 0, 16, 24)
    return ItemEncoder(encoder, pooling, mapper, feature_layers(features)).eval()


@needs_optimum
@pytest.mark.parametrize(
    ("family", "pooling", "kind", "steps"),
    [
        ("bert", "mean", "linear", ()),
        ("bert", "cls", "identity", ()),
        ("roberta", "mean", "linear", ()),
        ("llama", "last", "linear_relu", ()),
        ("llama", "last", "mlp", ()),
        ("llama", "last", "kernel", ()),
        ("bert", "mean", "kernel", ("gelu", "normalize", "sigmoid", "relu", "tanh")),
        ("bert", "mean", "identity", ("identity", "normalize")),
    ],
)
@pytest.mark.parametrize("opset", [18, 20])
def test_equals_torch(
    request: pytest.FixtureRequest,
    family: str,
    pooling: Pooling,
    kind: MapperKind,
    steps: Sequence[str],
    opset: int,
    tmp_path: Path,
) -> None:
    encoder = encoder_of(request.getfixturevalue(f"tiny_{family}_dir"), pooling, kind, steps)
    path = tmp_path / "model.onnx"
    export_encoder_optimum(encoder, path, opset=opset)
    compare_encoder(path, encoder, BATCHES).require(1e-4)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    found = {
        value.name: [size.dim_value or size.dim_param for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    sizes = ["batch", "sequence"]
    width = (20 if steps else 32) if kind == "identity" else 16
    assert found == {"input_ids": sizes, "attention_mask": sizes, "item_vector": ["batch", width]}
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": opset}


@needs_optimum
def test_the_same_encoder_gives_the_same_bytes(tiny_llama_dir: Path, tmp_path: Path) -> None:
    encoder = encoder_of(tiny_llama_dir, "last", "linear_relu")
    for name in ("a.onnx", "b.onnx"):
        export_encoder_optimum(encoder, tmp_path / name)
    assert sha256_file(tmp_path / "a.onnx") == sha256_file(tmp_path / "b.onnx")
    content = (tmp_path / "a.onnx").read_bytes()
    assert b"site-packages" not in content
    assert b"/tmp/" not in content


@needs_optimum
def test_large_weights_go_into_a_file_of_their_own(tiny_bert_dir: Path, tmp_path: Path) -> None:
    encoder = encoder_of(tiny_bert_dir, "mean", "linear_relu")
    export_encoder_optimum(encoder, tmp_path / "model.onnx", external_data_bytes=10_000)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    compare_encoder(tmp_path / "model.onnx", encoder, BATCHES).require(1e-4)


@needs_optimum
def test_minilm(minilm_dir: Path, tmp_path: Path) -> None:
    encoder = encoder_of(minilm_dir, "mean", "linear_relu")
    export_encoder_optimum(encoder, tmp_path / "model.onnx")
    compare_encoder(tmp_path / "model.onnx", encoder, BATCHES).require(1e-4)


@needs_optimum
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_merged_checkpoint(tiny_checkpoint: TinyCheckpoint, family: Family, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(family, lora=True)
    merged = merge(checkpoint, ["Toy Story", "a novel about the sea"])
    export_encoder_optimum(merged.encoder, tmp_path / "model.onnx")
    prompt = checkpoint.prompt()
    ids = prompt.tokenize(checkpoint.tokenizer(), ["Jazz", "The quick brown fox jumps over the lazy dog"])
    compare_encoder(tmp_path / "model.onnx", merged.encoder, [prompt.batch(ids)]).require(1e-4)


@needs_optimum
def test_senseless_requests_are_refused(tiny_bert_dir: Path, tmp_path: Path) -> None:
    encoder = encoder_of(tiny_bert_dir, "mean", "linear")
    with pytest.raises(UsageError, match="opset is 21"):
        export_encoder_optimum(encoder, tmp_path / "model.onnx", opset=21)
    with pytest.raises(UsageError, match="training mode"):
        export_encoder_optimum(encoder.train(), tmp_path / "model.onnx")


@pytest.mark.skipif(installed, reason="optimum-onnx is installed")
def test_a_missing_exporter_is_named(tiny_bert_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match=r"constraints/optimum\.txt"):
        export_encoder_optimum(encoder_of(tiny_bert_dir, "mean", "linear"), tmp_path / "model.onnx")
