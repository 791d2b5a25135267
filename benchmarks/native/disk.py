"""A table read from disk: page cache cold and warm, beside ``dd`` of the same files, and the memory held."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from benchmarks.native import machine
from benchmarks.native.bench import Bench, one_item, shape
from benchmarks.native.ours import table_bytes
from benchmarks.native.plain_read import NAME, PlainRead
from benchmarks.native.population import Population
from benchmarks.native.timing import Times, paired

CASE = "disk"

_COLD_ROUNDS = 3
_ITEMS = 16
_SAMPLE_SECONDS = 0.005


def disk(bench: Bench, population: Population) -> None:
    """Write the table, time one item cold and warm, and remove the table."""
    bench.note(f"{CASE}: writing {population.name}")
    began = time.monotonic()
    directory = bench.tables.get(population)
    seconds = round(time.monotonic() - began, 1)
    # Ids are read for the users that are returned only.
    scanned = population.rows * (population.dim + 4)
    written: dict[str, float] = {"bytes": table_bytes(directory), "scanned_bytes": scanned, "build_s": seconds}
    try:
        _check(bench, population, directory)
        _cold(bench, population, directory, written)
        _warm(bench, population, directory, written)
        _memory(bench, population, directory)
    finally:
        bench.tables.drop(population)


def _check(bench: Bench, population: Population, directory: Path) -> None:
    bench.note(f"{CASE}: checking {directory.name} against the NumPy engine")
    bench.ours(directory).check(population.items(1), bench.k)


def _cold(bench: Bench, population: Population, directory: Path, written: Mapping[str, float]) -> None:
    """Open and ask with nothing in the page cache; nothing may be mapped then, or its pages would stay."""
    files, items = sorted(directory.glob("*.safetensors")), population.items(_ITEMS)
    one, several = "dd, one after another", f"dd, {bench.threads} at a time"
    turn = iter(range(_COLD_ROUNDS))
    calls: dict[str, Callable[[], object]] = {
        one: lambda: _dd(files, 1),
        several: lambda: _dd(files, bench.threads),
        "open and top-K, cold": lambda: bench.ours(directory).topk(one_item(items, next(turn)), bench.k),
    }
    kept: dict[str, list[float]] = {name: [] for name in calls}
    left = 0.0
    for number in range(_COLD_ROUNDS):
        bench.note(f"{CASE}: cold, round {number + 1} of {_COLD_ROUNDS}")
        for name, call in calls.items():
            left = max(left, _drop_from_cache(files))
            began = time.perf_counter()
            call()
            kept[name].append((time.perf_counter() - began) * 1e3)
    times = {name: Times(tuple(ms)) for name, ms in kept.items()}
    what = "open and top-K, cold"
    ours = times.pop(what)
    about = {**shape(population, 1), **written, "resident_before": round(left, 5)}
    bench.compare(CASE, what, ours, times, **about, gb_per_s=_speed(written, ours))


def _warm(bench: Bench, population: Population, directory: Path, written: Mapping[str, float]) -> None:
    files, items = sorted(directory.glob("*.safetensors")), population.items(_ITEMS)
    bench.note(f"{CASE}: warm")
    read, ours = PlainRead(directory, bench.threads), bench.ours(directory)
    several = f"dd, {bench.threads} at a time"
    times = paired(
        {
            NAME: read,
            several: lambda _: _dd(files, bench.threads),
            "top-K, warm": lambda turn: ours.topk(one_item(items, turn), bench.k),
        },
        bench.repeats,
    )
    mine = times.pop("top-K, warm")
    bench.compare(CASE, "top-K, warm", mine, times, **shape(population, 1), **written, gb_per_s=_speed(written, mine))
    read.close()


def _memory(bench: Bench, population: Population, directory: Path) -> None:
    """Record the most memory that opening and asking takes beside the mapped files."""
    gc.collect()
    before = machine.private_bytes()
    most, done = before, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(_SAMPLE_SECONDS):
            most = max(most, machine.private_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        ours = bench.ours(directory)
        ours.topk(population.items(1), bench.k)
    finally:
        done.set()
        watcher.join()
    values = {"private_bytes_before": before, "private_bytes_added": most - before}
    bench.record(CASE, "memory beside the mapping", **shape(population, 1), **values)


def _speed(written: Mapping[str, float], times: Times) -> float:
    return round(written["scanned_bytes"] / times.median / 1e6, 2)


def _dd(files: list[Path], at_a_time: int) -> None:
    """Read the files, ``at_a_time`` of them at once."""
    shares = [files[number::at_a_time] for number in range(at_a_time)]
    shells = [
        subprocess.Popen(
            ["/bin/sh", "-c", 'for f in "$@"; do dd if="$f" of=/dev/null bs=16M status=none || exit 1; done', "sh"]
            + [str(path) for path in share]
        )
        for share in shares
    ]
    if any(shell.wait() for shell in shells):
        raise RuntimeError("dd failed")


def _drop_from_cache(files: list[Path]) -> float:
    """Have the page cache forget the files, and return the share of their pages that stayed."""
    gc.collect()
    resident = pages = 0
    for path in files:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            held, count = _resident_pages(file.fileno())
        resident, pages = resident + held, pages + count
    return resident / pages


def _resident_pages(descriptor: int) -> tuple[int, int]:
    """Return how many of a file's pages are in memory, and how many it has."""
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as mapped:
        view = np.frombuffer(mapped, np.uint8)
        count = -(-len(view) // mmap.PAGESIZE)
        states = (ctypes.c_ubyte * count)()
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mincore(ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(len(view)), states):
            raise OSError(ctypes.get_errno(), "mincore")
        del view
    return int(np.count_nonzero(np.frombuffer(memoryview(states), np.uint8) & 1)), count
