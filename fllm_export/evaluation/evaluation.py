"""How good the ranking of cold items is: users of an item, and items of a user, beside simple baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fllm_export import arguments
from fllm_export.errors import UsageError
from fllm_export.evaluation.baselines import BASELINES, ColdItems
from fllm_export.evaluation.baselines.fitting import FittedBaseline, fit_baselines
from fllm_export.evaluation.baselines.known import unit
from fllm_export.evaluation.cold_split import EVALUATED, ColdSplit
from fllm_export.evaluation.dataset import Dataset
from fllm_export.evaluation.groups import Groups, item_groups
from fllm_export.evaluation.item_vectors import ItemVectors
from fllm_export.evaluation.likelihood import Likelihood
from fllm_export.evaluation.measurement import Measurement, Method, depth, measure
from fllm_export.evaluation.metrics import Ranking
from fllm_export.evaluation.ranker import CheckpointRanker, Ranker, Rows, encode_items, open_ranker, rows_of_users
from fllm_export.progress import Progress, silent


@dataclass(frozen=True)
class Evaluation:
    """Metrics at ``k`` on cold items, of one or more models and of baselines.

    Attributes:
        cold: the cold items, and what is right.
        k: length of the ranked lists.
        models: at least one; the first is the model that was asked about.
        baselines: fitted on the training pairs alone; empty where they were not requested.
        groups: the split's items by popularity and by length of text.
        text_vectors: the frozen encoder of the text baselines, or None.
        item_vectors: the same, or the first model's own encoder where there is none.
    """

    cold: ColdSplit
    k: int
    models: tuple[Measurement, ...]
    baselines: tuple[Measurement, ...]
    groups: dict[str, Groups]
    text_vectors: ItemVectors | None
    item_vectors: ItemVectors

    @property
    def split(self) -> str:
        """``cold_test``, ``cold_val``, or ``cold`` for both together."""
        return self.cold.name

    @property
    def users_of_items(self) -> Ranking:
        """The first model's ranking of users."""
        return self.models[0].users_of_items

    @property
    def items_of_users(self) -> dict[str, Ranking]:
        """The first model's ranking of items, by evaluator."""
        return self.models[0].items_of_users

    @property
    def likelihood(self) -> Likelihood | None:
        """The first model's likelihood."""
        return self.models[0].likelihood

    @property
    def candidates(self) -> int:
        """Number of cold items that are ranked for a user."""
        return len(self.cold.candidates)

    def methods(self) -> tuple[Measurement, ...]:
        """Return the models, then the baselines."""
        return self.models + self.baselines

    def by_group(self, method: Measurement) -> dict[str, list[dict[str, Any]]]:
        """Return a method's recall@k in each group of items."""
        recalls = method.hits.recalls(self.k)
        return {
            name: [
                {"range": label, "items": int((group.members == number).sum()), "recall": mean}
                for number, (label, mean) in enumerate(zip(group.labels, group.means(recalls), strict=True))
            ]
            for name, group in self.groups.items()
        }

    def to_json(self) -> dict[str, Any]:
        """Return the metrics as JSON-ready values, the protocol included; the first model's are on top."""
        first, *beside = [{**each.to_json(), "by_group": self.by_group(each)} for each in self.methods()]
        named = [{"name": each.name, **found} for each, found in zip(self.methods()[1:], beside, strict=True)]
        count = len(self.models) - 1
        return {
            "split": self.split,
            "k": self.k,
            "candidate_items": self.candidates,
            **first,
            "beside": named[:count],
            "baselines": named[count:],
        }


def evaluate(
    ranker: Ranker | str | Path,
    dataset: Dataset | str | Path,
    split: str = "cold_test",
    k: int = 20,
    progress: Progress = silent,
    *,
    beside: Sequence[Ranker | str | Path] = (),
    baselines: bool = True,
    texts: CheckpointRanker | str | Path | None = None,
    names: Sequence[str] = (),
) -> Evaluation:
    """Evaluate a model on cold items, beside baselines.

    Args:
        ranker: a checkpoint or a bundle: its directory, or what :func:`fllm_export.evaluation.ranker.open_ranker` gave.
        dataset: the data that the model was trained on, or its directory.
        split: ``cold_test``, ``cold_val`` or ``cold``.
        k: length of the ranked lists.
        progress: counts items.
        beside: more models to compare.
        baselines: whether baselines are fitted and measured too. Those that read texts need a checkpoint: they take the
            frozen base encoder of the first one among the models, or of ``texts``.
        texts: the checkpoint whose base encoder gives the text vectors.
        names: what the models are called; their directories, or "model", when not given.

    Raises:
        UsageError: the split is unknown or empty, ``k`` is above the number of users or of cold items, or a model
            was trained on other users.
        HardwareError: SciPy is not installed, which the baselines need that read texts.
    """
    split, k = arguments.one_of(split, "split", EVALUATED), arguments.integer(k, "k", least=1)
    if not isinstance(dataset, Dataset):
        dataset = Dataset.load(arguments.path(dataset, "dataset"))
    given = [ranker, *beside]
    titles = list(names) or [str(each) if isinstance(each, str | Path) else "model" for each in given]
    rankers = [open_ranker(each) if isinstance(each, str | Path) else each for each in given]
    cold = ColdSplit.of(dataset, split)
    most = min(cold.user_count, len(cold.candidates))
    if k > most:
        raise UsageError(f"k is {k}", expected=f"1 to {most}, the smaller of the numbers of users and cold items")
    models = tuple(
        measure(_model(title, each, dataset, cold, k, progress), cold, k)
        for title, each in zip(titles, rankers, strict=True)
    )
    vectors = text_vectors(rankers, texts, dataset, progress) if baselines else None
    fitted = fit_baselines(dataset, BASELINES, vectors, progress) if baselines else ()
    compared = tuple(measure(_baseline(each, cold, vectors), cold, k) for each in fitted)
    own = vectors or ItemVectors(dataset, rankers[0].encode, "encoding similar items", progress)
    return Evaluation(cold, k, models, compared, item_groups(dataset, cold), vectors, own)


def _model(name: str, ranker: Ranker, dataset: Dataset, cold: ColdSplit, k: int, progress: Progress) -> Method:
    z = encode_items(ranker, [dataset.texts[i] for i in cold.candidates], progress)
    rows, bias = rows_of_users(ranker, dataset.user_ids)
    ids = ranker.topk(z[np.searchsorted(cold.candidates, cold.items)], depth(cold, k))

    def scores(window: slice) -> Rows:
        found: Rows = z[window] @ rows.T
        return found if bias is None else found + bias

    return Method(name, scores, np.searchsorted(dataset.user_ids, ids), ranker.link)


def text_vectors(
    rankers: Sequence[Ranker], texts: CheckpointRanker | str | Path | None, dataset: Dataset, progress: Progress
) -> ItemVectors | None:
    """Return text vectors by the base encoder of ``texts``, or of the first checkpoint among the models, or None.

    Raises:
        UsageError: ``texts`` is a bundle.
    """
    if texts is None:
        texts = next((each for each in rankers if isinstance(each, CheckpointRanker)), None)
    elif not isinstance(texts, CheckpointRanker):
        opened = open_ranker(arguments.path(texts, "texts"))
        if not isinstance(opened, CheckpointRanker):
            raise UsageError(f"{texts} is a bundle", expected="a checkpoint, which has a base encoder")
        texts = opened
    return None if texts is None else ItemVectors(dataset, texts.base_vectors, "encoding texts for baselines", progress)


def _baseline(fitted: FittedBaseline, cold: ColdSplit, vectors: ItemVectors | None) -> Method:
    known = None if vectors is None or not fitted.reads_text else unit(vectors(cold.candidates))
    items = ColdItems(cold.candidates, known)

    def scores(window: slice) -> Rows:
        vectors_of = None if items.vectors is None else items.vectors[window]
        return fitted.model.scores(ColdItems(items.numbers[window], vectors_of))

    return Method(fitted.name, scores, params=fitted.params)
