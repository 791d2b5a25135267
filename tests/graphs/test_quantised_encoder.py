"""The encoder with integer weights: every product with weights is replaced, and what it computes stays near."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from fllm_export.encoder_precisions import EncoderPrecision
from fllm_export.errors import UsageError
from fllm_export.graphs.model_files import publish_model
from fllm_export.graphs.precision import kernel_products
from fllm_export.graphs.quantised_encoder import needs_reduced_range, quantise_encoder
from fllm_export.onnx_session import cpu_session

from .conftest import ExportTiny, make_batch

BATCH = make_batch(6, 12, "right", 40, seed=8)
KINDS = ("bert-mean-linear", "llama-last-mlp", "bert-mean-kernel-normalize")
LEAST_COSINE: dict[EncoderPrecision, float] = {"int8": 0.998, "int4": 0.88}


def vectors(path: Path) -> npt.NDArray[np.float64]:
    feed = dict(zip(("input_ids", "attention_mask"), BATCH, strict=True))
    return np.asarray(cpu_session(path, 1).run(["item_vector"], feed)[0], np.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", LEAST_COSINE)
def test_item_vectors_stay_near(
    export_tiny: ExportTiny, kind: str, precision: EncoderPrecision, tmp_path: Path
) -> None:
    _, path = export_tiny(kind, BATCH)
    whole = onnx.load(path)
    changed, found = quantise_encoder(whole, precision, reduced_range=needs_reduced_range())
    publish_model(ir.from_proto(changed), tmp_path / "cpu.onnx")
    z, near = vectors(path), vectors(tmp_path / "cpu.onnx")
    cosines = (z * near).sum(1) / np.linalg.norm(z, axis=1) / np.linalg.norm(near, axis=1)
    assert LEAST_COSINE[precision] <= cosines.min() < 1
    operators = [node.op_type for node in changed.graph.node]
    assert operators.count("MatMulInteger") == found.matmul_integer
    assert operators.count("MatMulNBits") == found.matmul_nbits
    assert (found.matmul_integer == 0) == (precision == "int4")
    assert found.quantised_bytes < found.weight_bytes


@pytest.mark.parametrize("kind", KINDS)
def test_no_product_keeps_its_weights(export_tiny: ExportTiny, kind: str) -> None:
    whole = onnx.load(export_tiny(kind, BATCH)[1])
    before = whole.SerializeToString()
    changed, found = quantise_encoder(whole, "int8", reduced_range=False)
    assert whole.SerializeToString() == before
    names = {tensor.name: tensor for tensor in changed.graph.initializer}
    for node in changed.graph.node:
        if node.op_type in ("MatMul", "Gemm"):
            assert node.input[1] not in names
    weights = {tensor.name: tensor for tensor in whole.graph.initializer}
    read = {n.input[1] for n in whole.graph.node if n.op_type in ("MatMul", "Gemm") and n.input[1] in weights}
    assert found.weight_bytes == sum(numpy_helper.to_array(weights[name]).nbytes for name in read)
    assert not read & names.keys()


def test_a_kernel_keeps_8_bits(export_tiny: ExportTiny) -> None:
    whole = onnx.load(export_tiny("bert-mean-kernel-normalize", BATCH)[1])
    kernel = kernel_products(whole.graph)
    changed, _ = quantise_encoder(whole, "int4", reduced_range=False)
    bits = {
        node.output[0].removesuffix("_product"): helper.get_attribute_value(attribute)
        for node in changed.graph.node
        for attribute in node.attribute
        if node.op_type == "MatMulNBits" and attribute.name == "bits"
    }
    assert len(kernel) == 2
    assert {name for name, count in bits.items() if count == 8} == kernel
    assert set(bits.values()) == {4, 8}


def product(weights: npt.NDArray[np.float32], **attributes: float) -> onnx.ModelProto:
    """A model of one Gemm."""
    node = helper.make_node("Gemm", ["x", "w"], ["y"], name="gemm", **attributes)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["items", weights.shape[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["items", weights.shape[1]])
    graph = helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(weights, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, x: npt.NDArray[np.float32], folder: Path) -> npt.NDArray[np.float32]:
    onnx.save(model, folder / "model.onnx")
    found: npt.NDArray[np.float32] = cpu_session(folder / "model.onnx", 1).run(["y"], {"x": x})[0]
    return found


@pytest.mark.parametrize("shape", [(48, 64), (300, 40), (7, 9)])
@pytest.mark.parametrize(("precision", "largest"), [("int8", 127), ("int4", 7)])
def test_weights_are_rounded_to_the_nearest(
    shape: tuple[int, int], precision: EncoderPrecision, largest: int, tmp_path: Path
) -> None:
    weights = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    changed, found = quantise_encoder(product(weights), precision, reduced_range=False)
    assert bool(found.matmul_nbits) == (precision == "int4" or shape[0] > shape[1])
    # Unit vectors read the weights one row at a time, and are rounded without an error.
    rows = run(changed, np.eye(shape[0], dtype=np.float32), tmp_path)
    steps = np.abs(weights).max(0) / largest
    assert (np.abs(rows - weights) <= 0.51 * steps + 0.004 * np.abs(weights)).all()


def test_a_reduced_range_has_7_bits() -> None:
    weights = np.random.default_rng(0).standard_normal((48, 64)).astype(np.float32)
    changed, found = quantise_encoder(product(weights), "int8", reduced_range=True)
    codes = next(numpy_helper.to_array(one) for one in changed.graph.initializer if one.data_type == TensorProto.INT8)
    assert found.reduced_range
    assert np.abs(codes).max() == 63


@pytest.mark.parametrize("attributes", [{"alpha": 2.0}, {"transA": 1}])
def test_a_model_without_products_to_quantise_is_refused(attributes: dict[str, float]) -> None:
    model = product(np.ones((8, 8), np.float32), **attributes)
    with pytest.raises(UsageError, match=r"0 bytes of the encoder's weights can be quantised, and 256 bytes cannot"):
        quantise_encoder(model, "int8", reduced_range=False)


@pytest.mark.parametrize(
    ("flags", "reduced"),
    [
        ("flags\t\t: fpu avx2", True),
        ("flags\t\t: fpu avx2 avx_vnni", False),
        ("flags\t\t: avx512f avx512_vnni", False),
        ("Features\t: fp asimd asimddp", False),
    ],
)
def test_the_range_is_reduced_where_sums_of_8_bit_products_overflow(flags: str, reduced: bool, tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\n{flags}\n\nprocessor\t: 1\n{flags}\n")
    assert needs_reduced_range(path) is reduced
