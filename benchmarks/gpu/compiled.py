"""What is compiled for the GPU at hand, straight by nvcc and a C++ compiler: no CMake, and no headers but our own.

python3 -m benchmarks.gpu.compiled FOLDER [--emulated]
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.gpu.facts import capability

ROOT = Path(__file__).resolve().parents[2]
LIBFLLM = ROOT / "engines" / "libfllm"
KERNEL_TESTS = ("cuda_kernels_test", "cuda_scan_many_test")

_FLAGS = ["-std=c++20", "-O2", "-fPIC", "-ffp-contract=off", "-pthread"]
_FLAGS += [f"-I{LIBFLLM}", f"-I{LIBFLLM / 'src'}", f"-I{LIBFLLM / 'include'}"]
_HOST = ["status", "portable_log", "machine/companion", "machine/environment", "machine/fork"]


def compile_engine(folder: Path) -> Path:
    """Build the host's side of the engine, without what reads files; return the library."""
    sources = [Path(__file__).with_name("engine.cpp"), *sorted((LIBFLLM / "cuda" / "host").glob("*.cpp"))]
    parts = [*_HOST, "machine/pool", "search/query", "search/engine"]
    library = folder / "libgpu_engine.so"
    _compile([*_cxx(), *_FLAGS, "-shared", *sources, *_sources(parts), "-o", library, "-ldl"])
    return library


def compile_driver(folder: Path, *, emulated: bool = False) -> Path:
    """Build the kernels for the GPU at hand, or for its emulation; return the library."""
    library = folder / "libfllm_cuda.so"
    if emulated:
        _compile([*_cxx(), *_FLAGS, "-shared", LIBFLLM / "cuda" / "emulation" / "driver.cpp", "-o", library])
        return library
    target = capability().replace(".", "")
    target += "a" if target.startswith("9") else ""
    code = f"-gencode=arch=compute_{target},code=sm_{target}"
    flags = ["-std=c++20", "-O3", "-shared", "-lineinfo", "-Xcompiler", "-fPIC", f"-I{LIBFLLM}", code]
    _compile(["nvcc", *flags, LIBFLLM / "cuda" / "driver.cu", "-o", library])
    return library


def compile_kernel_test(folder: Path, name: str) -> Path:
    """Build a test of the kernels, which loads the driver that ``FLLM_CUDA_LIBRARY`` names."""
    program = folder / name
    host = [LIBFLLM / "cuda" / "host" / f"{part}.cpp" for part in ("device", "library")]
    sources = [LIBFLLM / "tests" / f"{name}.cpp", *host, *_sources([*_HOST, "search/gumbel"])]
    _compile([*_cxx(), *_FLAGS, *sources, "-o", program, "-ldl"])
    return program


def compile_all(folder: Path, *, emulated: bool) -> None:
    """Build everything, side by side.

    Raises:
        subprocess.CalledProcessError: a compiler failed; it has said why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        builds = [pool.submit(compile_driver, folder, emulated=emulated), pool.submit(compile_engine, folder)]
        builds += [pool.submit(compile_kernel_test, folder, name) for name in KERNEL_TESTS]
        for build in builds:
            build.result()


def _sources(parts: list[str]) -> list[Path]:
    return [LIBFLLM / "src" / f"{part}.cpp" for part in parts]


def _cxx() -> list[str]:
    return shlex.split(os.environ.get("CXX", "g++"))


def _compile(command: list[str | Path]) -> None:
    subprocess.run(command, check=True)


def main() -> int:
    """Build into a folder; exit 1 where a compiler fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--emulated", action="store_true", help="for the emulated GPU")
    arguments = parser.parse_args()
    try:
        compile_all(arguments.folder, emulated=arguments.emulated)
    except subprocess.CalledProcessError as error:
        print(f"{error.cmd[0]} failed", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
