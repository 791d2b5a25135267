"""What a recommender is trained on: warm pairs, pseudo-interactions, and the warm pairs it is stopped by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fllm_export import arguments
from fllm_export.coldstart.pseudo_pairs import PseudoPairs
from fllm_export.errors import UsageError
from fllm_export.evaluation.dataset import COLD_SPLITS, Dataset, Pairs, Positions

Weights = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TrainingPairs:
    """Pairs by position in ``user_ids`` and ``item_ids``. Observed pairs of cold items are never in here.

    Attributes:
        user_ids: of the data set, ascending, int64 [U].
        item_ids: of the data set, cold items included, ascending, int64 [I].
        pairs: what is trained on: the split ``train``, then pseudo-interactions.
        weights: of each pair in the loss and in the graph, above 0, float32 [P]; 1 for an observed pair.
        observed: number of observed pairs; they come first.
        validation: the split ``warm_val``, by which training is stopped.
    """

    user_ids: Positions
    item_ids: Positions
    pairs: Pairs
    weights: Weights
    observed: int
    validation: Pairs

    @classmethod
    def of(cls, dataset: Dataset, pseudo: PseudoPairs | None = None, *, pseudo_weight: float = 1.0) -> TrainingPairs:
        """Return the pairs of ``train`` and ``warm_val``, and of no other split.

        Args:
            dataset: the data set.
            pseudo: pseudo-interactions of cold items, by the ids of the data set.
            pseudo_weight: what the K pseudo-interactions of an item weigh on average; within the item they weigh in
                proportion to their probabilities.

        Raises:
            UsageError: a pseudo-interaction is of an unknown user or item, or of an item that is not cold.
        """
        train, found = dataset.splits["train"], Pairs(np.empty(0, np.int64), np.empty(0, np.int64))
        weights = np.empty(0, np.float32)
        if pseudo is not None:
            found, weights = _placed(dataset, pseudo, arguments.real(pseudo_weight, "pseudo_weight", least=0))
        both = Pairs(np.concatenate([train.users, found.users]), np.concatenate([train.items, found.items]))
        ones = np.ones(len(train), np.float32)
        all_weights = np.concatenate([ones, weights])
        validation = dataset.splits["warm_val"]
        return cls(dataset.user_ids, dataset.item_ids, both, all_weights, len(train), validation)


def _placed(dataset: Dataset, pseudo: PseudoPairs, weight: float) -> tuple[Pairs, Weights]:
    item_ids, user_ids, shares = pseudo.flat()
    users, items = _places(dataset.user_ids, user_ids, "user"), _places(dataset.item_ids, item_ids, "item")
    warm = ~np.isin(items, dataset.pairs(*COLD_SPLITS).distinct_items)
    if warm.any():
        raise UsageError(
            f"item {item_ids[int(np.argmax(warm))]} has pseudo-interactions and is not cold",
            expected="pseudo-interactions of the items of " + " and ".join(COLD_SPLITS),
        )
    means = np.maximum(pseudo.probabilities.mean(1), np.finfo(np.float32).tiny)
    weights = (weight * shares / np.repeat(means, pseudo.k)).astype(np.float32)
    some = weights > 0
    return Pairs(users[some], items[some]), weights[some]


def _places(ids: Positions, wanted: Positions, kind: str) -> Positions:
    at = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    unknown = ids[at] != wanted
    if unknown.any():
        raise UsageError(f"{kind} {wanted[int(np.argmax(unknown))]} is not in the data set")
    return at
