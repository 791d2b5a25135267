"""Row updates per second when interactions change users, beside what the machine can read and add.

    python benchmarks/learning.py FOLDER [--dim 1024] [--items 20000] [--users 32768] [--repeats 5] [--json]

FOLDER is on the disk to be measured; the tables in it are removed at the end. For each number of items per user:

  rule_rows_per_s   rows of users from their items, as the learner makes them
  read_rows_per_s   the same bytes, read one after the other from the same vectors
  add_rows_per_s    the same number of float64 additions, on numbers that stay in a core's own cache
  new_rows_per_s    the durable call that learns new users with so many items
  more_rows_per_s   the durable call that then learns one more interaction of each of them

The two yardsticks run on the same number of threads and in turn with the rule, so that a busy machine disturbs all
three alike. All numbers are medians. Each is given twice: by the clock, and by processor time, as rule_rows_per_cpu_s
and so on. That is what the threads would do in a second of their own, without other processes; of a call that runs
partly on one thread it is more than the clock will show. Items are drawn evenly, which is the worst case for caches.
The rule can exceed the rate of reading, because it reads vectors from the cache again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export import UserTable
from fllm_export.environment import default_threads
from fllm_export.table.learner import Learner
from fllm_export.table.learning import Pairs
from fllm_export.table.living import LivingTable

ITEMS_PER_USER = (1, 5, 10, 25, 50)
CACHED_NUMBERS, ADD_REPEATS = 1 << 14, 200
USERS_AT_ONCE = 1 << 14  # as the durable call makes them
OTHER_USER = 10**9

I32 = npt.NDArray[np.int32]


class Rates:
    """Rows per second by name, by the clock and by processor time."""

    def __init__(self) -> None:
        self._found: dict[str, list[float]] = {}

    def time(self, name: str, rows: float, work: Callable[[], object]) -> None:
        """Time a call that makes so many rows."""
        began, used = time.perf_counter(), time.process_time()
        work()
        used, took = time.process_time() - used, time.perf_counter() - began
        self._found.setdefault(f"{name}_rows_per_s", []).append(rows / took)
        self._found.setdefault(f"{name}_rows_per_cpu_s", []).append(rows / used * default_threads())

    def medians(self) -> dict[str, int]:
        """Return the medians."""
        return {name: round(statistics.median(rates)) for name, rates in self._found.items()}


def read_everything(learner: Learner, pool: ThreadPoolExecutor, threads: int) -> None:
    """Read all vectors once, each thread a part."""
    parts = np.array_split(learner.contributions.reshape(-1).view(np.int64), threads)
    list(pool.map(np.max, parts))


def add_in_cache(pool: ThreadPoolExecutor, threads: int) -> None:
    """Add as many float64 numbers on every thread."""

    def add(_: int) -> None:
        sums, numbers = np.zeros(CACHED_NUMBERS), np.ones(CACHED_NUMBERS)
        for _ in range(ADD_REPEATS):
            np.add(sums, numbers, out=sums)

    list(pool.map(add, range(threads)))


def make_rows(learner: Learner, items: I32, per_user: int) -> None:
    """Make the rows of users who have so many items each."""
    starts = np.arange(0, len(items) + 1, per_user)
    for first in range(0, len(starts) - 1, USERS_AT_ONCE):
        begins = starts[first : first + USERS_AT_ONCE + 1]
        learner.rows(begins - begins[0], items[begins[0] : begins[-1]])


def rule(learner: Learner, items: I32, per_user: int, repeats: int) -> dict[str, int]:
    """Measure the rule and the yardsticks by turns."""
    threads, rates = default_threads(), Rates()
    numbers = per_user * learner.dim
    read = learner.contributions.size / numbers
    added = threads * ADD_REPEATS * CACHED_NUMBERS / numbers
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(repeats):
            rates.time("rule", len(items) // per_user, lambda: make_rows(learner, items, per_user))
            rates.time("read", read, lambda: read_everything(learner, pool, threads))
            rates.time("add", added, lambda: add_in_cache(pool, threads))
    return rates.medians()


def durable(folder: Path, learner: Learner, sets: tuple[Pairs, Pairs], repeats: int) -> dict[str, int]:
    """Measure calls that learn new users, and one more interaction of each."""
    rates = Rates()
    for _ in range(repeats):
        options = {"quant": "int8", "sketch": "no", "cluster": "no"}
        UserTable.create(folder / "table", np.ones((1, learner.dim), np.float32), [OTHER_USER], **options)
        table = LivingTable(folder / "table")
        for name, pairs in zip(("new", "more"), sets, strict=True):
            rates.time(name, len(pairs.users), partial(table.learn, pairs, learner))
        shutil.rmtree(folder / "table")
    return rates.medians()


def drawn(generator: np.random.Generator, items: int, users: int, per_user: int) -> tuple[I32, tuple[Pairs, Pairs]]:
    """Return items of users in one array, and what the two durable calls learn: all but the last of each, and those."""
    strides = generator.integers(1, items // (per_user + 1), users)
    chosen = (generator.integers(0, items, users)[:, None] + strides[:, None] * np.arange(per_user + 1)) % items
    names = np.arange(users)
    first = Pairs.of(np.repeat(names, per_user), chosen[:, :-1].reshape(-1).astype(np.int32))
    return first.items, (first, Pairs.of(names, chosen[:, -1].astype(np.int32)))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=32_768)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    options = parser.parse_args()
    folder = options.folder / "learning-benchmark"
    folder.mkdir(parents=True)
    try:
        measure(folder, options)
    finally:
        shutil.rmtree(folder)


def measure(folder: Path, options: argparse.Namespace) -> None:
    """Print a line for each number of items per user."""
    generator = np.random.default_rng(0)
    contributions = generator.standard_normal((options.items, options.dim), dtype=np.float32)
    learner = Learner.of(np.arange(options.items), contributions, 0.2, None)
    for per_user in ITEMS_PER_USER:
        items, sets = drawn(generator, options.items, options.users, per_user)
        facts = {"items_per_user": per_user, "threads": default_threads()}
        facts |= rule(learner, items, per_user, options.repeats) | durable(folder, learner, sets, options.repeats)
        facts["load"] = round(os.getloadavg()[0], 1)
        text = json.dumps(facts) if options.json else "  ".join(f"{name} {value:,}" for name, value in facts.items())
        print(text, flush=True)


if __name__ == "__main__":
    main()
