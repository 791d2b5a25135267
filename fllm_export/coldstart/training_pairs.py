"""What a recommender is trained on, and the warm pairs it is stopped by."""

from __future__ import annotations

from dataclasses import dataclass

from fllm_export.evaluation.dataset import Dataset, Pairs, Positions


@dataclass(frozen=True)
class TrainingPairs:
    """Pairs by position in ``user_ids`` and ``item_ids``. Pairs of cold items are never in here.

    Attributes:
        user_ids: of the data set, ascending, int64 [U].
        item_ids: of the data set, cold items included, ascending, int64 [I].
        pairs: what is trained on: the split ``train``.
        validation: the split ``warm_val``, by which training is stopped.
    """

    user_ids: Positions
    item_ids: Positions
    pairs: Pairs
    validation: Pairs

    @classmethod
    def of(cls, dataset: Dataset) -> TrainingPairs:
        """Return the pairs of ``train`` and ``warm_val``, and of no other split."""
        return cls(dataset.user_ids, dataset.item_ids, dataset.splits["train"], dataset.splits["warm_val"])
