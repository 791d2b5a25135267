"""One item, rows in clusters that lie well apart: tables with tiles of uneven size beside FAISS IVF in the same run.

    python -m benchmarks.well_parted WORK [--rows N] [--dim D] [--k K]

WORK is a directory on the disk that tables are written to. Rows are a mixture of 1,000 Gaussians of 0.3 times the
spread of their centres, items are of the same mixture. Tables: as `UserTable.create` makes it, and the same with tiles
that are cut at multiples of 1,024 rows alone. All use one thread and take turns. Prints a JSON line per contender:
milliseconds for one item without log-probabilities, recall against the scores of all float32 rows, and of tables the
tiles, the share of rows in tiles that no bound rules out, and the seconds of processor time that writing took.
`alone_ms` is the same over and over, without the others in between, which empty the processor's caches.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from benchmarks.native.timing import paired
from fllm_export import UserTable
from fllm_export.table import tile_bounds
from fllm_export.table.clusters import Tiling, clustered
from fllm_export.table.options import TableChoices
from fllm_export.table.table import Table

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Search = Callable[[int], I64]
"""Takes the number of an item, and returns the best users of it."""
CENTRES, SPREAD, ITEMS, ROUNDS, LISTS, PROBES = 1_000, 0.3, 32, 96, 1_024, 16
TABLES: tuple[tuple[str, bool, TableChoices], ...] = (
    ("tiles of uneven size", False, {}),
    ("tiles of uneven size, refined by fp16", False, {"refine": "fp16"}),
    ("full tiles", True, {}),
)


def mixture(rows: int, dim: int) -> tuple[F32, F32]:
    """Return rows and items."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((CENTRES, dim), dtype=np.float32)
    made = np.empty((rows + ITEMS, dim), np.float32)
    for start in range(0, len(made), 65_536):
        part = made[start : start + 65_536]
        part[:] = generator.standard_normal(part.shape, dtype=np.float32) * np.float32(SPREAD)
        part += centres[generator.integers(0, CENTRES, len(part))]
    return made[:rows], made[rows:]


def nearest(rows: F32, items: F32, k: int) -> list[set[int]]:
    """Return the k rows with the best float32 scores of each item."""
    best = np.concatenate([rows[at : at + 65_536] @ items.T for at in range(0, len(rows), 65_536)])
    return [set(np.argpartition(-column, k)[:k].tolist()) for column in best.T]


def recall(found: Search, truth: list[set[int]]) -> float:
    """Return the mean share of the best rows that are found."""
    return float(np.mean([len(truth[i] & set(found(i).tolist())) / len(truth[i]) for i in range(len(truth))]))


def create(directory: Path, rows: F32, options: TableChoices, *, even: bool) -> dict[str, float]:
    """Write a table, with full tiles alone where `even`, and return its seconds of wall time and of processor time."""
    began, computing = time.perf_counter(), time.process_time()
    if even:
        with patch("fllm_export.table.tile_maker.tiling", lambda points, size: Tiling(clustered(points, size), None)):
            UserTable.create(directory, rows, **options)
    else:
        UserTable.create(directory, rows, **options)
    return {
        "create_s": round(time.perf_counter() - began, 2),
        "create_processor_s": round(time.process_time() - computing, 2),
    }


def alone(call: Search) -> float:
    """Return the median milliseconds of a call that is repeated."""
    times = []
    for number in range(8 * ITEMS):
        began = time.perf_counter()
        call(number % ITEMS)
        times.append(time.perf_counter() - began)
    return float(np.median(times)) * 1e3


def left(directory: Path, items: F32, k: int) -> dict[str, float]:
    """Return the number of tiles, and the share of rows in tiles that the k-th best score does not rule out."""
    table, searched = Table(directory), UserTable.open(directory, threads=1)
    sizes = np.concatenate([np.diff(shard.tile_ends, prepend=0) for shard in table.shards])
    directions, extents = (
        np.concatenate([shard.beside[name].view(np.float32) for shard in table.shards])
        for name in ("tile_directions", "tile_extents")
    )
    shares = []
    for item in items:
        last = float(searched.topk(item[None], k, log_probs="none").scores[0, -1])
        upper = tile_bounds.bounds(directions, extents, item.astype(np.float64))
        shares.append(sizes[upper >= last * (1 - 1e-3)].sum() / sizes.sum())
    return {"tiles": len(sizes), "left": round(float(np.mean(shares)), 4)}


def ivf(rows: F32, items: F32, k: int) -> Search:
    """Return the search of FAISS IVF of so many lists, flat."""
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.index_factory(rows.shape[1], f"IVF{LISTS},Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(rows[:: max(1, len(rows) // (64 * LISTS))])
    index.add(rows)
    index.nprobe = PROBES
    return lambda number: index.search(items[number : number + 1], k)[1][0]


def search_of(table: UserTable, items: F32, k: int) -> Search:
    """Return the search of a table."""
    return lambda number: table.topk(items[number : number + 1], k, log_probs="none").user_ids[0]


def in_turn(call: Search) -> Search:
    """Return a call that takes the items one after the other, beginning again after the last."""
    return lambda turn: call(turn % ITEMS)


def main() -> None:
    """Write, check, time and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--k", type=int, default=100)
    options = parser.parse_args()
    rows, items = mixture(options.rows, options.dim)
    truth = nearest(rows, items, options.k)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        found = {f"FAISS IVF{LISTS}, nprobe {PROBES}": ivf(rows, items, options.k)}
        facts: dict[str, dict[str, float]] = {name: {} for name in found}
        for name, even, choices in TABLES:
            writing = create(Path(folder) / name, rows, choices, even=even)
            table = UserTable.open(Path(folder) / name, threads=1)
            found[name] = search_of(table, items, options.k)
            facts[name] = {**left(Path(folder) / name, items, options.k), **writing}
        reached = {name: recall(call, truth) for name, call in found.items()}
        times = paired({name: in_turn(call) for name, call in found.items()}, ROUNDS)
        for name, of_it in times.items():
            about = {"contender": name, "rows": options.rows, "dim": options.dim, "k": options.k}
            ms = {
                "alone_ms": round(alone(found[name]), 3),
                "median_ms": round(of_it.median, 3),
                "least_ms": round(of_it.min, 3),
                "recall": round(reached[name], 4),
            }
            print(json.dumps({"benchmark": "well parted", **about, **ms, **facts[name]}))


if __name__ == "__main__":
    main()
