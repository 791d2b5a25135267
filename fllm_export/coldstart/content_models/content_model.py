"""What the cold-start loop needs of a model that makes vectors of content, and what such a model is given."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fllm_export.coldstart.content_models.validation import ContentValidation
from fllm_export.evaluation.dataset import Dataset, Pairs, Positions
from fllm_export.progress import Progress, silent

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scoring:
    """Vectors in one space; the score of a pair is their inner product.

    Attributes:
        users: of all users, float32 [U, d].
        warm: of the training items, float32 [T, d].
        cold: of the cold items, float32 [C, d].
    """

    users: Rows
    warm: Rows
    cold: Rows


@dataclass(frozen=True)
class Material:
    """What a content model may see: a trained recommender, the pairs it was trained on, and contents.

    Attributes:
        users: the recommender's vectors of users, float32 [U, d].
        items: the recommender's vectors of the training items, float32 [T, d].
        pairs: the pairs of ``train``; items are numbered among the training items, [P].
        content: of the training items, float32 [T, h].
        cold_content: of the cold items, float32 [C, h].
        validation: what training is stopped by. It holds pairs of ``warm_val`` and ``cold_val``; a model asks it for a
            number and reads no pair of it.
    """

    users: Rows
    items: Rows
    pairs: Pairs
    content: Rows
    cold_content: Rows
    validation: ContentValidation

    @classmethod
    def of(cls, dataset: Dataset, users: Rows, items: Rows, content: Rows, cold: Positions) -> Material:
        """Gather it. No pair of a test split is read, and none of a cold item except to validate.

        Args:
            dataset: the data set.
            users: of a recommender that was trained on ``train``, float32 [U, d].
            items: of all items, of which those of training items are used, float32 [I, d].
            content: of all items, float32 [I, h].
            cold: the cold items, ascending, int64 [C].
        """
        train = dataset.splits["train"]
        known = train.distinct_items
        pairs = Pairs(train.users, np.searchsorted(known, train.items))
        validation = ContentValidation.of(dataset, known, cold)
        return cls(users, items[known], pairs, content[known], content[cold], validation)

    def key(self, model: ContentModel, seed: int) -> str:
        """Return what tells a training run from others."""
        digest = hashlib.sha256(json.dumps([repr(model), seed]).encode())
        for part in (self.users, self.items, self.pairs.users, self.pairs.items, self.content, self.cold_content):
            digest.update(np.ascontiguousarray(part).tobytes())
        digest.update(self.validation.digest())
        return digest.hexdigest()


class ContentModel(Protocol):
    """A baseline that needs contents. A frozen dataclass with a name and this method is a whole adapter.

    Its ``repr`` must tell its settings: it decides whether figures are used again.
    """

    @property
    def name(self) -> str:
        """As tables and files call it."""
        ...

    def fit(
        self, material: Material, *, seed: int = 0, workspace: Path | None = None, progress: Progress = silent
    ) -> Scoring:
        """Train, and return vectors of all users, training items and cold items.

        Args:
            material: what may be known.
            seed: of everything random.
            workspace: a directory for what an interrupted run continues from.
            progress: is told how far it is.
        """
        ...
