"""User rows in closed form for millions of users: time, memory and bytes, beside what the machine itself needs.

    python benchmarks/closed_form.py WORK [--users 10000000] [--dim 256] [--shuffled]

WORK is a directory with free space for the interactions and the rows; all that is written there is removed. Items are
200,000 unit vectors of 384 dimensions in clusters, their popularity falls by a power law, and every user draws 50 of
them (a pair that is drawn twice counts once). The interactions are written to a Parquet file by another process
before the clock starts. Then the closed form with 1,024 landmarks is fitted and every row is written: into an int8
table at all 1,024 dimensions, and, projected to ``--dim``, into checkpoint files and into an int8 table.
``--shuffled`` writes the users in no order, so that the pairs have to be cut by user first.

Prints a JSON line per stage with wall and CPU seconds. For comparison the same run writes as many bytes to the same
disk, and multiplies blocks of rows by M (scaled up from a sample), which is what a solution per user would cost at
least.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fllm_export.pair_files import PairFile
from fllm_export.table.options import TableChoices
from fllm_export.training.closed_form import ClosedForm, Setting
from fllm_export.training.interactions import Interactions
from fllm_export.training.landmarks import choose_landmarks
from fllm_export.training.user_stream import UserStream

HIDDEN, CLUSTERS = 384, 2_000
PER_USER = 50
USERS_AT_ONCE = 100_000
BUFFER_BYTES = 64 << 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--users", type=int, default=10_000_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--landmarks", type=int, default=1024)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--shuffled", action="store_true")
    parser.add_argument("--sketch", default="no", choices=["auto", "yes", "no"])
    parser.add_argument("--cluster", default="no", choices=["auto", "yes", "no"])
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    path = options.work / "interactions.parquet"
    maker = multiprocessing.get_context("spawn").Process(target=write_interactions, args=(path, options))
    maker.start()
    maker.join()
    if maker.exitcode:
        raise SystemExit(f"the interactions could not be written (exit code {maker.exitcode})")
    record("interactions", users=options.users, file_bytes=path.stat().st_size, threads=torch.get_num_threads())
    try:
        measure(path, options)
    finally:
        for name in ("survey", "table", "short", "shards"):
            shutil.rmtree(options.work / name, ignore_errors=True)
        path.unlink()


def measure(path: Path, options: argparse.Namespace) -> None:
    """Fit, write the rows in three ways, and measure the machine."""
    items = item_vectors(options.items)
    work, stored = options.work / "survey", TableChoices(quant="int8", sketch=options.sketch, cluster=options.cluster)
    began = time.monotonic()
    with stage("count and group interactions"):
        interactions = Interactions(PairFile(path), np.arange(options.items), work)
    with stage("solve for the items"):
        vectors = items[interactions.items]
        landmarks = choose_landmarks(vectors, options.landmarks)
        form = ClosedForm.fit(vectors, landmarks, interactions.counts, Setting())
        stream = UserStream(form, interactions, work)
        assert len(stream.key) == 64
    with stage("int8 table, all dimensions", users=interactions.users, pairs=interactions.pairs, dim=form.dim):
        stream.write_table(options.work / "table", **stored)
    record("all of it", wall_s=round(time.monotonic() - began, 1), peak_rss_bytes=peak_rss())
    compare(options.work / "table", form, interactions.users)
    shutil.rmtree(options.work / "table")
    with stage("project"):
        sample = interactions.sample(65_536, seed=0).users
        short = UserStream(form.project(options.dim, sample), interactions, work)
        assert len(short.key) == 64
    with stage("checkpoint files, projected", dim=options.dim):
        short.write_shards(options.work / "shards")
    shutil.rmtree(options.work / "shards")
    with stage("int8 table, projected", dim=options.dim):
        short.write_table(options.work / "short", **stored)
    record("end", peak_rss_bytes=peak_rss())


def compare(table: Path, form: ClosedForm, users: int) -> None:
    """Measure the disk with the table's bytes, and the product of M and all rows."""
    size = sum(file.stat().st_size for file in table.iterdir())
    buffer = np.random.default_rng(0).integers(0, 256, BUFFER_BYTES, np.uint8)
    target = table.with_name("disk")
    with stage("disk: the same bytes", bytes=size), target.open("wb") as file:
        for _ in range(-(-size // BUFFER_BYTES)):
            file.write(buffer.data)
        os.fsync(file.fileno())
    target.unlink()
    m, rows = len(form.ridge.kernel.landmarks), 16_384
    square, block = torch.randn(m, m), torch.randn(rows, m)
    product = torch.empty(rows, m)
    torch.mm(block, square, out=product)
    wall, cpu, count = time.monotonic(), time.process_time(), max(1, min(32, users // rows))
    for _ in range(count):
        torch.mm(block, square, out=product)
    scale = users / (count * rows)
    record(
        "product: M times every row, float32, scaled from a sample",
        wall_s=round((time.monotonic() - wall) * scale, 1),
        cpu_s=round((time.process_time() - cpu) * scale, 1),
        sampled_rows=count * rows,
    )


def item_vectors(count: int) -> np.ndarray:
    """Return unit vectors in clusters, float32 [count, 384]."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((CLUSTERS, HIDDEN), np.float32)
    vectors = centres[generator.integers(0, CLUSTERS, count)]
    vectors += generator.standard_normal(vectors.shape, np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def write_interactions(path: Path, options: argparse.Namespace) -> None:
    """Write user_id and item_id: 50 draws per user, item i with a probability like (i + 1)^-0.8."""
    import pyarrow as pa
    from pyarrow import parquet

    generator = np.random.default_rng(1)
    odds = np.arange(1, options.items + 1) ** -0.8
    ends = np.cumsum(odds / odds.sum())
    names = generator.permutation(options.items)
    schema = pa.schema([("user_id", pa.int64()), ("item_id", pa.int64())])
    order = generator.permutation(options.users) if options.shuffled else np.arange(options.users)
    with parquet.ParquetWriter(path, schema) as writer:
        for first in range(0, options.users, USERS_AT_ONCE):
            users = np.repeat(order[first : first + USERS_AT_ONCE], PER_USER)
            ranks = np.minimum(np.searchsorted(ends, generator.random(len(users), np.float32)), options.items - 1)
            writer.write_table(pa.table([users, names[ranks]], schema=schema), row_group_size=1 << 20)


@contextmanager
def stage(name: str, **facts: Any) -> Iterator[None]:
    """Record the wall and CPU seconds of a block."""
    wall, cpu = time.monotonic(), time.process_time()
    yield
    record(name, wall_s=round(time.monotonic() - wall, 1), cpu_s=round(time.process_time() - cpu, 1), **facts)


def record(case: str, **values: Any) -> None:
    """Print a measurement as a JSON line."""
    load = round(os.getloadavg()[0], 1)
    print(json.dumps({"benchmark": "closed form", "case": case, **values, "load": load}), flush=True)


def peak_rss() -> int:
    """Return the most bytes of memory that this process has had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


if __name__ == "__main__":
    main()
