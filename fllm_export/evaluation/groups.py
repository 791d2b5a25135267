"""Cold items in groups of similar size: by how many users liked them, and by the length of their text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fllm_export.evaluation.cold_split import ColdSplit
from fllm_export.evaluation.dataset import Dataset

GROUPS = 5


@dataclass(frozen=True)
class Groups:
    """Items cut at the quintiles of a number.

    Attributes:
        title: what the number is.
        labels: the range of each group, such as ``3 to 5``.
        members: for each item the number of its group, int64 [I].
    """

    title: str
    labels: tuple[str, ...]
    members: npt.NDArray[np.int64]

    @classmethod
    def of(cls, title: str, numbers: npt.NDArray[np.int64]) -> Groups:
        """Cut items at the quintiles of ``numbers``, int64 [I]; equal numbers stay together, so groups may be fewer."""
        inner = np.quantile(numbers, np.arange(1, GROUPS) / GROUPS, method="lower")
        members = np.searchsorted(np.unique(inner), numbers, side="left")
        members = np.unique(members, return_inverse=True)[1]
        ranges = [numbers[members == group] for group in range(int(members.max()) + 1)]
        labels = [f"{part.min():,}" + (f" to {part.max():,}" if part.max() > part.min() else "") for part in ranges]
        return cls(title, tuple(labels), members)

    def means(self, values: npt.NDArray[np.float64]) -> list[float]:
        """Return the mean of ``values``, float64 [I], in each group."""
        sums = np.bincount(self.members, values, len(self.labels))
        means: list[float] = (sums / np.bincount(self.members, minlength=len(self.labels))).tolist()
        return means


def item_groups(dataset: Dataset, split: ColdSplit) -> dict[str, Groups]:
    """Return the groups of the split's items by name: ``popularity`` and ``text_length``."""
    users = np.array([len(found) for found in split.users_of_items], np.int64)
    characters = np.array([len(dataset.texts[item]) for item in split.items], np.int64)
    return {
        "popularity": Groups.of("users of the item", users),
        "text_length": Groups.of("characters of the text", characters),
    }
