"""The directions of user rows, in the order of what they contribute to the scores of real items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fllm_export.calibration.moments import Moments
from fllm_export.calibration.row_form import ROTATED, RowForm
from fllm_export.calibration.transform import Transform
from fllm_export.errors import UsageError

F64 = npt.NDArray[np.float64]

BALANCE = 0.5
FEEDBACK_BALANCE = 0.75
"""How the size of a direction is divided, see :meth:`Directions.transform`: before rounding to the nearest, and before
rounding with feedback (docs/internals/quantisation.md has the measurements)."""

SEED = 0
UNROTATED = ("fp32", "fp16")
_LEAST_ENERGY = 1e-7
"""Share of the largest energy below which a direction may be the rounding of float32 products."""


@dataclass(frozen=True, eq=False)
class Directions:
    """The singular vectors of the rows in the metric of the item vectors.

    With E[zz'] = G G' (Cholesky) an item vector is z = G w with E[ww'] = I, and a score is (G'e).w. The eigenvectors V
    of E[(G'e)(G'e)'], the second moment of the rows in that metric, are the right singular vectors of all rows times
    G: the first m of them keep of all scores what a rank m can keep (Eckart and Young).

    Attributes:
        root: G, lower-triangular float64 [d, d].
        vectors: V, a direction per column, float64 [d, d].
        energies: mean squared score that each direction gives, descending, float64 [d].
    """

    root: F64
    vectors: F64
    energies: F64

    @classmethod
    def of(cls, items: Moments, rows: Moments) -> Directions:
        """Return the directions for the moments of item vectors and of user rows, of the same dimension.

        Raises:
            UsageError: the rows are all zero.
        """
        root = np.linalg.cholesky(items.metric()).astype(np.float64)
        energies, vectors = np.linalg.eigh(root.T @ rows.second @ root)
        energies = np.maximum(energies[::-1], 0.0)
        if not energies[0] > 0:
            raise UsageError("all user rows are zero", expected="rows that tell users apart")
        return cls(root, np.ascontiguousarray(vectors[:, ::-1]), energies)

    @property
    def rank(self) -> int:
        """Number of directions that give scores."""
        return int((self.energies > _LEAST_ENERGY * self.energies[0]).sum())

    def kept(self, dim: int) -> float:
        """Return the share of the mean squared score that the first ``dim`` directions keep, 0 to 1."""
        return float(self.energies[:dim].sum() / self.energies.sum())

    def transform(self, dim: int, balance: float) -> Transform:
        """Return the transform to the first ``dim`` directions.

        Scores do not depend on how the size of a direction is divided between rows and item vectors, but rounding
        does. The variance of direction j is s_j^(1 - balance) in rows and s_j^balance in item vectors. Behind a
        rotation, rounding to the nearest does least harm at 1/2: the error grows with the product of both sums, which
        is least where they are equal (Cauchy and Schwarz). Feedback also uses what item vectors have in common, so
        more of it may be left in them.

        Args:
            dim: m, from 1 to d.
            balance: from 0, where item vectors are white, to 1.
        """
        sizes = np.maximum(self.energies[:dim], _LEAST_ENERGY * self.energies[0]) ** (-balance / 2)
        sizes /= np.exp(np.log(sizes).mean())
        vectors = self.vectors[:, :dim]
        items = np.linalg.solve(self.root.T, vectors).T / sizes[:, None]
        return Transform(items, (self.root @ vectors).T * sizes[:, None])


def cut(directions: Directions, dim: int, quant: str, balance: float = BALANCE) -> Transform:
    """Return the transform to the first ``dim`` directions that suits a codec.

    A rotation follows, except for codecs of floats, whose relative error does not depend on how large a number is
    beside its neighbours.
    """
    found = directions.transform(dim, balance)
    return found if quant in UNROTATED else found.then(rotation(dim, SEED))


def ordered(directions: Directions, dim: int, balance: float = BALANCE) -> Transform:
    """Return the transform to all directions for rows whose first ``dim`` dimensions are scanned.

    Scores stay what they are. The first ``dim`` dimensions are those of :func:`cut`, up to a common factor, so that one
    item vector serves the rows that are scanned and the refinement rows. Both parts are rotated by themselves.
    """
    whole = len(directions.vectors)
    found = directions.transform(whole, balance)
    return found.then(_side_by_side(rotation(dim, SEED), rotation(whole - dim, SEED + 1))) if dim < whole else found


def _side_by_side(first: Transform, second: Transform) -> Transform:
    """Return the transform that applies one to the leading dimensions and another to those that follow."""
    joined = np.zeros((first.dim + second.dim, first.dim + second.dim))
    joined[: first.dim, : first.dim], joined[first.dim :, first.dim :] = first.items, second.items
    return Transform(joined, joined)


def transform_for(form: RowForm, whole: int, directions: Directions | None) -> Transform | None:
    """Return the transform of rows that are stored in a form, None where they stay as they are.

    Args:
        form: the form.
        whole: dimension of the rows.
        directions: of the rows; read only where the form passes them.
    """
    if form.by_directions(whole):
        if directions is None:
            raise AssertionError("a form by directions needs them")
        return cut(directions, form.dim, form.quant, FEEDBACK_BALANCE if form.rounding == "data" else BALANCE)
    return rotation(whole, SEED) if form.quant in ROTATED else None


def rotation(dim: int, seed: int) -> Transform:
    """Return a random rotation, drawn uniformly: it spreads what is large in a few dimensions over all of them.

    Q of the QR decomposition of a Gaussian matrix, with the signs that make the distribution uniform (Mezzadri,
    Notices of the AMS 54, 2007).
    """
    gaussian = np.random.default_rng(seed).standard_normal((dim, dim))
    turned, upper = np.linalg.qr(gaussian)
    turned *= np.sign(np.diag(upper))
    return Transform(turned, turned)
