"""What ``fllm-export estimate`` says beside what happens: bytes, build time and search time of real tables.

    python benchmarks/planner.py [--rows 1e5 1e6] [--dim 128] [--quant int8] [--sketch auto] [--cluster auto]
                                 [--processor-time]

Each run measures the rates again, builds the table, searches it, and removes it. Planning and building take turns, so
that a busy moment falls on both. Bytes must be equal. Prints one JSON line per run, then a table of the medians of the
ratios planned / real.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fllm_export import UserTable, estimate
from fllm_export.cli.output import columns
from fllm_export.planning.estimate import Plan
from fllm_export.planning.machine import median_seconds
from fllm_export.table.layout import TableLayout

CHUNK_ROWS = 65_536
K = 100
_GOLDEN = 0.618034


class Rows:
    """Chunks of rows, and the seconds that making them took: the plan is about rows that are there."""

    def __init__(self, rows: int, dim: int) -> None:
        self.seconds = 0.0
        self._rows = rows
        self._base = np.random.default_rng(0).standard_normal((min(CHUNK_ROWS, rows), dim), dtype=np.float32)

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, self._rows, CHUNK_ROWS):
            began = time.perf_counter()
            # No two chunks are equal, and their norms come in no order, which would make the best hard to select.
            factor = 1 + (start // CHUNK_ROWS * _GOLDEN) % 1
            chunk = self._base[: self._rows - start] * np.float32(factor)
            self.seconds += time.perf_counter() - began
            yield chunk


def main() -> None:
    """Plan, build and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, nargs="+", default=[1e5, 1e6])
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--quant", nargs="+", default=["int8"])
    parser.add_argument("--sketch", default="auto")
    parser.add_argument("--cluster", default="auto")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 128])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument(
        "--processor-time", action="store_true", help="compare seconds of the processor, not of the wall"
    )
    options = parser.parse_args()
    if options.processor_time:
        # Of the planner's probe too. Waiting for the disk does not enter, nor does other work on a busy machine.
        time.perf_counter = time.process_time
    lines = []
    for quant in options.quant:
        for count in map(int, options.rows):
            table = {"quant": quant, "sketch": options.sketch, "cluster": options.cluster}
            runs = []
            for _ in range(options.runs):
                runs.append(run(count, options.dim, tuple(options.batch), options.folder, table))
                print(json.dumps({"benchmark": "planner", "rows": count, "dim": options.dim, **table, **runs[-1]}))
            lines.append([quant, f"{count:,}", *summary(runs)])
    searches = [f"search, {batch} items" for batch in options.batch]
    print("\n" + columns(["codec", "rows", "bytes", "build, s", "build", *searches], lines, left=1))


def run(rows: int, dim: int, batches: tuple[int, ...], folder: Path, table: Any) -> dict[str, Any]:
    """Plan and build once, and return planned and real numbers."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        made = Path(place) / "users"
        # The dimensions of the sketch are the rows' to decide: the plan is made once they are known, at the end, again.
        before = planned(rows, dim, batches, Path(place), table, None)
        source = Rows(rows, dim)
        began = time.perf_counter()
        users = UserTable.create(made, source, **table)
        built = time.perf_counter() - began - source.seconds
        dims = TableLayout.load(made).sketch_dims or None
        size = sum(path.stat().st_size for path in made.iterdir())
        items = np.random.default_rng(1).standard_normal((max(batches), dim), dtype=np.float32)
        users.topk(items[:1], K)
        real = {batch: median_seconds(lambda z=items[:batch]: users.topk(z, K), least_calls=5) for batch in batches}
        after = planned(rows, dim, batches, Path(place), table, dims)
        if after.bytes["disk"].value != size:
            raise AssertionError(f"the table has {size} bytes; planned were {after.bytes['disk'].value}")
        return {
            "bytes": size,
            "build_s": built,
            "planned_build_s": [plan.seconds["build"].value for plan in (before, after)],
            "search_ms": {batch: 1e3 * seconds for batch, seconds in real.items()},
            "planned_search_ms": {
                batch: [1e3 * plan.scans[i].call.value for plan in (before, after)] for i, batch in enumerate(batches)
            },
        }


def planned(rows: int, dim: int, batches: tuple[int, ...], folder: Path, table: Any, dims: int | None) -> Plan:
    """Return a plan from rates measured now."""
    return estimate(rows, dim, batches=batches, k=K, sketch_dims=dims, folder=folder, **table)


def summary(runs: list[dict[str, Any]]) -> list[str]:
    """Return bytes, seconds and the medians of planned / real over the runs."""
    ratios = [statistics.mean(run["planned_build_s"]) / run["build_s"] for run in runs]
    searches = [
        statistics.median(statistics.mean(run["planned_search_ms"][batch]) / run["search_ms"][batch] for run in runs)
        for batch in runs[0]["search_ms"]
    ]
    real = statistics.median(run["build_s"] for run in runs)
    numbers = [f"{real:.1f}", f"{statistics.median(ratios):.2f}", *(f"{ratio:.2f}" for ratio in searches)]
    return [f"{runs[0]['bytes']:,} (equal)", *numbers]


if __name__ == "__main__":
    main()
