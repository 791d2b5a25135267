"""What this machine has and how fast it moves bytes: memory and disk, free and read plainly."""

from __future__ import annotations

import mmap
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.planning.load import Load

_READ_BYTES = 256 << 20
_PIECE_WORDS = 1 << 20
_DISK_BYTES = 128 << 20
_BLOCK_BYTES = 8 << 20
_LEAST_CALLS = 3
_BUDGET_S = 0.6


@dataclass(frozen=True)
class Machine(Load):
    """How fast this machine moves bytes, and its load before that was measured.

    Attributes:
        threads: threads that read memory together.
        memory_read: bytes/s of a plain read beyond the caches, in ``threads`` threads.
        disk_read: bytes/s of one reader of a file that is not in the page cache.
        probe_bytes: size of the file that the disk was measured with.
    """

    threads: int
    memory_read: float
    disk_read: float
    probe_bytes: int

    @classmethod
    def measure(cls, folder: Path, threads: int) -> Machine:
        """Measure for a second or two, the disk by a temporary file below ``folder``."""
        before = Load.now()
        return cls(before.load, before.processors, threads, _memory_read(threads), _disk_read(folder), _DISK_BYTES)


def total_memory() -> int:
    """Return the bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_memory() -> int:
    """Return the bytes of memory that are available to a new process."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("/proc/meminfo has a line MemAvailable")


def existing(place: Path) -> Path:
    """Return the directory ``place``, or the one above it that there is already."""
    return next(path for path in (place.absolute(), *place.absolute().parents) if path.is_dir())


def free_disk(place: Path) -> int:
    """Return the bytes that are free where ``place`` is, or where it would be made."""
    return shutil.disk_usage(existing(place)).free


def median_seconds(call: Callable[[], object], budget_s: float = _BUDGET_S, least_calls: int = _LEAST_CALLS) -> float:
    """Return the median of a call's wall times: of ``least_calls``, and of more while ``budget_s`` lasts."""
    times: list[float] = []
    while len(times) < least_calls or sum(times) < budget_s:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _memory_read(threads: int) -> float:
    words = np.ones(_READ_BYTES // 8, np.uint64)
    pieces = [words[start : start + _PIECE_WORDS] for start in range(0, len(words), _PIECE_WORDS)]
    with ThreadPoolExecutor(threads) as pool:
        return words.nbytes / median_seconds(lambda: list(pool.map(_total, pieces)))


def _total(words: npt.NDArray[np.uint64]) -> int:
    # The sum of 64-bit words runs without the interpreter's lock, at the speed of memory.
    return int(np.add.reduce(words))


def _disk_read(folder: Path) -> float:
    """Read a file past the page cache, or, where the file system cannot do that, after it was dropped from there."""
    block = os.urandom(_BLOCK_BYTES)
    with tempfile.TemporaryFile(dir=folder) as file:  # without a name, so that a killed process leaves nothing
        for _ in range(_DISK_BYTES // _BLOCK_BYTES):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        descriptor = _open_past_cache(f"/proc/self/fd/{file.fileno()}")
        try:
            with mmap.mmap(-1, _BLOCK_BYTES) as room:  # on a page boundary, as O_DIRECT asks for
                began = time.perf_counter()
                while os.readv(descriptor, [room]):
                    pass
                return _DISK_BYTES / (time.perf_counter() - began)
        finally:
            os.close(descriptor)


def _open_past_cache(name: str) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        return os.open(name, os.O_RDONLY)
