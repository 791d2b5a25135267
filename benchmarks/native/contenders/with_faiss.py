"""FAISS: flat, scalar, product and RaBitQ quantisers, alone and under inverted lists."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from benchmarks.native.contenders.base import NO_KNOBS, Setting, multiples, parts
from benchmarks.native.population import F32
from benchmarks.native.truth import I64

_TRAINING_ROWS = 262_144
_REFINE = multiples("k_factor", 1, 2, 4, 8, 16, 32, 64)
_PROBES = tuple(2**power for power in range(3, 11))
_IVF = multiples("nprobe", *_PROBES)
_IVF_REFINE = tuple({"nprobe": n, "k_factor": k} for n, k in product(_PROBES, (2, 4, 8, 16, 32)))


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

    def __init__(self, indexes: list[Any], dim: int) -> None:
        import faiss

        self._indexes = indexes
        # (dim, threaded, successive ids)
        self._at_once = faiss.IndexShards(dim, True, True)
        self._in_turn = faiss.IndexShards(dim, False, True)
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
        shards = self._at_once if len(z) == 1 else self._in_turn
        ids: I64 = shards.search(z, k)[1]
        return ids


FAISS = (
    Faiss("Flat"),
    Faiss("SQ8"),
    Faiss("SQ8,RFlat", multiples("k_factor", 1.25, 1.5, 2)),
    Faiss("PQ{half}x4fs,RFlat", _REFINE),
    Faiss("PQ{d}x4fs,RFlat", _REFINE),
    Faiss("RaBitQfs,RFlat", _REFINE),
    Faiss("RaBitQfs4,RFlat", _REFINE),
    Faiss("IVF1024,Flat", _IVF),
    Faiss("IVF1024,SQ8", _IVF),
    Faiss("IVF1024,PQ{half}x4fs,RFlat", _IVF_REFINE),
    Faiss("IVF1024,RaBitQfs,RFlat", _IVF_REFINE),
)
