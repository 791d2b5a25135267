"""What benchmarks/gpu builds and checks by, on the emulated GPU; what it says where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from benchmarks.gpu.codecs import CODECS
from benchmarks.gpu.definition import defined, is_as_defined
from benchmarks.gpu.engine import Engine

ROOT = Path(__file__).parents[2]


@pytest.fixture
def library(gpu_suite: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Path:
    assert gpu_suite.status == 0, gpu_suite.text
    monkeypatch.setenv("FLLM_CUDA_LIBRARY", str(gpu_suite.out / "libfllm_cuda.so"))
    return Path(gpu_suite.out / "libgpu_engine.so")


@pytest.mark.parametrize("codec", CODECS)
def test_the_engine_answers_as_defined(library: Path, codec: str) -> None:
    generator = np.random.default_rng(0)
    codes = CODECS[codec].random(2001, 64, torch.Generator().manual_seed(0))
    scales = torch.from_numpy(generator.random(2001, np.float32)) * 1e-3
    z = generator.standard_normal((3, 64)).astype(np.float32)
    for gpu_bytes in (0, 120_000):
        engine = Engine(library, CODECS[codec], codes, scales, 3, gpu_bytes)
        assert (engine.streamed_bytes > 0) == (gpu_bytes > 0)
        for k in (1, 100):
            expected = defined(codes, scales, 3, z, k)
            for log_probs in (True, False):
                found = engine.search(z, k, log_probs=log_probs)
                assert is_as_defined(found, expected, log_probs=log_probs)
            wrong = (expected[0][:, ::-1], *expected[1:])
            assert k == 1 or not is_as_defined(engine.search(z, k), wrong, log_probs=True)
        engine.close()


@pytest.mark.parametrize("codec", CODECS)
def test_as_many_items_as_go_together_answer_as_defined(library: Path, codec: str) -> None:
    generator = np.random.default_rng(1)
    codes = CODECS[codec].random(1100, 32, torch.Generator().manual_seed(1))
    scales = torch.from_numpy(generator.random(1100, np.float32)) * 1e-3
    z = generator.standard_normal((128, 32)).astype(np.float32)
    engine = Engine(library, CODECS[codec], codes, scales, 4)
    assert is_as_defined(engine.search(z, 10), defined(codes, scales, 4, z, 10), log_probs=True)
    engine.close()


def test_without_a_gpu_it_says_so() -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "benchmarks.gpu"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    assert done.returncode == 6
    assert "no GPU" in done.stderr
