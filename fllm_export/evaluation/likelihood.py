"""How true a model's probabilities are: log-likelihood of cold pairs, and predicted against observed shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.evaluation.dataset import Positions
from fllm_export.link import EXPONENTIAL, Link

BINS = 10
_DECADES = 12
_CELLS_PER_DECADE = 50
_USERS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Bin:
    """Pairs of items and users with similar predicted probability.

    Attributes:
        predicted: mean of p(u | item) over the pairs.
        observed: mean over the pairs of 1 / (users of the item) where the user liked the item, else 0: the share of
            the item's users that one such user is.
        pairs: number of pairs.
        mass: sum of the predicted probability over all items, divided by the number of items.
        observed_mass: the same of the observed share.
    """

    predicted: float
    observed: float
    pairs: int
    mass: float
    observed_mass: float


@dataclass(frozen=True)
class Likelihood:
    """The fit of p(u | item) = w(s_u) / sum over all users of w(s_v) to cold pairs, w being the link.

    Attributes:
        per_pair: negative log-likelihood per pair in nats: mean of -log p(u | item), the sum being over all users.
        uniform: the same of a model that knows nothing, ln U.
        calibration_error: half the sum over bins of |mass - observed_mass|: the part of the probability that lies in
            the wrong bin, from 0 (calibrated) to 1. It is the usual expected calibration error over pairs, times half
            the number of users.
        bins: about ten, from the least to the most probable pairs.

    Bins have equal predicted mass. Probabilities are of the order 1 / U and nearly all pairs lie far below it, so bins
    of equal width would leave all but the first empty, and bins of equal numbers of pairs would put the top users,
    which are all that a caller sees, in one bin with the rest.
    """

    per_pair: float
    uniform: float
    calibration_error: float
    bins: tuple[Bin, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON-ready values."""
        return asdict(self)


class LikelihoodMeter:
    """Adds up the likelihood over blocks of items.

    Probabilities are counted in cells of a fiftieth of a decade from 1e-12 to 1; smaller ones go to the first cell.
    Bins are made of whole cells.

    Args:
        link: how scores become probabilities.
    """

    def __init__(self, link: Link = EXPONENTIAL) -> None:
        self._link = link
        cells = _DECADES * _CELLS_PER_DECADE
        self._pairs = np.zeros(cells, np.int64)
        self._predicted, self._observed = np.zeros(cells), np.zeros(cells)
        self._loss, self._count, self._users = 0.0, 0, 0

    def add(self, scores: npt.NDArray[np.float32], users: Sequence[Positions]) -> None:
        """Count some items.

        Args:
            scores: of all users, float32 [B, U].
            users: for each item the users that liked it, at least one.
        """
        self._users = scores.shape[1]
        for row, liked in zip(scores, users, strict=True):
            m, sums = self._link.log_sums(row[None])
            total = float(m[0] + np.log(sums[0]))
            self._loss += float((total - self._link.logits(row[liked])).sum())
            self._count += len(liked)
            self._spread(row, total, liked)

    def _spread(self, row: npt.NDArray[np.float32], total: float, liked: Positions) -> None:
        size = len(self._pairs)
        for start in range(0, len(row), _USERS_AT_ONCE):
            log_p = self._link.logits(row[start : start + _USERS_AT_ONCE]) - total
            cells = _cells(log_p)
            self._pairs += np.bincount(cells, minlength=size)
            self._predicted += np.bincount(cells, np.exp(log_p), size)
        right = _cells(self._link.logits(row[liked]) - total)
        self._observed += np.bincount(right, minlength=size) / len(liked)

    def result(self) -> Likelihood:
        """Return the figures of everything that was added, at least one item."""
        items = self._predicted.sum()
        ends = np.cumsum(self._predicted) / items * BINS
        numbers = np.minimum(np.ceil(ends - 1e-9).astype(np.int64), BINS) - 1
        bins = []
        for number in np.unique(np.maximum(numbers, 0)):
            chosen = np.maximum(numbers, 0) == number
            pairs, mass, observed = (part[chosen].sum() for part in (self._pairs, self._predicted, self._observed))
            if pairs:
                shares = float(mass / items), float(observed / items)
                bins.append(Bin(float(mass / pairs), float(observed / pairs), int(pairs), *shares))
        error = sum(abs(each.mass - each.observed_mass) for each in bins) / 2
        return Likelihood(self._loss / self._count, float(np.log(self._users)), error, tuple(bins))


def _cells(log_p: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    places = (log_p / np.log(10) + _DECADES) * _CELLS_PER_DECADE
    cells: npt.NDArray[np.int64] = np.clip(places, 0, _DECADES * _CELLS_PER_DECADE - 1).astype(np.int64)
    return cells
