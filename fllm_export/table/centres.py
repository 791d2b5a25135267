"""Centres of clusters that lie well apart, found on a sample of a shard's rows, and the cluster of each row.

Everything is counted in integers that float32 holds exactly, products and sums included, so that the answer depends
neither on the machine nor on the order of sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

SAMPLE_ROWS = 16_384
_PROBES, _MEETINGS = 256, 1_024
"""Rows of the sample whose nearest row is sought, and those among which a typical distance is."""
_LARGEST = 256
"""Of a coordinate on the grid: products of 32 pairs, and half of a square, add up to less than 2^23."""
_COARSE = 32
"""Squared distance that rounding to the grid may make of none."""
_REACHES = (4, 8, 16, 32)
"""Squared radius of a cluster, relative to the squared distance between nearest rows. That is the smaller, the more
rows of a cluster the sample has, and the fewer dimensions they spread in: the first that finds clusters is taken."""
_APART_NUMERATOR, _APART_DENOMINATOR = 9, 25
"""The squared radius is at most that share of a typical squared distance, or else clusters do not lie well apart."""
_MOST, _FEWEST_ROWS = 4_096, 128
"""Clusters of a shard at most, and rows that they have on average at least."""
_LEFT_OVER = 10
"""At most one row in so many may be left without a tile of its own cluster."""


@dataclass(frozen=True)
class Centres:
    """Of clusters that lie well apart.

    Attributes:
        factor: from a row's coordinates to the grid.
        places: on the grid, integers as float32 [k, 32].
        reach: the largest squared distance, on the grid, from its centre to a row of a cluster.
    """

    factor: float
    places: F32
    reach: float

    def owners(self, points: F32) -> tuple[I64, F32]:
        """Return the nearest centre of each point [n, 33], the first of equally near ones, and its squared distance."""
        own, squares = np.empty(len(points), np.int64), np.empty(len(points), np.float32)
        for start, stop in pairwise([*range(0, len(points), SAMPLE_ROWS), len(points)]):
            places = on_grid(points[start:stop], self.factor)
            own[start:stop], squares[start:stop] = _nearest(places, self.places)
        return own, squares


def on_grid(points: F32, factor: float) -> F32:
    """Return the coordinates of points [n, 33] on the grid, integers as float32 [n, 32]."""
    wide = np.rint(points[:, :-1].astype(np.float64) * factor)
    return wide.clip(-_LARGEST, _LARGEST).astype(np.float32)


def find(points: F32, places: I64) -> Centres | None:
    """Return the centres of the clusters of points [n, 33]; None where they do not lie well apart.

    Args:
        points: of all rows.
        places: numbers of those that are a sample of them.
    """
    chosen = points[places]
    peak = float(np.abs(chosen[:, :-1]).max())
    factor = _LARGEST / peak if peak > 0 else 0.0
    sample = on_grid(chosen, factor) if np.isfinite(factor) else None
    if sample is None:
        return None
    nearest, typical = _distances(sample)
    for times in _REACHES:
        reach = times * nearest
        if _APART_DENOMINATOR * reach > _APART_NUMERATOR * typical:
            return None
        if (centres := _within(sample, reach, len(points))) is not None:
            return Centres(factor, centres, reach)
    return None


def _within(sample: F32, reach: float, rows: int) -> F32 | None:
    """Return the centres of clusters of a squared radius; None where these have too few rows of the shard."""
    leaders = _leaders(sample, reach, min(_MOST, rows // _FEWEST_ROWS))
    if leaders is None:
        return None
    own, _ = _nearest(sample, sample[leaders])
    counts = np.bincount(own, minlength=len(leaders))
    # Rows of a cluster that the sample has no row of are about as many as it has clusters of one row (Good and Turing);
    # and of each cluster, what is left over of whole blocks.
    singles = int((counts == 1).sum())
    if _LEFT_OVER * (singles * rows + 8 * len(leaders) * len(sample)) > rows * len(sample):
        return None
    sums = np.zeros((len(leaders), sample.shape[1]))
    np.add.at(sums, own, sample.astype(np.float64))
    centres: F32 = np.rint(sums / counts[:, None]).astype(np.float32)
    return centres


def _distances(sample: F32) -> tuple[float, float]:
    """Return the median squared distance from a row to its nearest, no less than rounding makes, and to any row."""
    squares = (sample * sample).sum(1)
    probes, meetings = (np.arange(count) * len(sample) // count for count in (_PROBES, _MEETINGS))
    between = squares[probes, None] + squares - 2 * (sample[probes] @ sample.T)
    met = np.sort(between[:, meetings], axis=None)
    between[np.arange(_PROBES), probes] = np.inf
    nearest = np.sort(between.min(1))
    return max(float(nearest[_PROBES // 2]), _COARSE), float(met[len(met) // 2])


def _leaders(sample: F32, reach: float, most: int) -> I64 | None:
    """Return rows such that each lies within reach of one: the first that does not, again and again. None: too many."""
    squares = (sample * sample).sum(1)
    found: list[int] = []
    left = np.arange(len(sample))
    while len(left):
        if len(found) == most:
            return None
        leader = left[0]
        found.append(leader)
        left = left[squares[left] + squares[leader] - 2 * (sample[left] @ sample[leader]) > reach]
    return np.array(found)


def _nearest(places: F32, centres: F32) -> tuple[I64, F32]:
    """Return the first nearest centre [k, 32] of each place [n, 32], and its squared distance."""
    near = places @ centres.T - (centres * centres).sum(1) / 2
    own = near.argmax(1)
    squares: F32 = (places * places).sum(1) - 2 * near[np.arange(len(places)), own]
    return own, squares
