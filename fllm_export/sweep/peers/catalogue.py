"""The indexes of other libraries that a sweep measures beside our own tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fllm_export.sweep.peers.base import NO_KNOBS, Contender, multiples
from fllm_export.sweep.peers.with_faiss import Faiss
from fllm_export.sweep.peers.with_scann import Scann
from fllm_export.sweep.peers.with_usearch import Usearch


@dataclass(frozen=True)
class Library:
    """A library.

    Attributes:
        name: what results call it.
        package: the Python package that it comes in.
        contenders: returns the indexes that are measured, for a number of rows.
    """

    name: str
    package: str
    contenders: Callable[[int], tuple[Contender, ...]]


def _faiss(rows: int) -> tuple[Contender, ...]:
    refined = multiples("k_factor", 2, 8, 32)
    # About as many lists as the square root of the rows, which is what FAISS's guidelines begin with.
    lists = 1 << max(2, round(math.log2(math.sqrt(rows))))
    return (
        Faiss("Flat"),
        Faiss("SQ8"),
        Faiss("PQ{half}x4fs,RFlat", refined),
        Faiss("RaBitQfs,RFlat", refined),
        Faiss(f"IVF{lists},Flat", multiples("nprobe", lists // 16 or 1, lists // 4, lists // 2)),
    )


def _usearch(_: int) -> tuple[Contender, ...]:
    return Usearch("f32", NO_KNOBS), Usearch("i8", multiples("factor", 2))


def _scann(_: int) -> tuple[Contender, ...]:
    return (Scann(0, multiples("reorder", 200, 800, 3_200)),)


LIBRARIES: Mapping[str, Library] = {
    "faiss": Library("FAISS", "faiss-cpu", _faiss),
    "usearch": Library("usearch", "usearch", _usearch),
    "scann": Library("ScaNN", "scann", _scann),
}
