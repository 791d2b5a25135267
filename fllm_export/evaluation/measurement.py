"""What is measured of one way to rank users for cold items: a model or a baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.evaluation.best_lists import BestItems, best_users
from fllm_export.evaluation.cold_split import ColdSplit
from fllm_export.evaluation.dataset import Positions
from fllm_export.evaluation.likelihood import Likelihood, LikelihoodMeter
from fllm_export.evaluation.metrics import Hits, Ranking
from fllm_export.link import Link

Scores = npt.NDArray[np.float32]
ScoresOf = Callable[[slice], Scores]
"""The scores of all users for a window of the cold split's candidates, float32 [B, U]."""

CURVE_K = 100


@dataclass(frozen=True)
class Measurement:
    """Metrics of one method.

    Attributes:
        name: of the method.
        users_of_items: for each item of the split all users are ranked; averaged over those items.
        items_of_users: for each user with an item in the split all cold items are ranked by the same scores; averaged
            over those users. ``A`` and ``B`` are the evaluators of :class:`ColdSplit`.
        likelihood: of its probabilities; None where scores make none.
        best: the best users of each item of the split, positions in :attr:`Dataset.user_ids`, int64 [I, K]; K is 100,
            or the length of the lists where that is more, or the number of users where that is less.
        hits: which of them are right.
        params: hyper-parameters that were chosen on ``cold_val``.
    """

    name: str
    users_of_items: Ranking
    items_of_users: dict[str, Ranking]
    likelihood: Likelihood | None
    best: Positions
    hits: Hits
    params: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the metrics as JSON-ready values, with precision and recall at 1 to K."""
        users = asdict(self.users_of_items)
        users["items"] = users.pop("lists")
        items = {name: asdict(ranking) for name, ranking in self.items_of_users.items()}
        for ranking in items.values():
            ranking["users"] = ranking.pop("lists")
        precision, recall = self.hits.curves()
        return {
            "users_of_items": users,
            "items_of_users": items,
            "likelihood": None if self.likelihood is None else self.likelihood.to_json(),
            "curves": {"precision": precision, "recall": recall},
            "params": dict(self.params),
        }


@dataclass(frozen=True)
class Method:
    """A way to rank users for cold items.

    Attributes:
        name: as tables show it.
        scores: of all users for a window of candidates.
        best: the best users of each item of the split, int64 [I, K], where something else than ``scores`` finds them,
            such as an engine over quantised rows.
        link: how scores become the method's own probabilities; None where it has none.
        params: hyper-parameters that were chosen on ``cold_val``.
    """

    name: str
    scores: ScoresOf
    best: Positions | None = None
    link: Link | None = None
    params: Mapping[str, float] = field(default_factory=dict)


def depth(split: ColdSplit, k: int) -> int:
    """Return how many users are ranked per item, so that curves reach 100 where there are so many."""
    return min(max(k, CURVE_K), split.user_count)


def measure(method: Method, split: ColdSplit, k: int) -> Measurement:
    """Measure a method in one pass over its scores, a block of items at a time.

    Args:
        method: gives the scores.
        split: the cold items.
        k: length of the ranked lists, at most the number of users and of candidates.
    """
    ranked = [] if method.best is None else [method.best]
    lists = {name: BestItems(split, masked, k) for name, masked in split.masks.items()}
    meter = None if method.link is None else LikelihoodMeter(method.link)
    for window in split.blocks():
        scores = method.scores(window)
        for each in lists.values():
            each.add(window, scores)
        chosen, places = split.evaluated(window)
        if len(chosen) and method.best is None:
            ranked.append(best_users(scores[chosen], depth(split, k)))
        if len(chosen) and meter is not None:
            meter.add(scores[chosen], split.users_of_items[places])
    best = np.concatenate(ranked)
    hits = Hits.of(best, split.users_of_items)
    return Measurement(
        name=method.name,
        users_of_items=hits.at(k),
        items_of_users={name: Ranking.of(each.items(), split.items_of_users) for name, each in lists.items()},
        likelihood=None if meter is None else meter.result(),
        best=best,
        hits=hits,
        params=method.params,
    )
