"""What benchmarks/gpu.py builds and checks by, on the emulated GPU; what it says where there is none."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def gpu() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks" / "gpu.py")))


@pytest.fixture(scope="module")
def library(gpu: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gpu.compile_engine(tmp_path_factory.mktemp("engine"))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn], ids=str)
def test_the_engine_answers_as_defined(
    gpu: SimpleNamespace, library: Path, emulated_gpu: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setenv("FLLM_CUDA_LIBRARY", str(emulated_gpu))
    generator = np.random.default_rng(0)
    codes = torch.from_numpy(generator.integers(-127, 128, (2000, 64))).to(dtype)
    scales = torch.from_numpy(generator.random(2000, np.float32)) * 1e-3
    z = generator.standard_normal((3, 64)).astype(np.float32)
    for gpu_bytes in (0, 300_000):
        engine = gpu.Engine(library, codes, scales, 3, gpu_bytes)
        assert (engine.streamed_bytes > 0) == (gpu_bytes > 0)
        for k in (1, 100):
            expected = gpu.defined(codes, scales, 3, z, k)
            for log_probs in (True, False):
                found = engine.search(z, k, log_probs=log_probs)
                assert gpu.is_as_defined(found, expected, log_probs=log_probs)
            wrong = (expected[0][:, ::-1], *expected[1:])
            assert k == 1 or not gpu.is_as_defined(engine.search(z, k), wrong, log_probs=True)
        engine.close()


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn], ids=str)
def test_as_many_items_as_go_together_answer_as_defined(
    gpu: SimpleNamespace, library: Path, emulated_gpu: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setenv("FLLM_CUDA_LIBRARY", str(emulated_gpu))
    generator = np.random.default_rng(1)
    codes = torch.from_numpy(generator.integers(-127, 128, (1100, 32))).to(dtype)
    scales = torch.from_numpy(generator.random(1100, np.float32)) * 1e-3
    z = generator.standard_normal((128, 32)).astype(np.float32)
    engine = gpu.Engine(library, codes, scales, 4)
    assert gpu.is_as_defined(engine.search(z, 10), gpu.defined(codes, scales, 4, z, 10), log_probs=True)
    engine.close()


def test_without_a_gpu_it_says_so() -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 6
    assert "no GPU" in done.stderr
