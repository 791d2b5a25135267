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


# The one they are made for; the others are compiled by `make test-cuda`.
@pytest.mark.parametrize(
    "architectures", [("90a",), pytest.param(("80", "86", "89", "120"), marks=pytest.mark.slow)], ids="-".join
)
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
def test_no_kernel_spills(architectures: tuple[str, ...]) -> None:
    command = [sys.executable, ROOT / "engines" / "libfllm" / "cuda" / "compiler_report.py", "--only", *architectures]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for architecture in architectures:
        for kernel in ("scan_one", "scan_one, fp8", "scan_many", "scan_many, fp8", "prune", "prepare", "finish"):
            assert f"| sm_{architecture} | {kernel} |" in done.stdout
    # The documented table is the one that this compiler gives, up to another version's choice of registers.
    assert done.stdout.splitlines()[0] in (ROOT / "docs" / "internals" / "cuda_kernels.md").read_text()


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


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("nvcc") is None or shutil.which("cmake") is None, reason="there is no nvcc or no cmake"
)
def test_the_plugin_is_built_against_headers_alone(tmp_path: Path) -> None:
    library = ROOT / "engines" / "libfllm"
    for folder in ("include", "lib"):
        (tmp_path / "tensorrt" / folder).mkdir(parents=True)
    # Of the library nothing but its name is asked: what links to it is not built.
    (tmp_path / "tensorrt" / "lib" / "libnvinfer.so").touch()
    shutil.copy(library / "plugin" / "emulation" / "NvInferRuntime.h", tmp_path / "tensorrt" / "include")
    options = ["-DFLLM_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=90a", f"-DFLLM_TENSORRT_ROOT={tmp_path / 'tensorrt'}"]
    options.append(f"-DPython_EXECUTABLE={sys.executable}")
    subprocess.run(["cmake", "-S", library, "-B", tmp_path / "build", *options], check=True)
    subprocess.run(["cmake", "--build", tmp_path / "build", "--target", "fllm_plugin"], check=True)
    plugin = ctypes.CDLL(str(tmp_path / "build" / "libfllm_plugin.so"))
    count = ctypes.c_int32()
    plugin.getCreators.restype = ctypes.POINTER(ctypes.c_void_p)
    assert plugin.getCreators(ctypes.byref(count))[0]
    assert count.value == 1
