"""Folding a user into a softmax head: the row that makes the user's items most likely, with everything else fixed.

Training item i has the vector y_i, a share 1 / n_i for each of its n_i users, and the normaliser
Z_i = sum over the trained users v of exp(s_vi). A user with the items I, the bias b and the scores s_i = y_i . w + b
has the part

    f(w) = sum over i in I of s_i / n_i  -  sum over all i of log(Z_i + exp(s_i))  -  strength / 2 |w - w_0|^2

of the loss on which the head was trained, and a prior around w_0. f is strictly concave, so it has one maximum. It is
found by conjugate gradients that a diagonal preconditions, with Newton steps along each direction. A step is two
matrix products for all users of a block.

All factors of these products are rounded to a grid on which sums in float64 are exact
(:mod:`fllm_export.table.fixed_point`). So the row of a user depends on the set of items alone, and not on the users
that share a block with it, the number of threads, or the matrix library.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fllm_export.table.fixed_point import exact_product, on_grid

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

STEPS = 60
"""At most; tables of trained heads need about ten."""
TOLERANCE = 1e-4
"""The gradient at which a row is left, as a share of the sum of the y_i / n_i of its items."""

_SCORES_AT_ONCE = 1 << 20
_LINE_STEPS, _LINE_CHANGE = 3, 1.0
"""Newton steps along a direction; none of them changes a score by more than 1."""
_LEAST = 1e-300


@dataclass(frozen=True, eq=False)
class FoldIn:
    """The fixed part of f.

    Attributes:
        vectors: y, float32 [T, r], on one grid.
        log_normalisers: log Z, float32 [T].
        strength: of the prior, above 0.
    """

    vectors: F32
    log_normalisers: F32
    strength: float

    def rows(self, pulls: F64, prior: F64, bias: F64) -> F64:
        """Return the rows w of some users, float64 [U, r].

        Args:
            pulls: for each user the sum of y_i / n_i over the user's items, float64 [U, r].
            prior: w_0, float64 [U, r].
            bias: b, float64 [U].
        """
        step = max(1, _SCORES_AT_ONCE // len(self.vectors))
        found = np.empty_like(prior)
        for first in range(0, len(found), step):
            some = slice(first, first + step)
            found[some] = self._climbed(pulls[some], prior[some], bias[some])
        return found

    def gradient(self, rows: F64, pulls: F64, prior: F64, bias: F64) -> F64:
        """Return the gradient of f at some rows, float64 [U, r]; other arguments as for :meth:`rows`."""
        return self._gradient(rows, self.scores(rows) + bias[:, None], pulls, prior)

    def scores(self, rows: F64) -> F64:
        """Return y_i . w, float64 [U, T], of rows [U, r] that are rounded to the grid first."""
        return exact_product(on_grid(rows), self.vectors.T)

    def _climbed(self, pulls: F64, prior: F64, bias: F64) -> F64:
        found = on_grid(prior)
        limits = TOLERANCE * np.sqrt(np.square(pulls).sum(1))
        climb = self._begun(found, pulls, prior, bias)
        for _ in range(STEPS):
            open_ones = np.sqrt(np.square(climb.gradient).sum(1)) > limits[climb.users]
            found[climb.users[~open_ones]] = climb.rows[~open_ones]
            climb = climb.only(open_ones)
            if not len(climb.users):
                return found
            climb = self._step(climb)
        found[climb.users] = climb.rows
        return found

    def _begun(self, rows: F64, pulls: F64, prior: F64, bias: F64) -> _Climb:
        scores = self.scores(rows) + bias[:, None]
        gradient = self._gradient(rows, scores, pulls, prior)
        # About the diagonal of the Hessian of -f: for a user who is as likely for all items as for the average one.
        curvature = self._likely(scores).sum(1)[:, None] * self._squares + self.strength
        return _Climb(np.arange(len(rows)), rows, scores, gradient, gradient / curvature, curvature, pulls, prior)

    def _step(self, now: _Climb) -> _Climb:
        """Go to the highest point of a line, and turn to the next direction (Polak and Ribiere)."""
        along = on_grid(now.direction)
        change = exact_product(along, self.vectors.T)
        lengths = self._lengths(now, along, change)[:, None]
        rows, scores = now.rows + lengths * along, now.scores + lengths * change
        gradient = self._gradient(rows, scores, now.pulls, now.prior)
        turned = ((gradient - now.gradient) * gradient / now.curvature).sum(1)
        before = (np.square(now.gradient) / now.curvature).sum(1)
        kept = np.maximum(0, turned / np.maximum(before, _LEAST))[:, None]
        direction = gradient / now.curvature + kept * along
        downhill = (direction * gradient).sum(1) <= 0
        direction[downhill] = gradient[downhill] / now.curvature[downhill]
        return replace(now, rows=rows, scores=scores, gradient=gradient, direction=direction)

    def _lengths(self, now: _Climb, along: F64, change: F64) -> F64:
        """Return how far to go along each direction, float64 [U]."""
        lengths = np.zeros(len(along))
        squares = self.strength * np.square(along).sum(1)
        linear = (now.pulls * along).sum(1) - self.strength * ((now.rows - now.prior) * along).sum(1)
        most = _LINE_CHANGE / np.maximum(np.abs(change).max(1), _LEAST)
        for _ in range(_LINE_STEPS):
            likely = self._likely(now.scores + lengths[:, None] * change)
            likely *= change
            slopes = linear - likely.sum(1) - lengths * squares
            likely *= change
            curvatures = likely.sum(1) + squares
            lengths += np.clip(slopes / np.maximum(curvatures, _LEAST), -most, most)
        return lengths

    def _gradient(self, rows: F64, scores: F64, pulls: F64, prior: F64) -> F64:
        pushed = exact_product(on_grid(self._likely(scores)), self.vectors)
        return pulls - pushed - self.strength * (rows - prior)

    def _likely(self, scores: F64) -> F64:
        """Return the probability of each user among the trained ones and itself, float64 [U, T]."""
        with np.errstate(over="ignore"):
            likely: F64 = 1 / (1 + np.exp(self.log_normalisers - scores))
        return likely

    @cached_property
    def _squares(self) -> F64:
        """The mean of y_i^2 over the items, float64 [r]."""
        return np.asarray(np.square(self.vectors.astype(np.float64)).mean(0))


@dataclass(frozen=True, eq=False)
class _Climb:
    """Users who are not at their maximum yet.

    Attributes:
        users: their numbers in the block, int64 [U].
        rows: w, float64 [U, r].
        scores: y_i . w + b, float64 [U, T].
        gradient: of f at w, float64 [U, r].
        direction: to go, float64 [U, r].
        curvature: what the gradient is divided by, float64 [U, r].
        pulls: sums of y_i / n_i, float64 [U, r].
        prior: w_0, float64 [U, r].
    """

    users: I64
    rows: F64
    scores: F64
    gradient: F64
    direction: F64
    curvature: F64
    pulls: F64
    prior: F64

    def only(self, some: npt.NDArray[np.bool_]) -> _Climb:
        """Return some of the users."""
        if some.all():
            return self
        return _Climb(**{field.name: getattr(self, field.name)[some] for field in fields(self)})
