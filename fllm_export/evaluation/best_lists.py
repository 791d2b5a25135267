"""The best of many scores, kept while the scores go by in blocks of items."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fllm_export.evaluation.cold_split import ColdSplit
from fllm_export.evaluation.dataset import Pairs, Positions

Scores = npt.NDArray[np.float32]

_SEED = 0


def best_users(scores: Scores, k: int) -> Positions:
    """Return each item's best users, int64 [B, k]: score descending, then position ascending.

    Args:
        scores: float32 [B, U].
        k: at most U.
    """
    best = np.empty((len(scores), k), np.int64)
    for row, found in zip(scores, best, strict=True):
        # Everything that could be among the best, ties with the last of them included.
        likely = np.flatnonzero(row >= np.partition(row, len(row) - k)[len(row) - k])
        found[:] = likely[np.argsort(-row[likely], kind="stable")[:k]]
    return best


class BestItems:
    """Each user's best candidates so far; masked ones come last.

    Candidates with equal scores stand in an order that is drawn with a fixed seed. Their own order is no choice: ids of
    items often follow age or popularity, and a method that scores all items alike would be given credit for that.

    Args:
        split: says which users are asked about.
        masked: pairs that are ranked last.
        k: items per user.
    """

    def __init__(self, split: ColdSplit, masked: Pairs, k: int) -> None:
        self._split, self._k = split, k
        inside = np.isin(masked.users, split.users)
        order = np.argsort(masked.items[inside], kind="stable")
        self._masked_items = masked.items[inside][order]
        self._masked_users = np.searchsorted(split.users, masked.users[inside])[order]
        self._turns = np.random.default_rng(_SEED).permutation(len(split.candidates))
        self._scores = np.empty((len(split.users), 0), np.float32)
        self._places = np.empty((len(split.users), 0), np.int64)

    def add(self, window: slice, scores: Scores) -> None:
        """Take in the scores of a window of candidates, float32 [B, U]. Windows come in ascending order."""
        items = self._split.candidates[window]
        part = scores[:, self._split.users].T.copy()
        first, last = np.searchsorted(self._masked_items, [items[0], items[-1] + 1])
        columns = np.searchsorted(items, self._masked_items[first:last])
        part[self._masked_users[first:last], columns] = -np.inf
        joined = np.concatenate([self._scores, part], axis=1)
        own = np.arange(window.start, window.start + len(items))
        places = np.concatenate([self._places, np.broadcast_to(own, part.shape)], axis=1)
        order = np.lexsort((self._turns[places], -joined), axis=1)[:, : self._k]
        self._scores = np.take_along_axis(joined, order, 1)
        self._places = np.take_along_axis(places, order, 1)

    def items(self) -> Positions:
        """Return the best candidates of each user, best first, int64 [L, k]."""
        return self._split.candidates[self._places]
