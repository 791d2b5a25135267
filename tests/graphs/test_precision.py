"""The encoder in lower precision computes what the float32 one does, within what the precision allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

from fllm_export.calibration.activations import activation_peaks
from fllm_export.errors import UsageError
from fllm_export.graphs.precision import lower_precision, quantised_inputs
from fllm_export.graphs.precision_names import Precision

from .conftest import ExportTiny, make_batch

BATCHES = [make_batch(3, 9, "left", 40), make_batch(1, 17, "none", 40, seed=1)]


@pytest.fixture(scope="module", params=["bert-mean-linear", "llama-last-linear"])
def exported(request: pytest.FixtureRequest, export_tiny: ExportTiny) -> Path:
    return export_tiny(request.param, BATCHES[0])[1]


def vectors(model: bytes) -> npt.NDArray[np.float64]:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    found = [session.run(None, {"input_ids": ids, "attention_mask": mask})[0] for ids, mask in BATCHES]
    return np.concatenate(found).astype(np.float64)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 2e-3), ("fp8", 0.15)])
def test_equals_float32_within_the_precision(exported: Path, precision: Precision, tolerance: float) -> None:
    model = onnx.load(exported)
    peaks = activation_peaks(exported, quantised_inputs(model), BATCHES, 1)
    lowered = lower_precision(model, precision, peaks)
    onnx.checker.check_model(lowered, full_check=True)
    expected, found = vectors(exported.read_bytes()), vectors(lowered.SerializeToString())
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 0 < error < tolerance


@pytest.mark.parametrize(
    ("precision", "stored"),
    [("fp16", TensorProto.FLOAT16), ("bf16", TensorProto.BFLOAT16), ("fp8", TensorProto.FLOAT8E4M3FN)],
)
def test_weights_are_stored_in_the_precision(exported: Path, precision: Precision, stored: int) -> None:
    model = onnx.load(exported)
    before = model.SerializeToString()
    lowered = lower_precision(model, precision, dict.fromkeys(quantised_inputs(model), 1.0))
    assert model.SerializeToString() == before, "the model that was given has changed"
    large = [tensor for tensor in lowered.graph.initializer if len(tensor.dims) == 2 and min(tensor.dims) >= 16]
    assert sum(tensor.data_type == stored for tensor in large) >= len(quantised_inputs(model)) // 3
    onnx.checker.check_model(lowered, full_check=True)


def test_peaks_are_those_of_the_texts(exported: Path) -> None:
    model = onnx.load(exported)
    names = quantised_inputs(model)
    both = activation_peaks(exported, names, BATCHES, 1)
    single = [activation_peaks(exported, names, [batch], 1) for batch in BATCHES]
    assert both == {name: max(one[name] for one in single) for name in names}
    assert min(both.values()) > 0
    assert [path.name for path in exported.parent.iterdir()] == ["model.onnx"]


def test_senseless_requests_are_refused(exported: Path) -> None:
    model = onnx.load(exported)
    with pytest.raises(UsageError, match="the precision is 'int3'"):
        lower_precision(model, "int3")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"the tensor \S+ has no peak; expected"):
        lower_precision(model, "fp8", {})
