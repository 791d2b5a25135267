"""What encodes is what was asked for, or an error says why not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from fllm_export import HardwareError
from fllm_export.onnx_session import cuda_session
from fllm_export.runtime.item_model import encoder_name

CUDA = "CUDAExecutionProvider"


def test_an_onnx_runtime_without_gpus_is_told() -> None:
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime knows GPUs")
    with pytest.raises(HardwareError, match=r"has no CUDAExecutionProvider.*pip install 'fllm-export\[gpu\]'"):
        cuda_session(Path("model.onnx"))


@pytest.mark.parametrize("starts", [False, True])
def test_no_cpu_is_taken_where_the_gpu_does_not_start(monkeypatch: pytest.MonkeyPatch, starts: bool) -> None:
    said: list[Any] = []

    def session(model: str, options: Any, providers: list[str]) -> Any:
        said.append(providers)
        found = [CUDA, "CPUExecutionProvider"] if starts else ["CPUExecutionProvider"]
        return SimpleNamespace(get_providers=lambda: found, disable_fallback=lambda: said.append("no fallback"))

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    if starts:
        cuda_session(Path("model.onnx"))
        assert said == [[CUDA], "no fallback"]
        return
    with pytest.raises(HardwareError, match="does not start; expected a GPU, its driver"):
        cuda_session(Path("model.onnx"))


def test_a_plan_encodes_beside_the_engine_of_plans_alone() -> None:
    assert [encoder_name(None, engine) for engine in ("native", "cuda", "tensorrt")] == ["cpu", "cpu", "tensorrt"]
