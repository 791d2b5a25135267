"""How good the ranking of cold items is: users of an item, and items of a user."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export import arguments
from fllm_export.errors import UsageError
from fllm_export.evaluation.dataset import COLD_SPLITS, SPLITS, Dataset, Pairs, Positions
from fllm_export.evaluation.metrics import Ranking
from fllm_export.evaluation.ranker import Ranker, Rows, encode_items, open_ranker
from fllm_export.progress import Progress, silent

EVALUATED = ("cold_test", "cold_val", "cold")


@dataclass(frozen=True)
class Evaluation:
    """Metrics at ``k`` on cold items.

    Attributes:
        split: ``cold_test``, ``cold_val``, or ``cold`` for both together.
        k: length of the ranked lists.
        users_of_items: for each item of the split all users are ranked; averaged over those items.
        items_of_users: for each user with an item in the split all cold items (of both splits, whichever is
            evaluated) are ranked by the same scores; averaged over those users. ``A`` masks the items that the
            user is trained on, as the official FilterLLM code does; ``B`` masks every other item that the user is
            known to like, in any split, as the code of ColdLLM, USIM and SetLLM does.
        candidates: number of cold items ranked for a user.
    """

    split: str
    k: int
    users_of_items: Ranking
    items_of_users: dict[str, Ranking]
    candidates: int

    def to_json(self) -> dict[str, Any]:
        """Return the metrics as JSON-ready values, the protocol included."""
        users = asdict(self.users_of_items)
        users["items"] = users.pop("lists")
        items = {name: asdict(ranking) for name, ranking in self.items_of_users.items()}
        for ranking in items.values():
            ranking["users"] = ranking.pop("lists")
        return {
            "split": self.split,
            "k": self.k,
            "users_of_items": users,
            "items_of_users": items,
            "candidate_items": self.candidates,
        }


def evaluate(
    ranker: Ranker | str | Path,
    dataset: Dataset | str | Path,
    split: str = "cold_test",
    k: int = 20,
    progress: Progress = silent,
) -> Evaluation:
    """Evaluate a model on cold items.

    Args:
        ranker: a checkpoint or a bundle: its directory, or what :func:`fllm_export.evaluation.ranker.open_ranker` gave.
        dataset: the data that the model was trained on, or its directory.
        split: ``cold_test``, ``cold_val`` or ``cold``.
        k: length of the ranked lists.
        progress: counts items.

    Raises:
        UsageError: the split is unknown or empty, ``k`` is above the number of users or of cold items, or the model
            was trained on other users.
    """
    split, k = arguments.one_of(split, "split", EVALUATED), arguments.integer(k, "k", least=1)
    if not isinstance(dataset, Dataset):
        dataset = Dataset.load(arguments.path(dataset, "dataset"))
    if isinstance(ranker, str | Path):
        ranker = open_ranker(ranker)
    pairs = dataset.pairs(*COLD_SPLITS) if split == "cold" else dataset.splits[split]
    if not len(pairs):
        raise UsageError(f"the data set has no pairs in {split}", expected="at least one")
    candidates = dataset.pairs(*COLD_SPLITS).distinct_items
    most = min(len(dataset.user_ids), len(candidates))
    if k > most:
        raise UsageError(f"k is {k}", expected=f"1 to {most}, the smaller of the numbers of users and cold items")
    z = encode_items(ranker, [dataset.texts[i] for i in candidates], progress)
    rows = _rows_of_users(ranker, dataset)
    return Evaluation(
        split=split,
        k=k,
        users_of_items=_users_of_items(ranker, z, candidates, pairs, dataset.user_ids, k),
        items_of_users=_items_of_users(rows, z, candidates, pairs, dataset, k),
        candidates=len(candidates),
    )


def _rows_of_users(ranker: Ranker, dataset: Dataset) -> Rows:
    """Return the model's row of every user of the data set, float32 [U, d]."""
    chunks = list(ranker.rows())
    ids, rows = np.concatenate([c[0] for c in chunks]), np.concatenate([c[1] for c in chunks])
    order = np.argsort(ids)
    if not np.array_equal(ids[order], dataset.user_ids):
        raise UsageError(
            f"the model has {len(ids)} users and the data set {len(dataset.user_ids)}, or their ids differ",
            expected="the users of the data set that the model was trained on",
        )
    return rows[order]


def _users_of_items(
    ranker: Ranker, z: Rows, candidates: Positions, pairs: Pairs, user_ids: Positions, k: int
) -> Ranking:
    items = pairs.distinct_items
    best = ranker.topk(z[np.searchsorted(candidates, items)], k)
    return Ranking.of(best, [user_ids[users] for users in pairs.users_of(items)])


def _items_of_users(
    rows: Rows, z: Rows, candidates: Positions, pairs: Pairs, dataset: Dataset, k: int
) -> dict[str, Ranking]:
    truth = pairs.swapped()
    users = truth.distinct_items
    right = truth.users_of(users)
    scores = rows[users] @ z.T
    trained = dataset.splits["train"].swapped().users_of(users)
    known = dataset.pairs(*SPLITS).swapped().users_of(users)
    others = [np.setdiff1d(liked, mine) for liked, mine in zip(known, right, strict=True)]
    masks = {"A": trained, "B": others}
    return {name: Ranking.of(_best_items(scores, candidates, mask, k), right) for name, mask in masks.items()}


def _best_items(
    scores: Rows, candidates: Positions, masked: list[npt.NDArray[np.int64]], k: int
) -> npt.NDArray[np.int64]:
    """Return each user's best candidates, [users, k]; masked items come last, ties by position."""
    scores = scores.copy()
    for row, mask in enumerate(masked):
        scores[row, np.isin(candidates, mask)] = -np.inf
    return candidates[np.argsort(-scores, axis=1, kind="stable")[:, :k]]
