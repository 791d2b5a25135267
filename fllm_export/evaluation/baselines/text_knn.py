"""The users of the training items whose texts are most similar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.evaluation.baselines.baseline import ColdItems, Params, Scores
from fllm_export.evaluation.baselines.held import HeldItems, Tally
from fllm_export.evaluation.baselines.known import Known, Vectors, require_scipy

NEIGHBOURS = (10, 20, 50, 100, 200)
POWERS = (1.0, 2.0, 4.0, 8.0, 16.0)
WITHOUT_CHOICE = {"k": 50, "p": 4.0}
"""What is taken where no item is held out to choose on."""


def nearest(vectors: Vectors, among: Vectors, k: int) -> tuple[npt.NDArray[np.int64], Vectors]:
    """Return the rows of ``among`` with the largest cosine, best first, int64 [B, k], and the cosines, float32 [B, k].

    Args:
        vectors: unit vectors, float32 [B, h].
        among: unit vectors, float32 [T, h].
        k: neighbours, at most T.
    """
    cosines = vectors @ among.T
    rows = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(cosines, rows, 1), axis=1, kind="stable")
    rows = np.take_along_axis(rows, order, 1)
    return rows, np.take_along_axis(cosines, rows, 1)


@dataclass(frozen=True)
class Neighbours:
    """The training items, searched by cosine.

    Attributes:
        vectors: of the training items, unit length, float32 [T, h].
        likes: who liked them, a sparse matrix [T, U].
        k: neighbours per item.
        power: of their cosines.
    """

    vectors: Vectors
    likes: Any
    k: int
    power: float

    def scores(self, items: ColdItems) -> Scores:
        """Return the sum of cosine^p over those of the k nearest items that a user liked, float32 [B, U]."""
        assert items.vectors is not None
        rows, cosines = nearest(items.vectors, self.vectors, self.k)
        return _spread(rows, cosines, self.power, self.likes)


@dataclass(frozen=True)
class TextKnn:
    """Ranks users by the items of theirs among the k nearest training items, weighted by cosine^p.

    A negative cosine counts as 0.
    """

    name: str = "text kNN"
    reads_text: bool = True

    def choose(self, known: Known, held: HeldItems | None) -> Params:
        """Return k of 10, 20, 50, 100, 200 and p of 1, 2, 4, 8, 16 with the highest recall."""
        if held is None or held.vectors is None:
            return WITHOUT_CHOICE
        tally, likes = Tally(), known.likes.tocsc()[:, held.users].tocsr()
        ks = sorted({min(k, len(known.items)) for k in NEIGHBOURS})
        for window in held.blocks(len(known.items)):
            rows, cosines = nearest(held.vectors[window], known.texts, ks[-1])
            for k in ks:
                for power in POWERS:
                    scores = _spread(rows[:, :k], cosines[:, :k], power, likes)
                    tally.add((k, power), held.recalls(window, scores))
        return dict(zip(("k", "p"), tally.best(), strict=True))

    def fit(self, known: Known, params: Params) -> Neighbours:
        """Keep the training items; there is nothing to compute."""
        return Neighbours(known.texts, known.likes, min(int(params["k"]), len(known.items)), params["p"])


def _spread(rows: npt.NDArray[np.int64], cosines: Vectors, power: float, likes: Any) -> Scores:
    weights = np.maximum(cosines, 0) ** np.float32(power)
    ends = np.arange(len(rows) + 1) * rows.shape[1]
    sparse = require_scipy("scipy.sparse").csr_matrix(
        (weights.ravel(), rows.ravel(), ends), shape=(len(rows), likes.shape[0])
    )
    found: Scores = (sparse @ likes).toarray()
    return found
