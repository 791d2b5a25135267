"""NumKong: packed matrix products in int8 and bfloat16, and the selection in NumPy, which NumKong has none of."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.native.population import F32
from benchmarks.native.truth import I64, Best
from fllm_export.sweep.peers.base import Setting, multiples, parts, rank_again
from fllm_export.table.codecs import codec

_PACK_ROWS = 32_768


@dataclass(frozen=True)
class NumKong:
    """``dots_packed`` over packs of rows, the packs shared out among threads; int8 rows have scales of their own."""

    dtype: str
    settings: tuple[Setting, ...] = multiples("factor", 1, 1.5, 2, 4)

    @property
    def name(self) -> str:
        """The library and the type."""
        return f"NumKong dots {self.dtype} + NumPy selection"

    def build(self, rows: F32, threads: int) -> NumKongPacks:
        """Pack the rows."""
        import numkong  # noqa: F401 - fails here rather than while timing

        return NumKongPacks(rows, self.dtype, threads)


class NumKongPacks:
    """The packs of each thread, and the float32 rows to rank again by."""

    file_bytes = 0

    def __init__(self, rows: F32, dtype: str, threads: int) -> None:
        self._rows = rows
        self._is_int8 = dtype == "int8"
        self._pool = ThreadPoolExecutor(threads)
        packs = [self._pack(part, first) for first, part in parts(rows, max(threads, len(rows) // _PACK_ROWS))]
        self._shares = [packs[number::threads] for number in range(threads)]

    def search(self, z: F32, k: int, setting: Setting) -> I64:
        """Score all rows, keep ``factor`` times k for each item, and rank those again."""
        count = int(k * setting["factor"])
        vectors = self._vectors(z)
        found = self._pool.map(lambda share: self._best(share, vectors, len(z), count), self._shares)
        ids, scores = (np.concatenate(arrays, 1) for arrays in zip(*found, strict=True))
        kept = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        return rank_again(self._rows, z, np.take_along_axis(ids, kept, 1), k)

    def _pack(self, rows: F32, first: int) -> tuple[Any, F32 | None, int]:
        import numkong

        if not self._is_int8:
            return numkong.dots_pack(numkong.astype(rows, "bf16"), "bf16"), None, first
        stored = codec("int8").encode(rows)
        return numkong.dots_pack(stored["codes"], "int8"), stored["scales"].astype(np.float32), first

    def _vectors(self, z: F32) -> Any:
        import numkong

        if not self._is_int8:
            return numkong.astype(z, "bf16")
        return np.rint(z * (127 / np.abs(z).max(1, keepdims=True))).astype(np.int8)

    def _best(self, share: list[tuple[Any, F32 | None, int]], vectors: Any, items: int, k: int) -> tuple[I64, F32]:
        import numkong

        best = Best(items, k)
        for pack, scales, first in share:
            scores = np.asarray(numkong.dots_packed(vectors, pack))
            best.add(scores if scales is None else scores * scales, first)
        return best.ids(), best.scores()


NUMKONG = (NumKong("int8"), NumKong("bf16"))
