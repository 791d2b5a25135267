"""A small random data set with text vectors, and its pairs in a form that tests can change."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from fllm_export.evaluation.dataset import SPLITS, Dataset, Pairs

USERS, ITEMS, TRAINED, HELD, WIDTH = 60, 50, 30, 10, 8


@dataclass(frozen=True)
class Small:
    """Items 0 to 29 are trained, 30 to 39 in cold_val, 40 to 49 in cold_test; users like what points their way."""

    dataset: Dataset
    vectors: np.ndarray

    def text_vectors(self, items: np.ndarray) -> np.ndarray:
        return self.vectors[items]

    def with_pairs(self, **splits: Pairs) -> Dataset:
        return replace(self.dataset, splits={**self.dataset.splits, **splits})


@pytest.fixture
def small() -> Small:
    generator = np.random.default_rng(7)
    vectors = generator.standard_normal((ITEMS, WIDTH)).astype(np.float32) * 3
    tastes = generator.standard_normal((USERS, WIDTH))
    scores = vectors @ tastes.T / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores += generator.standard_normal((1, USERS)) + 0.3 * generator.standard_normal(scores.shape)
    items, users = np.nonzero(scores > 1.5)
    known = np.unique(users[items < TRAINED])
    inside = np.isin(users, known)
    items, users = items[inside], np.searchsorted(known, users[inside])
    names = np.where(items < TRAINED, "train", np.where(items < TRAINED + HELD, "cold_val", "cold_test"))
    splits = {name: Pairs(users[names == name], items[names == name]) for name in SPLITS}
    texts = tuple(f"text {item}" for item in range(ITEMS))
    return Small(Dataset(np.arange(ITEMS), texts, known, splits, ""), vectors)
