"""Samples with each link, beside the search for the best users: processor time of one item at a time.

python -m benchmarks.native.sampling WORK [--rows N] [--kind trained]

Rows are those of benchmarks.native.population, in a default table that stays in WORK; the table with a power as its
link consists of the same files. Prints a JSON line per link. Times are milliseconds of the processor per call of one
item and K = 100, all threads together, the least of --rounds calls; the modes and the links take turns.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.native.log_probabilities import processor_ms
from benchmarks.native.population import PROFILES, Population
from fllm_export import UserTable
from fllm_export.link import Link
from fllm_export.table.layout import TableLayout

DIM, K = 128, 100


def linked(directory: Path, exponent: int) -> Path:
    """Return a table of the same files as another, with a link of that exponent."""
    other = directory.with_name(f"{directory.name}-power-{exponent}")
    if not other.exists():
        other.mkdir()
        for path in directory.iterdir():
            os.link(path, other / path.name)
        (other / "table.json").unlink()
        replace(TableLayout.load(directory), link=Link(exponent)).save(other)
    return other


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kind", choices=("trained", "gaussian", *PROFILES), default="trained")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    given = parser.parse_args()
    population = Population(given.kind, given.rows, DIM, 0)
    directory = given.work / population.name
    if not directory.exists():
        UserTable.create(directory, population.chunks())
    tables = {
        exponent: UserTable.open(linked(directory, exponent) if exponent else directory, threads=given.threads)
        for exponent in (0, 1, 3)
    }
    z = population.items(given.rounds)
    kept: dict[int, dict[str, float]] = {exponent: {} for exponent in tables}
    for number in range(given.rounds):
        for exponent, table in tables.items():
            ask = partial(table.topk, z[number : number + 1], K)
            calls = {
                "sample": partial(ask, mode="sample", seed=number, log_probs="none"),
                "sample, exact log-probabilities": partial(ask, mode="sample", seed=number, log_probs="exact"),
                "top-100, exact log-probabilities": partial(ask, log_probs="exact"),
            }
            for name, call in calls.items():
                ms = processor_ms(call)
                kept[exponent][name] = min(ms, kept[exponent].get(name, ms))
    for exponent, found in kept.items():
        times = {name: round(ms, 2) for name, ms in found.items()}
        print(json.dumps({"rows": population.name, "link": str(Link(exponent)), "processor_ms": times}), flush=True)


if __name__ == "__main__":
    main()
