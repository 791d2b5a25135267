"""The CUDA kernels compile for every architecture, none of them spills, and the library stands by itself."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fllm_export

ROOT = Path(__file__).parents[2]


# The GPU that they are made for; `make test-cuda` compiles them for all.
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
def test_no_kernel_spills() -> None:
    command = [sys.executable, ROOT / "engines" / "libfllm" / "cuda" / "compiler_report.py", "--only", "90a"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for kernel in ("scan_one", "scan_one, fp8", "scan_many", "scan_many, fp8", "prune"):
        assert f"| sm_90a | {kernel} |" in done.stdout


@pytest.mark.skipif(
    shutil.which("nvcc") is None or shutil.which("cmake") is None, reason="there is no nvcc or no cmake"
)
def test_the_library_is_built_and_neither_it_nor_libfllm_needs_cuda_to_be_loaded(tmp_path: Path) -> None:
    options = ["-DFLLM_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=90a", f"-DPython_EXECUTABLE={sys.executable}"]
    subprocess.run(["cmake", "-S", ROOT / "engines" / "libfllm", "-B", tmp_path, *options], check=True)
    subprocess.run(["cmake", "--build", tmp_path, "--target", "fllm_cuda"], check=True)
    driver = ctypes.CDLL(str(tmp_path / "libfllm_cuda.so"))
    driver.fllm_cuda_driver.restype = ctypes.c_void_p
    assert driver.fllm_cuda_driver()
    libfllm = Path(fllm_export.__file__).parent / "lib" / "libfllm.so"
    libraries = [tmp_path / "libfllm_cuda.so", *([libfllm] if libfllm.exists() else [])]
    for library in libraries:
        needed = subprocess.run(["ldd", library], capture_output=True, text=True, check=True).stdout
        assert "cuda" not in needed.replace(str(library), "")
