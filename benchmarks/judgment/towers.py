"""The filter: two towers that choose the users of an item that are judged, and the titles that tell of a user."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.evaluation.baselines import ColdItems, Known
from fllm_export.evaluation.baselines.centroid import Centroids, UserCentroid
from fllm_export.evaluation.baselines.known import unit
from fllm_export.evaluation.dataset import Dataset, Positions
from fllm_export.evaluation.ranker import CheckpointRanker, encode_texts
from fllm_export.files import publish
from fllm_export.progress import Progress, silent

_CHECKED = 4
_SAME = 0.999


@dataclass(frozen=True)
class Towers:
    """Item tower: the frozen text encoder. User tower: the direction of the sum of a user's training items.

    Attributes:
        dataset: whose items and users these are.
        items: unit vectors of all items, float32 [I, h].
        users: the users' directions.
        liked: the training items of each user, positions in :attr:`Dataset.item_ids`.
    """

    dataset: Dataset
    items: npt.NDArray[np.float32]
    users: Centroids
    liked: list[Positions]

    @classmethod
    def of(cls, dataset: Dataset, vectors: npt.NDArray[np.float32]) -> Towers:
        """Return the towers over text vectors of all items, float32 [I, h]. Only pairs of ``train`` are read."""
        train = dataset.splits["train"]
        known = Known.of(dataset, vectors[train.distinct_items])
        users = UserCentroid().fit(known, {})
        return cls(dataset, unit(vectors), users, train.swapped().users_of(np.arange(len(dataset.user_ids))))

    def candidates(self, item: int, count: int) -> Positions:
        """Return the best users of an item, best first, int64 [count]."""
        scores = self.users.scores(ColdItems(np.array([item]), self.items[[item]]))[0]
        return np.argsort(-scores, kind="stable")[:count]

    def titles(self, user: int, item: int, count: int) -> list[str]:
        """Return the titles of the user's training items that are nearest to the item, nearest first."""
        liked = self.liked[user]
        near = liked[np.argsort(-(self.items[liked] @ self.items[item]), kind="stable")[:count]]
        return [self.dataset.texts[each] for each in near]


def text_vectors(
    dataset: Dataset, ranker: CheckpointRanker, path: Path, progress: Progress = silent
) -> npt.NDArray[np.float32]:
    """Return the frozen encoder's vectors of all items, float32 [I, h]; they are kept in ``path``, a NumPy file.

    Raises:
        ValueError: ``path`` holds vectors of another encoder or other items.
    """
    if not path.exists():
        made = encode_texts(ranker.base_vectors, list(dataset.texts), "encoding items", progress)
        with publish(path) as file:
            np.save(file, made)
    found: npt.NDArray[np.float32] = np.load(path)
    some = np.linspace(0, len(dataset.texts) - 1, _CHECKED).astype(int)
    here = unit(ranker.base_vectors([dataset.texts[each] for each in some]))
    if found.shape != (len(dataset.texts), here.shape[1]) or (unit(found[some]) * here).sum(1).min() < _SAME:
        raise ValueError(f"{path} holds other vectors than the checkpoint's encoder gives. Delete the file")
    return found
