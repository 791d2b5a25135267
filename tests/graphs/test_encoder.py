"""The exported encoder: same numbers as torch, valid ONNX, same bytes every time, nothing of the machine in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from fllm_export.checkpoint.model import ItemEncoder, MapperKind, Pooling
from fllm_export.errors import BundleError, ParityError, UsageError
from fllm_export.files import sha256_file
from fllm_export.graphs.encoder import export_encoder
from fllm_export.graphs.model_files import external_data_path, publish_model
from fllm_export.graphs.parity import EncoderParity, compare_encoder, probe_batches
from fllm_export.prompt import Prompt

from .conftest import SHAPES, ExportTiny, MakeEncoder, make_batch

BATCHES = [make_batch(items, length, side, 40, seed=i) for i, (items, length, side) in enumerate(SHAPES)]
EXAMPLE = make_batch(2, 7, "left", 40)


@pytest.fixture(
    scope="module",
    params=[
        "bert-mean-linear",
        "bert-cls-identity",
        "roberta-mean-linear",
        "llama-last-mlp",
        "llama-last-kernel",
        "bert-mean-kernel-gelu-normalize-sigmoid-relu-tanh",
        "bert-mean-identity-normalize",
    ],
)
def exported(request: pytest.FixtureRequest, export_tiny: ExportTiny) -> tuple[ItemEncoder, Path]:
    """An encoder and its ONNX file."""
    return export_tiny(request.param, EXAMPLE)


def test_equals_torch_over_shapes_and_padding(exported: tuple[ItemEncoder, Path]) -> None:
    encoder, path = exported
    parity = compare_encoder(path, encoder, BATCHES)
    assert parity.batches == len(SHAPES)
    assert parity.items == sum(items for items, _, _ in SHAPES)
    assert parity.max_abs < 1e-4
    assert set(parity.max_rel_by_padding) == {"alone", "left", "right"}
    parity.require(1e-4)


def test_interface_and_content(exported: tuple[ItemEncoder, Path]) -> None:
    encoder, path = exported
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    found = {
        value.name: [size.dim_value or size.dim_param for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    width = encoder(torch.ones(1, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.int64)).shape[1]
    assert found == {
        "input_ids": ["batch", "sequence"],
        "attention_mask": ["batch", "sequence"],
        "item_vector": ["batch", width],
    }
    assert {opset.domain: opset.version for opset in model.opset_import} == {"": 20}
    vocabulary = encoder.encoder.config.vocab_size
    assert sum(vocabulary in tensor.dims for tensor in model.graph.initializer) == 1, "an LM head was exported"


def test_nothing_of_the_machine_is_in_the_file(exported: tuple[ItemEncoder, Path]) -> None:
    _, path = exported
    content = path.read_bytes()
    for trace in (b"site-packages", b"stack_trace", b".py", str(Path(__file__).parents[2]).encode(), b"/tmp/"):
        assert trace not in content


@pytest.mark.parametrize("exported", ["llama-last-mlp"], indirect=True)
def test_the_same_encoder_gives_the_same_bytes(exported: tuple[ItemEncoder, Path], tmp_path: Path) -> None:
    encoder, path = exported
    export_encoder(encoder, tmp_path / "again.onnx", example=EXAMPLE)
    assert sha256_file(tmp_path / "again.onnx") == sha256_file(path)


@pytest.mark.parametrize("exported", ["bert-mean-linear"], indirect=True)
def test_large_weights_go_into_a_file_of_their_own(exported: tuple[ItemEncoder, Path], tmp_path: Path) -> None:
    encoder, whole = exported
    path = tmp_path / "model.onnx"
    data = external_data_path(path)
    publish_model(ir.load(whole), path, external_data_bytes=10_000)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert data.stat().st_size > 0.8 * sum(parameter.nbytes for parameter in encoder.parameters())
    compare_encoder(path, encoder, BATCHES).require(1e-4)
    first = (sha256_file(path), sha256_file(data))
    publish_model(ir.load(whole), path, external_data_bytes=10_000)
    assert (sha256_file(path), sha256_file(data)) == first
    publish_model(ir.load(whole), path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert sha256_file(path) == sha256_file(whole)


def test_an_invalid_graph_is_refused_and_the_old_one_kept(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [3])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [result])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(BundleError, match=r"model\.onnx is not valid ONNX"):
        publish_model(ir.from_proto(model), path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_another_encoder_fails_parity(exported: tuple[ItemEncoder, Path]) -> None:
    encoder, path = exported
    parameter = encoder.encoder.get_input_embeddings().weight
    with torch.no_grad():
        before = parameter.clone()
        parameter.mul_(1.5)
    try:
        parity = compare_encoder(path, encoder, BATCHES)
    finally:
        with torch.no_grad():
            parameter.copy_(before)
    with pytest.raises(ParityError, match="differs from torch"):
        parity.require(1e-4)


def test_positions_that_count_padding_fail_parity(
    make_encoder: MakeEncoder, tiny_bert_dir: Path, tmp_path: Path
) -> None:
    """A BERT that gets no position_ids numbers the padding on the left too, and gives other vectors then."""
    encoder = make_encoder(tiny_bert_dir, "mean", "linear")
    encoder.positions = replace(encoder.positions, given=False)
    export_encoder(encoder, tmp_path / "model.onnx", example=EXAMPLE)
    prompt = Prompt("{text}", 64, "left", 0)
    texts = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14]]
    right, both = (
        compare_encoder(tmp_path / "model.onnx", encoder, probe_batches(prompt, texts, sides))
        for sides in (("right",), ("left", "right"))
    )
    right.require(1e-4)
    assert right.items == 2 + 3
    with pytest.raises(ParityError, match=r"a longer text shares the batch and padding is on the left; .*padding_side"):
        both.require(1e-2)


def test_not_a_number_fails_parity() -> None:
    with pytest.raises(ParityError, match="the most for the text 'a book'"):
        EncoderParity(float("nan"), float("nan"), 1, 1, {"alone": float("nan")}, 0).require(1.0, ["a book"])


def test_comparing_nothing_is_refused(exported: tuple[ItemEncoder, Path]) -> None:
    with pytest.raises(UsageError, match="no batch"):
        compare_encoder(exported[1], exported[0], [])


@pytest.mark.parametrize(("opset", "length"), [(23, 7), (17, 7), (20, 1)])
def test_senseless_requests_are_refused(
    make_encoder: MakeEncoder, tiny_bert_dir: Path, tmp_path: Path, opset: int, length: int
) -> None:
    encoder = make_encoder(tiny_bert_dir, "mean", "identity")
    with pytest.raises(UsageError):
        export_encoder(encoder, tmp_path / "x.onnx", example=make_batch(2, length, "none", 40), opset=opset)
    assert not list(tmp_path.iterdir())


def test_an_encoder_in_training_mode_is_refused(make_encoder: MakeEncoder, tiny_bert_dir: Path, tmp_path: Path) -> None:
    encoder = make_encoder(tiny_bert_dir, "mean", "identity").train()
    with pytest.raises(UsageError, match="training mode"):
        export_encoder(encoder, tmp_path / "x.onnx", example=EXAMPLE)


@pytest.mark.slow
@pytest.mark.parametrize(("pooling", "kind"), [("mean", "linear_relu"), ("cls", "identity")])
def test_minilm(
    make_encoder: MakeEncoder, minilm_dir: Path, tmp_path: Path, pooling: Pooling, kind: MapperKind
) -> None:
    encoder = make_encoder(minilm_dir, pooling, kind)
    path = tmp_path / "model.onnx"
    export_encoder(encoder, path, example=make_batch(2, 16, "right", 30000), external_data_bytes=1 << 20)
    assert external_data_path(path).stat().st_size > 80 << 20
    batches = [make_batch(i, n, side, 30000, seed=n) for i, n, side in SHAPES]
    parity = compare_encoder(path, encoder, [*batches, make_batch(2, 512, "right", 30000)])
    parity.require(1e-4)
    assert np.isfinite(parity.max_abs)
    assert parity.max_abs > 0
