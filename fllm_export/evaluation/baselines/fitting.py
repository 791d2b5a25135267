"""Baselines of a data set: chosen on ``cold_val``, fitted on ``train``. No pair of ``cold_test`` is read here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fllm_export.evaluation.baselines.baseline import Baseline, Fitted, Params
from fllm_export.evaluation.baselines.held import HeldItems
from fllm_export.evaluation.baselines.known import Known, Vectors
from fllm_export.evaluation.dataset import Dataset, Positions
from fllm_export.progress import Progress, silent

TextVectors = Callable[[Positions], Vectors]
"""Turns items, positions in :attr:`Dataset.item_ids`, into text vectors of any length, float32 [n, h]."""


@dataclass(frozen=True)
class FittedBaseline:
    """A baseline and what became of it.

    Attributes:
        name: of the baseline.
        reads_text: whether it needs text vectors of the items that it scores.
        params: its hyper-parameters.
        model: gives the scores.
    """

    name: str
    reads_text: bool
    params: Params
    model: Fitted


def fit_baselines(
    dataset: Dataset,
    baselines: Sequence[Baseline],
    text_vectors: TextVectors | None,
    progress: Progress = silent,
) -> Iterator[FittedBaseline]:
    """Yield the baselines one by one, so that only one has to be held in memory.

    Args:
        dataset: the data set.
        baselines: some of :data:`fllm_export.evaluation.baselines.BASELINES`.
        text_vectors: a frozen encoder. Without it, baselines that read texts are left out.
        progress: counts baselines.

    Raises:
        HardwareError: SciPy is not installed, and a baseline needs it.
    """
    items, users = HeldItems.sample(dataset)
    trained = dataset.splits["train"].distinct_items
    able = [baseline for baseline in baselines if text_vectors is not None or not baseline.reads_text]
    if text_vectors is not None and any(baseline.reads_text for baseline in able):
        vectors = text_vectors(np.concatenate([trained, items]))
        known = Known.of(dataset, vectors[: len(trained)])
        held = HeldItems.of(dataset, items, users, vectors[len(trained) :])
    else:
        known, held = Known.of(dataset, None), HeldItems.of(dataset, items, users, None)
    for number, baseline in enumerate(able):
        params = baseline.choose(known, held)
        yield FittedBaseline(baseline.name, baseline.reads_text, params, baseline.fit(known, params))
        progress("baselines", number + 1, len(able))
