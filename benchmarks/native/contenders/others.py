"""The other libraries' indexes, and the settings worth trying."""

from __future__ import annotations

from itertools import product

from fllm_export.sweep.peers.base import NO_KNOBS, multiples
from fllm_export.sweep.peers.with_faiss import Faiss
from fllm_export.sweep.peers.with_scann import Scann
from fllm_export.sweep.peers.with_usearch import Usearch

_REFINE = multiples("k_factor", 1, 2, 4, 8, 16, 32, 64)
_PROBES = tuple(2**power for power in range(3, 11))
_IVF = multiples("nprobe", *_PROBES)
_IVF_REFINE = tuple({"nprobe": n, "k_factor": k} for n, k in product(_PROBES, (2, 4, 8, 16, 32)))
_REORDER = (200, 400, 800, 1_600, 3_200, 6_400)
_LEAVES = (16, 32, 64, 128, 256, 512, 1_000)

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

USEARCH = (Usearch("f32", NO_KNOBS), Usearch("i8", multiples("factor", 1, 1.5, 2, 4)))

SCANN = (
    Scann(0, multiples("reorder", *_REORDER)),
    Scann(1_000, tuple({"leaves": n, "reorder": r} for n, r in product(_LEAVES, _REORDER))),
)
