"""Calls of 1 to 128 items on clustered tables with a sketch: processor milliseconds of one thread per call, exact.

python -m benchmarks.sketch_batches WORK [--rows N] [--kind trained ...] [--quant int8 ...]

Rows are those of benchmarks.native.population. Prints a JSON line per table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from benchmarks.native.population import Population
from fllm_export import UserTable

DIM, K, CALLS = 128, 100, 4
ITEMS = (1, 8, 16, 32, 128)


def measure(work: Path, population: Population, quant: str) -> None:
    """Write a table and print the best of some calls for each number of items."""
    z = population.items(max(ITEMS) + 100)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        options = {"quant": quant, "sketch": "yes", "cluster": "yes", "shard_bytes": 64 << 20}
        UserTable.create(Path(folder) / "t", population.chunks(), items=z[-100:], **options)  # type: ignore[arg-type]
        table = UserTable.open(Path(folder) / "t", threads=1)
        found = {}
        for items in ITEMS:
            times = []
            for _ in range(CALLS):
                began = time.process_time()
                table.topk(z[:items], K, log_probs="none")
                times.append(1e3 * (time.process_time() - began))
            found[items] = round(min(times), 2)
    print(json.dumps({"rows": population.name, "quant": quant, "processor_ms": found}), flush=True)


def main() -> None:
    """Measure each kind of rows with each codec."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--kind", nargs="+", default=["trained", "gaussian"])
    parser.add_argument("--quant", nargs="+", default=["fp16", "int4", "int8"])
    given = parser.parse_args()
    for kind in given.kind:
        for quant in given.quant:
            measure(given.work, Population(kind, given.rows, DIM, 0), quant)


if __name__ == "__main__":
    main()
