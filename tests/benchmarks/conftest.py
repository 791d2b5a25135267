"""What the GPU tests build, for the emulated GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # benchmarks is not installed


@pytest.fixture(scope="session")
def gpu_suite(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A dry run of ``make test-gpu`` without its slowest stage: its folder, its exit status and what it printed."""
    pytest.importorskip("torch")
    if shutil.which("g++") is None:
        pytest.skip("there is no g++ to build the emulated GPU with")
    out = tmp_path_factory.mktemp("gpu")
    stages = ["build", "cuda_kernels_test", "cuda_scan_many_test", "cases", "memcheck-cuda_kernels_test"]
    command = [sys.executable, "-m", "benchmarks.gpu.suite", "--emulated", "--out", str(out), "--only", *stages]
    compiler = "ccache g++" if shutil.which("ccache") else "g++"
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "CXX": compiler}, check=False
    )
    return SimpleNamespace(out=out, status=done.returncode, text=done.stdout + done.stderr)
