"""What a figure depends on besides what was measured: the machine, its instruction sets and the software."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
from pathlib import Path
from typing import Any

from fllm_export.compiled import _core
from fllm_export.extras import package_version
from fllm_export.files import sha256_file

_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "FAISS_SIMD_LEVEL")


def machine() -> dict[str, Any]:
    """Return the machine as JSON values; two machines whose values are equal should give equal times."""
    levels = _core.cpu_levels()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "isa": os.environ.get("FLLM_ISA") or levels[-1],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def software() -> dict[str, Any]:
    """Return the versions that times depend on; builds of one version differ in the hash of libfllm."""
    return {
        "fllm-export": package_version("fllm-export"),
        "libfllm_sha256": sha256_file(Path(_core.__file__)),
        "numpy": package_version("numpy"),
        "onnxruntime": package_version("onnxruntime"),
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def load() -> float:
    """Return the load average of the last minute: how quiet the machine is."""
    return round(os.getloadavg()[0], 2)


def cpu_model() -> str:
    """Return the model's name; virtual machines often hide which, so family and model number go with it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    if "model name" not in fields:
        return platform.processor() or platform.machine()
    return f"{fields['model name']} (family {fields.get('cpu family')}, model {fields.get('model')})"


def private_bytes() -> int:
    """Return the resident memory that is no file's: VmRSS less RssFile."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem"))


def settled_private_bytes() -> int:
    """Return the same once what is free has gone back to the system, so that two of them can be compared."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return private_bytes()
