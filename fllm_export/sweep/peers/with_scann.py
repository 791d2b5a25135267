"""ScaNN: anisotropic hashing with exact reordering, with and without a tree."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from fllm_export.sweep.peers.base import Setting, parts
from fllm_export.sweep.truth import F32, I64

_TRAINING_ROWS = 250_000


@dataclass(frozen=True)
class Scann:
    """``score_ah(2)`` with the anisotropic threshold 0.2 and ``reorder``, under ``leaves`` partitions or none."""

    leaves: int
    settings: tuple[Setting, ...]

    @property
    def name(self) -> str:
        """The library, and whether there is a tree."""
        return f"ScaNN tree {self.leaves}, AH, reorder" if self.leaves else "ScaNN AH, reorder"

    def build(self, rows: F32, threads: int) -> ScannSearchers:
        """Build one searcher for each thread."""
        from scann import scann_ops_pybind

        searchers = []
        for first, part in parts(rows, threads):
            builder = scann_ops_pybind.builder(part, 100, "dot_product").set_n_training_threads(threads)
            if self.leaves:
                builder = builder.tree(self.leaves, self.leaves, training_sample_size=_TRAINING_ROWS)
            builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2)
            builder = builder.reorder(int(self.settings[0]["reorder"]))
            searchers.append((first, builder.build()))
        return ScannSearchers(searchers)


class ScannSearchers:
    """One searcher for each thread, since ScaNN spreads only the items of a batch over threads."""

    file_bytes = 0
    keeps_rows = False

    def __init__(self, searchers: list[tuple[int, Any]]) -> None:
        self._searchers = searchers
        self._pool = ThreadPoolExecutor(len(searchers))

    def search(self, z: F32, k: int, setting: Setting) -> I64:
        """Ask all searchers at once and merge."""

        def ask(numbered: tuple[int, Any]) -> tuple[I64, F32]:
            first, searcher = numbered
            leaves = int(setting["leaves"]) if "leaves" in setting else None
            ids, scores = searcher.search_batched(z, k, int(setting["reorder"]), leaves)
            return ids.astype(np.int64) + first, scores

        ids, scores = (np.concatenate(arrays, 1) for arrays in zip(*self._pool.map(ask, self._searchers), strict=True))
        kept = np.argsort(-scores, axis=1)[:, :k]
        return np.take_along_axis(ids, kept, 1)
