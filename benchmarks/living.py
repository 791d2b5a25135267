"""What changes of a table cost, and what they cost the searches after them.

    python benchmarks/living.py FOLDER [--users 1000000] [--dim 128] [--appends 100] [--form plain|bounded]

FOLDER is on the disk to be measured; the tables in it are removed at the end. Measures a durable append of 100 rows
beside the syncs that the disk needs for files of the same size, then the scan of the table after many appends, updates
and deletions, and after a compaction, beside a table that was written at once of the same users. Searches of the two
tables alternate, so that a busy machine disturbs both alike. Prints a JSON line for each.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export import UserTable
from fllm_export.files import sync_directory
from fllm_export.table.living import LivingTable
from fllm_export.table.table import Table

ROWS, CHUNK, REPEATS, UPDATED, DELETED = 100, 1 << 16, 101, 10_000, 10_000
NO_SUM = {"log_probs": "none"}
FORMS = {"plain": {}, "bounded": {"sketch": "yes", "cluster": "yes"}}

F32 = npt.NDArray[np.float32]


def rows_of(seed: int, count: int, dim: int) -> F32:
    """Return rows that lie together around a few directions, as those of trained tables do."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((64, dim), dtype=np.float32)
    chosen = centres[generator.integers(0, 64, count)]
    return chosen + 0.7 * generator.standard_normal((count, dim), dtype=np.float32)


def chunks(users: int, dim: int) -> Iterator[F32]:
    """Yield the rows of the first users."""
    for first in range(0, users, CHUNK):
        yield rows_of(first + 1, min(CHUNK, users - first), dim)


def milliseconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


def spread(times: list[float]) -> dict[str, float]:
    """Return quantiles in milliseconds."""
    p50, p90 = (float(np.percentile(times, share)) for share in (50, 90))
    return {"p50_ms": round(p50, 2), "p90_ms": round(p90, 2), "max_ms": round(max(times), 2)}


def disk(folder: Path, size: int, repeats: int) -> dict[str, object]:
    """Measure one synced file, and the four syncs that an append needs, without anything else that it does."""

    def synced(name: str, length: int) -> None:
        with (folder / f".{name}").open("wb") as file:
            file.write(bytes(length))
            file.flush()
            os.fsync(file.fileno())
        (folder / f".{name}").replace(folder / name)

    def both() -> None:
        for name, length in (("shard", size), ("layout", 2000)):
            synced(name, length)
            sync_directory(folder)

    one = [milliseconds(lambda: synced("one", size)) for _ in range(repeats)]
    four = [milliseconds(both) for _ in range(repeats)]
    for name in ("one", "shard", "layout"):
        (folder / name).unlink()
    return {"what": "disk", "bytes": size, "one_sync": spread(one), "four_syncs": spread(four)}


def appends(directory: Path, first: int, count: int, dim: int) -> list[float]:
    """Append 100 rows as often as told, and return the milliseconds of each call."""
    writer, times = LivingTable(directory), []
    for number in range(count + 1):
        ids = np.arange(first + number * ROWS, first + (number + 1) * ROWS)
        chunk = (rows_of(first + number, ROWS, dim), ids, None)
        times.append(milliseconds(partial(writer.append, [chunk])))
    return times[1:]  # the first one opens the table


def scans(living: UserTable, fresh: UserTable, z: F32) -> dict[str, object]:
    """Measure searches of both tables, by turns; a ratio is that of the medians."""
    return {name: compared(living, fresh, z, how) for name, how in (("full pass", {}), ("users alone", NO_SUM))}


def compared(living: UserTable, fresh: UserTable, z: F32, how: dict[str, str]) -> dict[str, object]:
    """Measure one kind of search: by the clock, and by processor time, which other processes disturb less."""
    clock: dict[UserTable, list[float]] = {living: [], fresh: []}
    processor: dict[UserTable, list[float]] = {living: [], fresh: []}
    for number in range(REPEATS):
        for table in (living, fresh):
            began = time.process_time()
            clock[table].append(milliseconds(partial(table.topk, z[number % len(z)], 100, **how)))
            processor[table].append((time.process_time() - began) * 1e3)
    same = np.array_equal(living.topk(z[0], 100, **how).scores, fresh.topk(z[0], 100, **how).scores)
    return {"clock": ratio(clock, living, fresh), "cpu": ratio(processor, living, fresh), "same_answers": same}


def ratio(times: dict[UserTable, list[float]], living: UserTable, fresh: UserTable) -> dict[str, float]:
    """Return the medians in milliseconds, and how much longer the first is."""
    ours, theirs = (statistics.median(times[table]) for table in (living, fresh))
    return {"living_ms": round(ours, 2), "fresh_ms": round(theirs, 2), "ratio": round(ours / theirs, 3)}


def fresh_copy(living: Path, place: Path, form: dict[str, str]) -> None:
    """Write a table at once of the users that another has."""
    table = Table(living)
    ids = np.concatenate([part for part, _ in table.decoded()])
    UserTable.create(place, (rows for _, rows in table.decoded()), ids, **form)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--appends", type=int, default=100)
    parser.add_argument("--form", choices=sorted(FORMS), default="plain")
    options = parser.parse_args()
    folder, form = options.folder / "living-benchmark", FORMS[options.form]
    folder.mkdir(parents=True)
    try:
        measure(folder, options.users, options.dim, options.appends, form)
    finally:
        shutil.rmtree(folder)


def measure(folder: Path, users: int, dim: int, count: int, form: dict[str, str]) -> None:
    """Write a table, change it, and print what the changes cost and what they cost searches."""
    directory = folder / "living"
    UserTable.create(directory, chunks(users, dim), **form)
    times = appends(directory, users, count, dim)
    size = Table(directory).layout.shards[-1].bytes
    print(json.dumps(disk(folder, size, count)), flush=True)
    print(json.dumps({"what": f"append {ROWS} rows", "users": users, **spread(times)}), flush=True)
    writer, generator = LivingTable(directory), np.random.default_rng(3)
    named = generator.permutation(users)[: UPDATED + DELETED]
    updated = [(rows_of(7, UPDATED, dim), named[:UPDATED], None)]
    facts = {"update_ms": round(milliseconds(lambda: writer.update(updated)), 1)}
    facts["delete_ms"] = round(milliseconds(lambda: writer.delete(named[UPDATED:])), 1)
    fresh_copy(directory, folder / "fresh", form)
    z = rows_of(11, 16, dim)
    for stage in ("changed", "compacted"):
        if stage == "compacted":
            facts["compact_ms"] = round(milliseconds(writer.compact), 1)
        layout = Table(directory).layout
        tables = (UserTable.open(directory, threads=2), UserTable.open(folder / "fresh", threads=2))
        state = {"shards": len(layout.shards), "deleted_rows": layout.stored_rows - layout.rows}
        print(json.dumps({"what": f"scan, {stage}", **state, **scans(*tables, z)}), flush=True)
    print(json.dumps({"what": f"{UPDATED} updates, {DELETED} deletions, compaction", **facts}), flush=True)


if __name__ == "__main__":
    main()
