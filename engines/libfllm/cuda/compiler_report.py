"""Registers, shared memory and spills of every CUDA kernel on every architecture, as the compiler reports them.

    python engines/libfllm/cuda/compiler_report.py [--nvcc NVCC] [--only ARCHITECTURE ...]

Prints a Markdown table; exit 1 when a kernel spills registers or has a stack frame, 6 without a compiler.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

ARCHITECTURES = ("80", "86", "89", "90a", "120")
LIBRARY = Path(__file__).parents[1]
SOURCE = LIBRARY / "cuda" / "driver.cu"
FIGURES = ("registers", "shared", "stack", "stores", "loads")

_KERNEL = re.compile(
    r"entry function '_ZN4fllm4cuda(?P<length>\d+)(?P<name>\w+)'.*?(?P<stack>\d+) bytes stack frame, "
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers"
    r"(?:.*?, (?P<shared>\d+) bytes smem)?"
)
_BY_BYTES = re.compile(r"RowsELj\d+ELb0E")
_PLANES = re.compile(r"Plane(?:Rows|Chunks)ILj(\d)E")
_CODECS_OF_PLANES = {"1": "int2", "2": "int4row"}


def report(nvcc: str, architecture: str) -> dict[str, list[dict[str, int]]]:
    """Compile for one architecture and return the figures of each form of a kernel."""
    with tempfile.TemporaryDirectory() as folder:
        target = f"-gencode=arch=compute_{architecture},code=sm_{architecture}"
        command = [nvcc, "-std=c++20", f"-I{LIBRARY}", "-Xptxas", "-v", target, "-c", str(SOURCE)]
        done = subprocess.run([*command, "-o", f"{folder}/kernels.o"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    kernels: dict[str, list[dict[str, int]]] = {}
    for block in done.stderr.split("ptxas info    : Compiling")[1:]:
        found = _KERNEL.search(block.replace("\n", " "))
        if found is None:
            sys.exit(f"cannot read the compiler's report: {block}")
        name = found["name"][: int(found["length"])]
        name += ", fp8" if "Fp8" in found["name"] else ""
        planes = _PLANES.search(found["name"])
        name += f", {_CODECS_OF_PLANES[planes[1]]}" if planes else ""
        name += ", rows of odd lengths" if _BY_BYTES.search(found["name"]) else ""
        kernels.setdefault(name, []).append({figure: int(found[figure] or 0) for figure in FIGURES})
    return kernels


def main() -> int:
    """Print a line for each kernel and architecture: the most that any of its forms takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nvcc", default="nvcc")
    parser.add_argument("--only", nargs="+", choices=ARCHITECTURES, default=ARCHITECTURES, metavar="ARCHITECTURE")
    arguments = parser.parse_args()
    if shutil.which(arguments.nvcc) is None:
        sys.stderr.write(f"there is no {arguments.nvcc}; install the CUDA toolkit, or name its compiler by --nvcc\n")
        return 6
    lines = ["| GPU | kernel | forms | registers | shared memory | stack | spills |", "| --- " * 7 + "|"]
    clean = True
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        reports = list(threads.map(partial(report, arguments.nvcc), arguments.only))
    for architecture, kernels in zip(arguments.only, reports, strict=True):
        for name, forms in sorted(kernels.items()):
            registers, shared, stack, stores, loads = (max(form[figure] for form in forms) for figure in FIGURES)
            cells = [
                f"sm_{architecture}",
                name,
                len(forms),
                registers,
                f"{shared} B",
                f"{stack} B",
                f"{stores + loads} B",
            ]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
            clean = clean and not (stack or stores or loads)
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
