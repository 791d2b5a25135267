"""What a figure depends on: the machine, its instruction sets, the versions, and the memory that a process holds."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from fllm_export.compiled import _core
from fllm_export.extras import package_version
from fllm_export.sweep.machine import cpu_model, load, private_bytes, settled_private_bytes

__all__ = ["PACKAGES", "describe", "load", "private_bytes", "settled_private_bytes"]

PACKAGES = ("fllm-export", "numpy", "onnxruntime", "onnx", "faiss-cpu", "usearch", "numkong", "scann")
_VARIABLES = ("FLLM_ISA", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "FAISS_SIMD_LEVEL")


def describe() -> dict[str, Any]:
    """Return the machine and the software as JSON values."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "isa": _core.cpu_levels(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in PACKAGES},
        "commit": _commit(),
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def _commit() -> str | None:
    here = Path(__file__).parent
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or None
