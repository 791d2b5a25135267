"""How much of the ranking of users is left when rows are cut to fewer dimensions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from fllm_export.calibration.transform import Transform

F32 = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

_STEPS_PER_OCTAVE = 4
_SMALL = 64
_MULTIPLE = 8
_NUMBERS_AT_ONCE = 1 << 24


def offered_dims(dim: int) -> list[int]:
    """Return the dimensions below ``dim`` that ``auto`` chooses from: four per octave, multiples of 8 from 64 on."""
    multiple = _MULTIPLE if dim >= _SMALL else 1
    sizes = dim * 2.0 ** (-np.arange(1, 64) / _STEPS_PER_OCTAVE)
    rounded = {multiple * round(size / multiple) for size in sizes}
    return sorted(size for size in rounded if 0 < size < dim)


def recall_by_dim(
    transform: Transform, dims: Sequence[int], z: F32, chunks: Iterable[tuple[F32, F32 | None]], k: int
) -> dict[int, float]:
    """Return for each dimension the mean recall@k of the rankings by rows cut to it, before any rounding.

    One pass over the rows: of each text and each dimension the k best users so far are kept.

    Args:
        transform: to at least max(dims) dimensions, the most important ones first.
        dims: the dimensions m, each at least 1.
        z: item vectors, float32 [texts, d].
        chunks: user rows float32 [n, d] and their biases float32 [n] or None.
        k: at least 1; with fewer rows than that, all rows count.
    """
    queries = np.concatenate([z] + [_cut(transform, m, z) for m in dims])
    ids, _ = best_rows(queries, chunks, k)
    truth, *cut = np.split(ids, 1 + len(dims))
    return {m: float(shared(truth, found).mean()) for m, found in zip(dims, cut, strict=True)}


def best_rows(z: F32, chunks: Iterable[tuple[F32, F32 | None]], k: int) -> tuple[Ids, F32]:
    """Return the ``k`` rows (or all, if there are fewer) with the highest scores, best first, and the scores.

    One pass over the rows. Both are [texts, k]; rows are numbered from 0 in the order in which they come.

    Args:
        z: item vectors, float32 [texts, d].
        chunks: rows float32 [n, d] and their biases float32 [n] or None.
        k: at least 1.
    """
    best, seen = _Best(len(z), k), 0
    step = max(k, _NUMBERS_AT_ONCE // len(z))
    for rows, bias in chunks:
        for first in range(0, len(rows), step):
            window = slice(first, first + step)
            scores = z @ rows[window].T
            if bias is not None:
                scores += bias[window]
            best.add(scores, seen + first)
        seen += len(rows)
    return best.ranked()


def smallest_dim(recalls: dict[int, float], share: float) -> int | None:
    """Return the smallest dimension that has at least this recall, as all larger ones have; None if there is none."""
    chosen = None
    for m in sorted(recalls, reverse=True):
        if recalls[m] < share:
            break
        chosen = m
    return chosen


def _cut(transform: Transform, dim: int, z: F32) -> F32:
    """Return what an item vector becomes when the score goes through ``dim`` dimensions: B'A z, float32 [texts, d]."""
    cut: F32 = (z.astype(np.float64) @ transform.items[:dim].T @ transform.users[:dim]).astype(np.float32)
    return cut


class _Best:
    """The k best users of each text so far."""

    def __init__(self, texts: int, k: int) -> None:
        self._k = k
        self._scores = np.empty((texts, 0), np.float32)
        self._ids = np.empty((texts, 0), np.int64)

    def add(self, scores: F32, first: int) -> None:
        ids = np.broadcast_to(np.arange(first, first + scores.shape[1]), scores.shape)
        scores, ids = np.concatenate([self._scores, scores], 1), np.concatenate([self._ids, ids], 1)
        if scores.shape[1] > self._k:
            chosen = np.argpartition(scores, -self._k, 1)[:, -self._k :]
            scores, ids = np.take_along_axis(scores, chosen, 1), np.take_along_axis(ids, chosen, 1)
        self._scores, self._ids = scores, ids

    def ranked(self) -> tuple[Ids, F32]:
        order = np.lexsort((self._ids, -self._scores), axis=1)
        return np.take_along_axis(self._ids, order, 1), np.take_along_axis(self._scores, order, 1)


def shared(expected: Ids, found: Ids) -> npt.NDArray[np.float64]:
    """Return for each text which share of the expected rows was found, float64 [texts]; both are [texts, k]."""
    counts = [len(np.intersect1d(a, b, assume_unique=True)) for a, b in zip(expected, found, strict=True)]
    shares: npt.NDArray[np.float64] = np.array(counts, np.float64) / expected.shape[1]
    return shares
