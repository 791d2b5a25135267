"""Text vectors of a data set's items by a frozen encoder, each computed once and kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fllm_export.evaluation.dataset import Dataset, Positions
from fllm_export.evaluation.ranker import Rows, encode_texts
from fllm_export.progress import Progress, silent


class ItemVectors:
    """Encodes items when they are first asked for.

    Args:
        dataset: holds the texts.
        encode: texts to vectors, float32 [B, h].
        stage: what ``progress`` is told.
        progress: counts items.
    """

    def __init__(
        self, dataset: Dataset, encode: Callable[[Sequence[str]], Rows], stage: str, progress: Progress = silent
    ) -> None:
        self._texts, self._encode = dataset.texts, encode
        self._stage, self._progress = stage, progress
        self._done = np.zeros(len(dataset.texts), bool)
        self._vectors: Rows | None = None

    def __call__(self, items: Positions) -> Rows:
        """Return the vectors of some items, positions in :attr:`Dataset.item_ids`, float32 [n, h]."""
        missing = np.unique(items[~self._done[items]])
        if len(missing):
            texts = [self._texts[item] for item in missing]
            found = encode_texts(self._encode, texts, self._stage, self._progress)
            if self._vectors is None:
                self._vectors = np.empty((len(self._texts), found.shape[1]), np.float32)
            self._vectors[missing] = found
            self._done[missing] = True
        assert self._vectors is not None
        return self._vectors[items]
