"""The fp32 ranking of all rows, and how much of it an answer holds."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fllm_export.files import publish
from fllm_export.progress import Progress, silent

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

FILE_NAME = "truth.npz"

_CHUNK_ROWS = 65_536
_MARGIN = 16
"""Candidates beyond K: what float32 sums rank just wrong is put right in float64."""
_ROUNDING = 1e-12


class Best:
    """The best ``k`` of rows that come in chunks of scores; unordered until asked."""

    def __init__(self, items: int, k: int) -> None:
        self._k = k
        self._scores = np.full((items, k), -np.inf, np.float32)
        self._ids = np.full((items, k), -1, np.int64)

    def add(self, scores: F32, first_id: int) -> None:
        """Take up scores [items, n] of the rows ``first_id`` and on.

        Only what reaches the worst score kept so far is looked at again: one comparison a score, mostly.
        """
        for item, row in enumerate(scores >= self._scores.min(1)[:, None]):
            above = np.flatnonzero(row)
            if len(above):
                self._merge(item, scores[item, above], above + first_id)

    def ids(self) -> I64:
        """Return the ids [items, k], best first."""
        return np.take_along_axis(self._ids, self._order(), 1)

    def scores(self) -> F32:
        """Return the scores [items, k], best first."""
        return np.take_along_axis(self._scores, self._order(), 1)

    def _order(self) -> I64:
        return np.lexsort((self._ids, -self._scores), axis=1)

    def _merge(self, item: int, scores: F32, ids: I64) -> None:
        scores = np.concatenate([self._scores[item], scores])
        ids = np.concatenate([self._ids[item], ids])
        kept = np.argpartition(-scores, self._k - 1)[: self._k]
        self._scores[item], self._ids[item] = scores[kept], ids[kept]


def exact_top(chunks: Iterable[F32], items: F32, k: int) -> I64:
    """Return the ids [B, k] of the rows with the largest float32 products, best first."""
    best = Best(len(items), k)
    start = 0
    for chunk in chunks:
        best.add(items @ chunk.T, start)
        start += len(chunk)
    return best.ids()


class Corpus(NamedTuple):
    """What is ranked: rows float32 [N, d], biases float32 [N] or None, and items float32 [B, d]."""

    rows: F32
    bias: F32 | None
    items: F32

    def scores(self, ids: I64) -> F64:
        """Return each item's scores of some rows, ids [B, n], in float64; an id below 0 scores minus infinity."""
        found = np.empty(ids.shape, np.float64)
        for item, (vector, numbers) in enumerate(zip(self.items, ids, strict=True)):
            found[item] = np.einsum("nd,d->n", self.rows[numbers].astype(np.float64), vector.astype(np.float64))
        if self.bias is not None:
            found += self.bias[ids]
        found[ids < 0] = -np.inf
        return found


@dataclass(frozen=True, eq=False)
class Truth:
    """The best rows of each item by fp32 rows.

    Attributes:
        scores: float64 [B, k], highest first.
        seconds: what scoring all rows took.
    """

    scores: F64
    seconds: float

    @property
    def k(self) -> int:
        """Depth of the ranking."""
        return int(self.scores.shape[1])

    def recall(self, corpus: Corpus, found: I64, depth: int) -> F64:
        """Return each item's share [B] of its best ``depth`` rows among the first ``depth`` rows found, ids [B, n].

        Rows count by their score: one that ties with the last of the best is as good as that one.
        """
        first = np.sort(found[:, :depth], axis=1)
        first[:, 1:][first[:, 1:] == first[:, :-1]] = -1  # a row that is named twice counts once
        last = self.scores[:, depth - 1 : depth]
        reached = corpus.scores(first) >= last - _ROUNDING * np.maximum(np.abs(last), 1e-300)
        shares: F64 = reached.sum(1) / depth
        return shares


def true_top(corpus: Corpus, k: int, progress: Progress = silent) -> Truth:
    """Score all rows in float32, and order the best in float64."""
    began = time.monotonic()
    count = len(corpus.rows)
    best = Best(len(corpus.items), min(k + _MARGIN, count))
    for start in range(0, count, _CHUNK_ROWS):
        part = slice(start, start + _CHUNK_ROWS)
        scores = corpus.items @ corpus.rows[part].T
        best.add(scores if corpus.bias is None else scores + corpus.bias[part], start)
        progress("fp32 ranking", min(part.stop, count), count)
    scores = -np.sort(-corpus.scores(best.ids()), axis=1)[:, :k]
    return Truth(scores, time.monotonic() - began)


def kept_truth(folder: Path, key: str, make: Callable[[], Truth]) -> Truth:
    """Return the truth that an earlier run left in ``folder`` for the same rows, items and k, or make it and keep it.

    Args:
        folder: output directory of the sweep.
        key: fingerprint of the rows, the items and k.
        make: computes it.
    """
    path = folder / FILE_NAME
    kept = _read(path, key)
    if kept is not None:
        return kept
    truth = make()
    with publish(path) as file:
        np.savez(file, key=np.array(key), scores=truth.scores, seconds=np.array(truth.seconds))
    return truth


def _read(path: Path, key: str) -> Truth | None:
    """Return what the file holds, if it is there, whole and of the key; one that is not is written again."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["key"]) == key:
                return Truth(stored["scores"].astype(np.float64), float(stored["seconds"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        pass
    return None
