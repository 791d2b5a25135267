"""A recommender to onboard items into: PureSVD (Cremonesi, Koren and Turrin, 2010), in NumPy.

The matrix of users and items, 1 where a pair is known, is replaced by its best approximation of a low rank: U S V'. A
user's vector is U sqrt(S), an item's V sqrt(S). Any recommender that scores by inner products can take its place.
"""

from __future__ import annotations

import numpy as np

from fllm_export.coldstart import Vectors
from fllm_export.evaluation.dataset import Dataset


def pure_svd(dataset: Dataset, dim: int) -> Vectors:
    """Return vectors of all users, and of the items of the split ``train`` alone: no other has one.

    Args:
        dataset: its split ``train`` is read.
        dim: rank of the approximation.
    """
    pairs = dataset.splits["train"]
    warm = pairs.distinct_items
    known = np.zeros((len(dataset.user_ids), len(warm)), np.float32)
    known[pairs.users, np.searchsorted(warm, pairs.items)] = 1
    left, sizes, right = np.linalg.svd(known, full_matrices=False)
    root = np.sqrt(sizes[:dim])
    return Vectors(dataset.user_ids, left[:, :dim] * root, dataset.item_ids[warm], right[:dim].T * root)
