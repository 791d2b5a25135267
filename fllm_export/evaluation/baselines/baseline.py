"""What a baseline is: hyper-parameters chosen on held-out cold items, a fit on the training pairs, and scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fllm_export.evaluation.baselines.held import HeldItems
from fllm_export.evaluation.baselines.known import Known

Params = Mapping[str, float]
"""Hyper-parameters by name."""

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ColdItems:
    """Some items that nobody is known to like.

    Attributes:
        numbers: positions in :attr:`Dataset.item_ids`, int64 [B].
        vectors: their unit text vectors, float32 [B, h], or None where there are none.
    """

    numbers: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.numbers)

    def blocks(self, size: int) -> Iterator[ColdItems]:
        """Yield the items in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            window = slice(start, start + size)
            yield ColdItems(self.numbers[window], None if self.vectors is None else self.vectors[window])


class Fitted(Protocol):
    """A baseline that has learned from the training pairs."""

    def scores(self, items: ColdItems) -> Scores:
        """Return the score of every user for each item, float32 [B, U]. Larger is better; they are not logits."""
        ...


class Baseline(Protocol):
    """A way to rank users for an item that nobody has seen.

    Attributes:
        name: as tables and JSON show it.
        reads_text: whether it needs text vectors.
    """

    @property
    def name(self) -> str:
        """As tables and JSON show it."""
        ...

    @property
    def reads_text(self) -> bool:
        """Whether it needs text vectors."""
        ...

    def choose(self, known: Known, held: HeldItems | None) -> Params:
        """Return the hyper-parameters with the highest recall on the held items; fixed ones where there are none."""
        ...

    def fit(self, known: Known, params: Params) -> Fitted:
        """Learn from the training pairs with given hyper-parameters. Held items take no part."""
        ...
