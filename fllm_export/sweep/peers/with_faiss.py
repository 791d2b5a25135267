"""FAISS: flat, scalar, product and RaBitQ quantisers, alone and under inverted lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fllm_export.sweep.peers.base import NO_KNOBS, Setting, parts
from fllm_export.sweep.truth import F32, I64

_TRAINING_ROWS = 262_144


@dataclass(frozen=True)
class Faiss:
    """An index by its factory string, in which ``{half}`` is d / 2 and ``{d}`` is d; metric inner product."""

    factory: str
    settings: tuple[Setting, ...] = NO_KNOBS

    @property
    def name(self) -> str:
        """The library and the factory string."""
        return "FAISS " + self.factory.format(half="(d/2)", d="(d)")

    def build(self, rows: F32, threads: int) -> FaissIndex:
        """Train once on a sample, then fill one index for each thread."""
        import faiss

        faiss.omp_set_num_threads(threads)
        if "{half}" in self.factory:
            rows = _even(rows)
        dim = rows.shape[1]
        text = self.factory.format(half=dim // 2, d=dim)
        trained = faiss.index_factory(dim, text, faiss.METRIC_INNER_PRODUCT)
        sample = np.random.default_rng(0).permutation(len(rows))[:_TRAINING_ROWS]
        trained.train(rows[np.sort(sample)])
        indexes = []
        for _, part in parts(rows, threads):
            # Not every type can be cloned; all of these can be written and read.
            index = faiss.deserialize_index(faiss.serialize_index(trained))
            index.add(part)
            indexes.append(index)
        return FaissIndex(indexes, dim)


class FaissIndex:
    """One index for each thread.

    FAISS spreads the items of a batch over threads, and a single item over none: so a single item is asked of all
    indexes at once, a thread each, and a batch of one index after another, each with all threads.
    """

    file_bytes = 0
    keeps_rows = False

    def __init__(self, indexes: list[Any], dim: int) -> None:
        import faiss

        self._indexes, self._dim = indexes, dim
        # (dim, threaded, successive ids); the type stubs do not know all three.
        shards: Any = faiss.IndexShards
        self._at_once = shards(dim, True, True)
        self._in_turn = shards(dim, False, True)
        for index in indexes:
            self._at_once.add_shard(index)
            self._in_turn.add_shard(index)

    def search(self, z: F32, k: int, setting: Setting) -> I64:
        """Set the knobs and search."""
        import faiss

        for index in self._indexes:
            if "k_factor" in setting:
                index.k_factor = setting["k_factor"]
            if "nprobe" in setting:
                faiss.extract_index_ivf(index).nprobe = int(setting["nprobe"])
        if z.shape[1] < self._dim:
            z = _even(z)
        shards = self._at_once if len(z) == 1 else self._in_turn
        ids: I64 = shards.search(z, k)[1]
        return ids


def _even(vectors: F32) -> F32:
    """Return vectors whose dimension is even: a zero follows where it is odd, which changes no product."""
    return np.pad(vectors, ((0, 0), (0, vectors.shape[1] % 2)))
