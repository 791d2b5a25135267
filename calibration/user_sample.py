"""The users on which ways to store rows are compared: all of them, or those that can be among the best."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fllm_export.calibration.ranks import Ids, best_rows

F32 = npt.NDArray[np.float32]
Chunks = Iterable[tuple[F32, F32 | None]]

NUMBERS_MOST = 1 << 26
"""Numbers of the rows of a sample, at most, unless the best ``k`` of all texts are more: 256 MiB."""

_DEPTHS = (4.0, 3.0, 2.0, 1.5, 1.0)


@dataclass(frozen=True, eq=False)
class UserSample:
    """Some users of a table, and the users that the table's fp32 rows rank first.

    Attributes:
        rows: float32 [n, d].
        bias: float32 [n], or None.
        best: numbers in ``rows`` of the ``k`` best users of each text among all users, int64 [texts, k].
        users: number of all users.
        depth: how many of the best users of each text are in the sample for certain.
    """

    rows: F32
    bias: F32 | None
    best: Ids
    users: int
    depth: int

    @classmethod
    def draw(
        cls,
        z: F32,
        k: int,
        users: int,
        chunks: Callable[[], Chunks],
        gather: Callable[[Ids], tuple[F32, F32 | None]],
        numbers_most: int = NUMBERS_MOST,
    ) -> UserSample:
        """Rank all users for some texts, and keep those that matter.

        A table whose rows hold at most ``numbers_most`` numbers is kept whole. Of a larger one the sample is the union
        of each text's best 4k users (or fewer, down to k, where they are more rows than that), and users evenly spread
        over the table up to that number. For a user outside of it to count, rounding would have to lift the user over
        the whole depth for some text, so recall on the sample is an upper bound, and a close one.

        Args:
            z: item vectors, float32 [texts, d].
            k: depth of the rankings, below ``users``.
            users: number of users.
            chunks: returns all rows and biases in order, chunk by chunk; called once.
            gather: returns the rows and biases of ascending numbers.
            numbers_most: limit on the size of the sample.
        """
        most = numbers_most // z.shape[1]
        if users <= most:
            best, _ = best_rows(z, chunks(), k)
            return cls(*gather(np.arange(users)), best, users, users)
        ranked, _ = best_rows(z, chunks(), min(users, int(_DEPTHS[0] * k)))
        depths = [min(ranked.shape[1], int(depth * k)) for depth in _DEPTHS]
        unions = {depth: np.unique(ranked[:, :depth]) for depth in depths}
        depth = next((depth for depth in depths if len(unions[depth]) <= most), depths[-1])
        spread = np.linspace(0, users - 1, max(0, most - len(unions[depth]))).astype(np.int64)
        numbers = np.union1d(unions[depth], spread)
        return cls(*gather(numbers), np.searchsorted(numbers, ranked[:, :k]), users, depth)

    @property
    def whole(self) -> bool:
        """Whether the sample is the whole table."""
        return len(self.rows) == self.users
