"""Around the exponential of a kernel, lower precision stops: its last layer would multiply the rounding errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto

from fllm_export.calibration.activations import activation_peaks
from fllm_export.checkpoint.adapted import torch_mapper
from fllm_export.checkpoint.features import unit_vectors
from fllm_export.checkpoint.mapper import Mapper
from fllm_export.checkpoint.model import ItemEncoder
from fllm_export.graphs import precision as lowering
from fllm_export.graphs.encoder import export_encoder
from fllm_export.graphs.precision import kernel_products, lower_precision, quantised_inputs
from fllm_export.graphs.precision_names import Precision

from .conftest import ExportTiny, MakeEncoder, make_batch

LANDMARKS, ITEMS = 48, 30


def nystrom(landmarks: npt.NDArray[np.float32], g: float) -> Mapper:
    """Return the features K^(-1/2) k(L, x) of unit landmarks [m, h]."""
    wide = landmarks.astype(np.float64)
    sizes, directions = np.linalg.eigh(np.exp(g * (wide @ wide.T - 1)))
    root = (directions / np.sqrt(np.maximum(sizes, 1e-3 * sizes[-1]))) @ directions.T
    m = len(wide)
    return Mapper("kernel", {"0.weight": g * wide, "0.bias": np.full(m, -g), "2.weight": root, "2.bias": np.zeros(m)})


@pytest.fixture(scope="module")
def kernel(make_encoder: MakeEncoder, tiny_bert_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder whose mapper holds the features of a kernel between vectors of its own."""
    bare = make_encoder(tiny_bert_dir, "mean", "identity")
    ids, mask = (torch.from_numpy(array) for array in make_batch(LANDMARKS, 9, "right", 40, seed=5))
    with torch.inference_mode():
        landmarks = unit_vectors(bare(ids, mask).numpy())
    encoder = ItemEncoder(bare.encoder, "mean", torch_mapper(nystrom(landmarks, 2.0))).eval()
    path = tmp_path_factory.mktemp("kernel") / "model.onnx"
    export_encoder(encoder, path, example=make_batch(2, 7, "left", 40))
    return path


BATCH = make_batch(ITEMS, 12, "right", 40, seed=8)


def vectors(model: onnx.ModelProto) -> npt.NDArray[np.float64]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, dict(zip(("input_ids", "attention_mask"), BATCH, strict=True)))[0]
    return np.asarray(found, np.float64)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 2e-3), ("fp8", 0.15)])
def test_what_float32_around_the_exponential_is_worth(
    kernel: Path, precision: Precision, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(kernel)
    expected = vectors(model)

    def error() -> float:
        peaks = activation_peaks(kernel, quantised_inputs(model), [BATCH], 1)
        found = vectors(lower_precision(model, precision, peaks))
        return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))

    kept = error()
    assert 0 < kept < tolerance
    monkeypatch.setattr(lowering, "kernel_products", lambda graph: set())
    assert error() > 2 * kept


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp8"])
def test_only_the_kernel_s_products_stay(export_tiny: ExportTiny, precision: Precision) -> None:
    _, path = export_tiny("llama-last-kernel-tanh-normalize", BATCH)
    model = onnx.load(path)
    assert len(kernel_products(model.graph)) == 2
    quantised = quantised_inputs(model)
    lowered = lower_precision(model, precision, dict.fromkeys(quantised, 1.0))
    onnx.checker.check_model(lowered, full_check=True)
    stored = {tensor.name: tensor.data_type for tensor in lowered.graph.initializer}
    for name in ("mapper.0.weight", "mapper.0.bias", "mapper.2.weight", "mapper.2.bias"):
        assert stored[name] == TensorProto.FLOAT
    assert "features.0.weight" not in stored, "a dense step is a product of the encoder like any other"
    around: dict[str, Any] = {node.output[0]: node for node in lowered.graph.node}
    (power,) = [node for node in lowered.graph.node if node.op_type == "Exp"]
    first = around[power.input[0]]
    (second,) = [node for node in lowered.graph.node if power.output[0] in node.input]
    assert (first.op_type, second.op_type) == ("Gemm", "Gemm")
    assert list(first.input[1:]) == ["mapper.0.weight", "mapper.0.bias"]
    assert list(second.input[1:]) == ["mapper.2.weight", "mapper.2.bias"]


def test_no_other_mapper_keeps_a_product(export_tiny: ExportTiny) -> None:
    _, path = export_tiny("llama-last-mlp", BATCH)
    assert kernel_products(onnx.load(path).graph) == set()
