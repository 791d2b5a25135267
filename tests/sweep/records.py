"""Records that no sweep made, for tests of what is done with them."""

from __future__ import annotations

from typing import Any

from fllm_export.sweep.record import OWN, Conditions, Measured, Record
from fllm_export.sweep.sweep import Sweep

CONDITIONS = Conditions(
    100,
    {"system": "Linux x86_64", "cpu": "a processor", "cpus": 2, "isa": "avx2", "memory_bytes": 1 << 34},
    {"fllm-export": "0.1.0", "libfllm_sha256": "0" * 64, "numpy": "2.0", "onnxruntime": None, "environment": {}},
    {
        "rows": 1_000_000,
        "dim": 128,
        "bias": False,
        "items": 100,
        "rows_sha256": "1" * 64,
        "items_sha256": "2" * 64,
        "others_sha256": None,
        "source": "rows.npy",
        "reference": "the fp32 rows",
        "stored_as": "users create",
    },
)
_AXES = {
    "quant": "int8",
    "dim": 128,
    "sketch": False,
    "cluster": True,
    "engine": "native",
    "threads": 2,
    "exact": True,
    "log_probs": "none",
    "budget_ms": None,
    "batch": 1,
}


def record(point: str = "a", system: str = OWN, **values: Any) -> Record:
    """Return a record; axes and figures that are not given have some value."""
    figures = {
        "recall": 0.99,
        "recall_at_10": 0.995,
        "worst_recall": 0.9,
        "coverage": 1.0,
        "median_ms": 10.0,
        "median_low_ms": 9.0,
        "median_high_ms": 12.0,
        "p99_ms": 20.0,
        "items_per_s": 100.0,
        "runs": 5,
        "calls": 100,
        "build_s": 3.0,
        "bytes_per_user": 140.0,
        "yardstick_ms": 2.0,
        "load": 0.5,
    }
    axes = {**_AXES} if system == OWN else {"batch": 1, "threads": 2, "log_probs": "none"}
    for name, value in values.items():
        (figures if name in figures else axes)[name] = value
    return Record(point, system, axes, Measured(**figures), CONDITIONS.key, "2026-01-02T03:04:05Z")


def sweep_of(*records: Record) -> Sweep:
    """Return a sweep that found some records."""
    return Sweep(CONDITIONS, list(records), {"batch 8 is above 4": 2}, 1.5, 0, 0)
