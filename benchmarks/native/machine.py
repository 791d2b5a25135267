"""What a figure depends on: the machine, its instruction sets, the versions, and the memory that a process holds."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fllm_export import _core

PACKAGES = ("fllm-export", "numpy", "onnxruntime", "onnx", "faiss-cpu", "usearch", "numkong", "scann")
_VARIABLES = ("FLLM_ISA", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "FAISS_SIMD_LEVEL")


def describe() -> dict[str, Any]:
    """Return the machine and the software as JSON values."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "isa": _core.cpu_levels(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def load() -> float:
    """Return the load average of the last minute: how quiet the machine is."""
    return round(os.getloadavg()[0], 2)


def private_bytes() -> int:
    """Return the resident memory that is no file's: VmRSS less RssFile."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem"))


def settled_private_bytes() -> int:
    """Return the same once what is free has gone back to the system, so that two of them can be compared."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return private_bytes()


def _cpu_model() -> str:
    """Return the model's name; virtual machines often hide which, so family and model number go with it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    if "model name" not in fields:
        return platform.processor() or platform.machine()
    return f"{fields['model name']} (family {fields.get('cpu family')}, model {fields.get('model')})"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    here = Path(__file__).parent
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or None
