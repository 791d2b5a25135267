"""What a file holds besides the closed form so that users of a softmax head can be learned without training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

HEAD_TENSORS = {"counts": "I64", "vectors": "F32", "log_normalisers": "F32", "closed_map": "F32", "head_map": "F32"}
"""Their dtypes by name."""

CLOSED_TENSOR = "closed_contributions"
"""The name of C in the file of a head's users: a reader that knows the closed form alone must not take it for rows."""


@dataclass(frozen=True, eq=False)
class HeadRule:
    """The fixed part of a softmax head (docs/guides/living_tables.md, "Learning users of a head").

    A user with the row e of the closed form, in the head's coordinates, has the row e A + w B, where w maximises what
    training maximised. A and B include the scale of the logits.

    Attributes:
        counts: n_i, users of each training item, int64 [T], at least 1.
        vectors: y_i with which w has the score y_i . w + b, float32 [T, r].
        log_normalisers: log of the sum of exp(score) over all trained users, float32 [T].
        closed_map: A, float32 [d, dimension of a row].
        head_map: B, float32 [r, dimension of a row]; r is at most d.
        strength: of the prior around the first r numbers of e, above 0.
        scale: what biases were multiplied by after training, above 0.
    """

    counts: I64
    vectors: F32
    log_normalisers: F32
    closed_map: F32
    head_map: F32
    strength: float
    scale: float

    def mapped(self, rows: Callable[[F32], F32]) -> HeadRule:
        """Return the rule whose rows went through a linear map, a function of float32 [n, dim]."""
        return replace(self, closed_map=rows(self.closed_map), head_map=rows(self.head_map))

    def problem(self, items: int, dim: int, row_dim: int) -> str | None:
        """Return what is wrong with it, for so many items, dimensions of the closed form and of a row; None if nothing.

        Every number is read.
        """
        rank = self.vectors.shape[1] if self.vectors.ndim == 2 else 0
        shapes: dict[str, tuple[int, ...]] = {
            "counts": (items,),
            "vectors": (items, rank),
            "log_normalisers": (items,),
            "closed_map": (dim, row_dim),
            "head_map": (rank, row_dim),
        }
        for name, shape in shapes.items():
            found = getattr(self, name)
            if found.shape != shape:
                return f"{name} has the shape {list(found.shape)} and not {list(shape)}"
            if not np.isfinite(found).all():
                return f"{name} has a number that is not finite"
        if not 1 <= rank <= dim:
            return f"vectors have {rank} dimensions and the closed form {dim}"
        if self.counts.min(initial=1) < 1:
            return "an item has no users"
        return None
