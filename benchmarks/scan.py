"""The scan of a large table by each engine, beside a plain fp32 NumPy scan of the same rows in the same run.

    python benchmarks/scan.py [--users 1000000] [--dim 128] [--threads 2] [--quant int8]

Equality with the NumPy engine is asserted before anything is timed. Prints one JSON line a case, then a table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

from fllm_export import UserTable
from fllm_export.cli.output import columns
from fllm_export.graphs.heads import bundle_heads

K = 100
REPEATS = 9


def main() -> None:
    """Make a table, check, time and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quant", default="int8")
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((options.users, options.dim), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        table = make(Path(folder), rows, options.quant, options.threads)
        reference = UserTable.open(Path(folder) / "users", engine="numpy")
        lines = []
        for batch in (1, 8, 32):
            z = generator.standard_normal((batch, options.dim), dtype=np.float32)
            np.testing.assert_array_equal(table.topk(z, K).user_ids, reference.topk(z, K).user_ids)
            ours, plain = paired(lambda z=z: table.topk(z, K), lambda z=z: plain_scan(z, rows))
            ratio = float(np.median(np.array(plain) / np.array(ours)))
            case = {
                "quant": options.quant,
                "batch": batch,
                "onnxruntime_ms": np.median(ours),
                "plain_ms": np.median(plain),
            }
            print(json.dumps({"benchmark": "scan", "users": options.users, "dim": options.dim, **case, "ratio": ratio}))
            lines.append([str(batch), f"{np.median(ours):.1f}", f"{np.median(plain):.1f}", f"{ratio:.2f}"])
    print("\n" + columns(["batch", f"{options.quant}, ms", "plain fp32, ms", "times as fast"], lines))


def make(folder: Path, rows: np.ndarray, quant: str, threads: int) -> UserTable:
    """Write the table beside its head graph and open it with ONNX Runtime."""
    (folder / "head").mkdir()
    onnx.save(bundle_heads(quant, rows.shape[1], bias=False)["tile"], folder / "head" / "tile.onnx")
    UserTable.create(folder / "users", rows, quant=quant)
    return UserTable.open(folder / "users", engine="onnxruntime", threads=threads, head=folder / "head")


def paired(first: Callable[[], object], second: Callable[[], object]) -> tuple[list[float], list[float]]:
    """Time two calls in turn, after one warm-up each, and return the milliseconds of both."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(REPEATS + 1):
        for call, kept in zip((first, second), times, strict=True):
            began = time.perf_counter()
            call()
            if repeat:
                kept.append((time.perf_counter() - began) * 1e3)
    return times


def plain_scan(z: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the top-K of all scores, unordered."""
    scores = z @ rows.T
    return np.argpartition(scores, -K, axis=1)[:, -K:]


if __name__ == "__main__":
    main()
