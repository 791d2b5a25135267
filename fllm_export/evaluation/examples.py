"""Cold items to look at: whom a model chose, who was right, and what of theirs resembles the item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fllm_export.evaluation.baselines.known import unit
from fllm_export.evaluation.dataset import Dataset, Positions
from fllm_export.evaluation.evaluation import Evaluation

QUANTILES = (1.0, 0.9, 0.75, 0.5, 0.25, 0.0)
EXPLAINED = 2
SIMILAR = 3


@dataclass(frozen=True)
class Reason:
    """Training items of a user that resemble a cold item.

    Attributes:
        user: the user's id.
        items: texts and cosines, the most similar first.
    """

    user: int
    items: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Example:
    """A cold item and the users that a model gave.

    Attributes:
        item: the item's id.
        text: its text.
        liked_by: number of users that liked it.
        users: ids of the best k users, best first.
        right: whether each of them liked it.
        reasons: for the first two that did.
    """

    item: int
    text: str
    liked_by: int
    users: tuple[int, ...]
    right: tuple[bool, ...]
    reasons: tuple[Reason, ...]


def examples(evaluation: Evaluation, dataset: Dataset) -> list[Example]:
    """Return six items at fixed quantiles of the first model's recall@k, from its best to its worst.

    They are taken from the half of the items with more users: where one user is right, recall says little.

    Args:
        evaluation: of the data set.
        dataset: holds texts, ids and training pairs.
    """
    hits = evaluation.models[0].hits
    known = np.flatnonzero(hits.sizes >= np.median(hits.sizes))
    order = known[np.argsort(hits.recalls(evaluation.k)[known], kind="stable")]
    places = dict.fromkeys(int(order[round(q * (len(order) - 1))]) for q in QUANTILES)
    return [_example(evaluation, dataset, place) for place in places]


def _example(evaluation: Evaluation, dataset: Dataset, place: int) -> Example:
    model, k = evaluation.models[0], evaluation.k
    item = int(evaluation.cold.items[place])
    users, right = model.best[place, :k], model.hits.found[place, :k]
    explained = users[right][:EXPLAINED]
    liked = dataset.splits["train"].swapped().users_of(explained)
    return Example(
        item=int(dataset.item_ids[item]),
        text=dataset.texts[item],
        liked_by=len(evaluation.cold.users_of_items[place]),
        users=tuple(dataset.user_ids[users].tolist()),
        right=tuple(right.tolist()),
        reasons=tuple(
            Reason(int(dataset.user_ids[user]), _similar(evaluation, dataset, item, items))
            for user, items in zip(explained, liked, strict=True)
        ),
    )


def _similar(evaluation: Evaluation, dataset: Dataset, item: int, among: Positions) -> tuple[tuple[str, float], ...]:
    vectors = unit(evaluation.item_vectors(np.append(among, item)))
    cosines = vectors[:-1] @ vectors[-1]
    best = np.argsort(-cosines, kind="stable")[:SIMILAR]
    return tuple((dataset.texts[among[i]], float(cosines[i])) for i in best)
