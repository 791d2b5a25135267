"""Which training items become the landmarks of a kernel.

Items drawn uniformly at random, and all of them where there are few. Other choices were measured (CiteULike-a, MiniLM,
1,024 landmarks, g 2, lambda 1, r .25, c .2; user recall@20 on cold_val, mean of three draws, whose spread is .001 to
.002):

=====================================================  =========
uniform                                                .3215
probability by n_i (users of the item), by n_i^(1/2)   .3177, .3215
the items with most users                              .3127
D^2 sampling (as k-means++ begins)                     .3230
farthest point first                                   .3166
randomly pivoted Cholesky                              .3229
=====================================================  =========

The two that gain a thousandth need a pass over all items per landmark. With 2,048 landmarks uniform gives .3333, the
items with most users .3263.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fllm_export import arguments
from fllm_export.training.kernel import unit

Positions = npt.NDArray[np.int64]


def choose_landmarks(items: npt.NDArray[np.floating], most: int, seed: int = 0) -> Positions:
    """Return the positions of the landmarks, ascending, int64 [m].

    Items with the same direction are one landmark. Where there are at most ``most`` of them, all are landmarks, and
    the closed form is exact kernel ridge regression. Otherwise ``most`` items are drawn uniformly at random.

    Args:
        items: vectors of the training items, float [T, h], in memory or mapped into it.
        most: landmarks at most, at least 1.
        seed: of the draw.

    Raises:
        UsageError: a vector that was drawn is zero or not finite.
    """
    most = arguments.integer(most, "most", least=1)
    order = np.random.default_rng(seed).permutation(len(items))
    if len(items) <= most:
        order = np.arange(len(items))
    chosen: dict[bytes, int] = {}
    for first in range(0, len(order), most):
        block = np.sort(order[first : first + most])
        for position, row in zip(block.tolist(), unit(items[block]), strict=True):
            chosen.setdefault((row + 0.0).tobytes(), position)
        if len(chosen) >= most:
            break
    return np.sort(np.fromiter(chosen.values(), np.int64)[:most])
