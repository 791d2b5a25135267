"""Where pseudo-interactions come from: a trained model, or a baseline that stands beside it as a control."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fllm_export.coldstart.pseudo_pairs import PseudoPairs
from fllm_export.evaluation.baselines import ColdItems
from fllm_export.evaluation.baselines.centroid import UserCentroid
from fllm_export.evaluation.baselines.chance import RandomUsers
from fllm_export.evaluation.baselines.fitting import fit_baselines
from fllm_export.evaluation.baselines.known import unit
from fllm_export.evaluation.baselines.popularity import MostActive
from fllm_export.evaluation.baselines.text_knn import TextKnn
from fllm_export.evaluation.best_lists import best_users
from fllm_export.evaluation.dataset import COLD_SPLITS, Dataset, Positions
from fllm_export.evaluation.item_vectors import ItemVectors
from fllm_export.evaluation.ranker import Ranker, Rows
from fllm_export.progress import Progress, silent

CONTROLS = (RandomUsers(), MostActive(), UserCentroid(), TextKnn())
_SCORES_AT_ONCE = 1 << 24


def cold_items(dataset: Dataset) -> Positions:
    """Return the items of both cold splits, ascending, int64 [C]."""
    return dataset.pairs(*COLD_SPLITS).distinct_items


def model_pairs(ranker: Ranker, z: Rows, item_ids: Positions, k: int, progress: Progress = silent) -> PseudoPairs:
    """Ask a checkpoint or a bundle for the most probable users of items, with their probabilities.

    Args:
        ranker: of :func:`fllm_export.evaluation.ranker.open_ranker`.
        z: the vectors that it gives to the items, float32 [B, d].
        item_ids: int64 [B].
        k: users per item, at most the number of users.
        progress: counts items.
    """
    size = max(1, _SCORES_AT_ONCE // (64 * k))
    users, log_probs = [], []
    for start in range(0, len(z), size):
        found = ranker.likely_users(z[start : start + size], k)
        users.append(found[0])
        log_probs.append(found[1])
        progress("pseudo-interactions", min(start + size, len(z)), len(z))
    return PseudoPairs.of_answer(item_ids, np.concatenate(users), np.concatenate(log_probs))


def control_pairs(
    dataset: Dataset, vectors: ItemVectors | None, k: int, progress: Progress = silent
) -> Iterator[tuple[str, PseudoPairs]]:
    """Yield the name and the pairs of each control: random users, the most active, user centroid, and text kNN.

    The probability of a user is their share of all positive scores of the item. Hyper-parameters of controls are chosen
    on ``cold_val``. No pair of ``cold_test`` is read.

    Args:
        dataset: the data set.
        vectors: text vectors of its items; without them, controls that read texts are left out.
        k: users per item.
        progress: counts controls.
    """
    items = cold_items(dataset)
    for fitted in fit_baselines(dataset, CONTROLS, vectors, progress):
        texts = unit(vectors(items)) if vectors is not None and fitted.reads_text else None
        users, shares = [], []
        for block in ColdItems(items, texts).blocks(max(1, _SCORES_AT_ONCE // len(dataset.user_ids))):
            scores = np.maximum(fitted.model.scores(block), 0)
            best = best_users(scores, k)
            sums = np.maximum(scores.sum(1, dtype=np.float64), 1e-30)[:, None]
            users.append(best)
            shares.append(np.minimum(np.take_along_axis(scores, best, 1) / sums, 1.0))
        ids = dataset.user_ids[np.concatenate(users)]
        yield fitted.name, PseudoPairs(dataset.item_ids[items], ids, np.concatenate(shares))
