"""The yardstick of a scan that is bound by memory: reading the same bytes, and nothing else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.table.table import Table

NAME = "plain read (NumPy sum of uint64 words, in threads)"

_PIECE_WORDS = 4 << 20


class PlainRead:
    """Sums the codes and scales of a table as 64-bit words, in as many threads as the engine has.

    NumPy's sum of uint64 words runs without the interpreter's lock at the speed of memory; of glibc's ``memchr``,
    NumPy's maximum, its bitwise or and its sum, the sum was the quickest.
    """

    def __init__(self, directory: Path, threads: int) -> None:
        self._table = Table(directory)
        self._pool = ThreadPoolExecutor(threads)
        self._pieces = [
            words[start : start + _PIECE_WORDS]
            for shard in self._table.shards
            for name in ("codes", "scales")
            for words in [_words(shard.stored[name])]
            for start in range(0, len(words), _PIECE_WORDS)
        ]
        self.bytes = sum(piece.nbytes for piece in self._pieces)

    def __call__(self, _round: int = 0) -> int:
        """Read everything once."""
        return sum(self._pool.map(_total, self._pieces))

    def close(self) -> None:
        """Let the threads and the mapping go."""
        self._pool.shutdown()
        self._pieces.clear()
        del self._table


def _total(words: npt.NDArray[np.uint64]) -> int:
    return int(np.add.reduce(words))


def _words(array: npt.NDArray[np.generic]) -> npt.NDArray[np.uint64]:
    """Return the array's bytes as words, less the few that fill none."""
    flat = array.reshape(-1).view(np.uint8)
    return flat[: len(flat) // 8 * 8].view(np.uint64)
