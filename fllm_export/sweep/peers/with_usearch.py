"""usearch: its exact search, in float32, and in int8 with the best candidates ranked again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fllm_export.sweep.peers.base import Setting, rank_again
from fllm_export.sweep.truth import F32, I64


@dataclass(frozen=True)
class Usearch:
    """``usearch.index.search(exact=True)`` over an array of the type; int8 has one scale for the whole table."""

    dtype: str
    settings: tuple[Setting, ...]

    @property
    def name(self) -> str:
        """The library and the type."""
        return f"usearch exact {self.dtype}"

    def build(self, rows: F32, threads: int) -> UsearchRows:
        """Convert the rows; there is no index."""
        import usearch.index  # noqa: F401 - fails here rather than while timing

        return UsearchRows(rows, self.dtype, threads)


class UsearchRows:
    """The rows in the type that is searched, and in float32 to rank again by."""

    file_bytes = 0
    keeps_rows = True

    def __init__(self, rows: F32, dtype: str, threads: int) -> None:
        self._rows = rows
        self._is_int8 = dtype == "i8"
        self._stored = np.rint(rows * (127 / np.abs(rows).max())).astype(np.int8) if self._is_int8 else rows
        self._threads = threads

    def search(self, z: F32, k: int, setting: Setting) -> I64:
        """Search exactly among the stored rows, then rank ``factor`` times k of them again."""
        from usearch.index import MetricKind, search

        vectors = np.rint(z * (127 / np.abs(z).max(1, keepdims=True))).astype(np.int8) if self._is_int8 else z
        count = int(k * setting.get("factor", 1))
        matches = search(
            self._stored, vectors, count, MetricKind.IP, exact=True, threads=self._threads, dtype=vectors.dtype.name
        )
        candidates = np.asarray(matches.keys).astype(np.int64).reshape(len(z), count)
        return rank_again(self._rows, z, candidates, k)
