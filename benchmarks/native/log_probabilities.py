"""Log-probabilities beside the same search without them: processor time, and the errors of estimates.

python -m benchmarks.native.log_probabilities WORK [--rows N] [--kind trained]

Rows are those of benchmarks.native.population, in a default table that stays in WORK. Prints JSON lines. Times are
milliseconds of the processor, all threads together, in rounds in which the modes take turns: `ratio` is the median over
the rounds of a mode's time by that of the search without log-probabilities. Item vectors are also taken 3 and 10 times
as long, which makes the distributions steeper.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.native.population import F32, PROFILES, Population
from benchmarks.native.timing import Times
from fllm_export import UserTable
from fllm_export.engines.names import LOG_PROBS, LogProbs

DIM, K, ITEMS, LENGTHS = 128, 100, (1, 8, 128), (1.0, 3.0, 10.0)
WITHOUT: LogProbs = "none"


def opened(work: Path, population: Population, threads: int) -> UserTable:
    """Return the population's default table, written where it is not there yet."""
    directory = work / population.name
    if not directory.exists():
        UserTable.create(directory, population.chunks())
    return UserTable.open(directory, threads=threads)


def processor_ms(call: Callable[[], object]) -> float:
    """Return the processor time of a call, of all threads."""
    began = time.process_time()
    call()
    return (time.process_time() - began) * 1e3


def times(table: UserTable, z: F32, rounds: int) -> dict[str, Times]:
    """Time one call of each mode per round, after one round that does not count; z is float32 [rounds, B, d].

    A search that reads every row leaves the caches cold for the next one, so each mode is preceded by an untimed search
    without log-probabilities for other items.
    """
    kept: dict[str, list[float]] = {mode: [] for mode in LOG_PROBS}
    for number in range(-1, rounds):
        for mode in LOG_PROBS:
            items = z[max(number, 0)]
            table.topk(z[number - 1], K, log_probs=WITHOUT)
            ms = processor_ms(lambda items=items, mode=mode: table.topk(items, K, log_probs=mode))
            if number >= 0:
                kept[mode].append(ms)
    return {mode: Times(tuple(ms)) for mode, ms in kept.items()}


def timed(table: UserTable, z: F32, items: int, length: float, rounds: int) -> dict[str, Any]:
    """Return the times of each mode for so many items at once."""
    chosen = np.stack([np.roll(z, -turn * items, axis=0)[:items] for turn in range(rounds)]) * np.float32(length)
    found = times(table, chosen, rounds)
    ratios = {mode: round(1 / ms.times_as_fast_as(found[WITHOUT]), 2) for mode, ms in found.items()}
    medians = {mode: round(ms.median, 2) for mode, ms in found.items()}
    return {"items": items, "length": length, "processor_ms": medians, "ratio": ratios}


def errors(table: UserTable, z: F32, length: float) -> dict[str, Any]:
    """Return how far estimates and certified answers are from the exact logsumexp, and what they told."""
    found: dict[str, Any] = {"items": len(z), "length": length}
    exact = table.topk(z * np.float32(length), K)
    found["logsumexp_above_uniform"] = round(float(np.median(exact.logsumexp)) - float(np.log(len(table))), 2)
    modes: tuple[LogProbs, ...] = ("estimate", "certified")
    for mode in modes:
        answer = table.topk(z * np.float32(length), K, log_probs=mode)
        off, told = np.abs(answer.logsumexp - exact.logsumexp), answer.log_prob_error
        found[mode] = {
            "error_median": float(f"{np.median(off):.2g}"),
            "error_max": float(f"{off.max():.2g}"),
            "told_median": float(f"{np.median(told):.2g}"),
            "told_max": float(f"{told.max():.2g}"),
            "within_told": round(float((off <= told).mean()), 4),
            "certified": round(float(answer.log_probs_certified.mean()), 4),
        }
    return found


def main() -> None:
    """Measure times, then errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rows", type=int, default=8_000_000)
    parser.add_argument("--kind", choices=("trained", "gaussian", *PROFILES), default="trained")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9, help="of one item; fewer of many")
    parser.add_argument("--sample", type=int, default=256, help="items whose errors are measured")
    given = parser.parse_args()
    population = Population(given.kind, given.rows, DIM, 0)
    table = opened(given.work, population, given.threads)
    z = population.items(given.sample)
    for length in LENGTHS:
        for items in ITEMS:
            rounds = given.rounds if items < max(ITEMS) else max(1, given.rounds // 3)
            found = timed(table, z, items, length, rounds)
            print(json.dumps({"rows": population.name, "case": "time", **found}), flush=True)
        print(json.dumps({"rows": population.name, "case": "error", **errors(table, z, length)}), flush=True)


if __name__ == "__main__":
    main()
