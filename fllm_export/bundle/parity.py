"""Parity: does the bundle rank users as the unmerged fp32 checkpoint does?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.checkpoint.users import UserRows
from fllm_export.engines.base import Request, joined_arrays
from fllm_export.engines.partial import Partial, merge
from fllm_export.engines.reference import select_users
from fllm_export.link import EXPONENTIAL, Link
from fllm_export.progress import Progress, silent
from fllm_export.runtime.runtime import Runtime
from fllm_export.runtime.topk import TopK

F32 = npt.NDArray[np.float32]

DEPTHS = (1, 10, 20, 50, 100, 1000)
RECALL_CLASSES = {
    "1": 1.0,
    "0.99 to 1": 0.99,
    "0.98 to 0.99": 0.98,
    "0.95 to 0.98": 0.95,
    "0.9 to 0.95": 0.9,
    "below 0.9": 0.0,
}
"""Label -> least recall of the class; a class ends where the one before it begins."""

_BATCH = 32


@dataclass(frozen=True)
class Parity:
    """What the comparison measured over all texts.

    Attributes:
        texts: number of item texts compared.
        k: the depth that the threshold is about.
        recall: depth -> mean share of the checkpoint's top users that the bundle's top of the same depth holds.
        recall_counts: number of texts by their recall@k, in the classes of :data:`RECALL_CLASSES`.
        worst_recall: the smallest recall@k of any text.
        worst: that text, with the first k users of both lists (the first 10 in bundles of older versions).
        score_error_max: largest |score difference| over the users both lists share.
        score_error_rms: root mean square of the same.
        score_spread: standard deviation of the checkpoint's scores over all users, to judge the errors by.
        logsumexp_error_max: largest |logsumexp difference|.
    """

    texts: int
    k: int
    recall: dict[int, float]
    recall_counts: dict[str, int]
    worst_recall: float
    worst: dict[str, Any]
    score_error_max: float
    score_error_rms: float
    score_spread: float
    logsumexp_error_max: float

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {**self.__dict__, "recall": {str(depth): value for depth, value in self.recall.items()}}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Parity:
        """Return what :meth:`to_dict` gave.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is something else.
        """
        recall = dict(sorted((int(depth), float(value)) for depth, value in values["recall"].items()))
        counts = {label: int(values["recall_counts"][label]) for label in RECALL_CLASSES}
        found = cls(**{**values, "recall": recall, "recall_counts": counts})
        numbers = [getattr(found, field.name) for field in fields(cls) if field.type in ("int", "float")]
        if found.k not in recall or not all(isinstance(number, int | float) for number in numbers):
            raise ValueError("a number is missing")
        return found


@dataclass(frozen=True)
class Truth:
    """The checkpoint's own answer: the best users of each item in float64 arithmetic over fp32 rows."""

    best: Partial
    spread: float


def true_top(z: F32, users: UserRows, k: int, progress: Progress = silent, *, link: Link = EXPONENTIAL) -> Truth:
    """Rank all users for item vectors [B, d], a chunk of rows at a time; the denominators are those of a link."""
    best: Partial | None = None
    squares, total, count, done = 0.0, 0.0, 0, 0
    request = Request(k, "topk", (), None)
    for ids, rows, bias in users.labelled_chunks():
        order = np.argsort(ids)
        scores = z.astype(np.float64) @ rows.astype(np.float64).T
        if bias is not None:
            scores += bias
        total, squares, count = total + scores.sum(), squares + (scores**2).sum(), count + scores.size
        part = select_users(scores[:, order].astype(np.float32), ids[order], request, link)
        best = part if best is None else merge([best, part], k)
        done += len(rows)
        progress("fp32 ranking", done, users.rows)
    if best is None:
        raise AssertionError("a checkpoint has at least one user")
    return Truth(best, float(np.sqrt(max(squares / count - (total / count) ** 2, 0.0))))


def compare(truth: Truth, answer: TopK, texts: Sequence[str], k: int) -> Parity:
    """Measure an answer against the truth; both hold at least ``k`` users per item."""
    depths = sorted({depth for depth in DEPTHS if depth <= k} | {k})
    true_ids = truth.best.ids
    per_text = {depth: _recalls(true_ids[:, :depth], answer.user_ids[:, :depth]) for depth in depths}
    worst = int(np.argmin(per_text[k]))
    errors = np.concatenate([_shared_errors(truth.best, answer, item) for item in range(len(texts))])
    return Parity(
        texts=len(texts),
        k=k,
        recall={depth: float(values.mean()) for depth, values in per_text.items()},
        recall_counts=_counts(per_text[k]),
        worst_recall=float(per_text[k][worst]),
        worst={
            "text": texts[worst],
            "expected": true_ids[worst, :k].tolist(),
            "found": answer.user_ids[worst, :k].tolist(),
        },
        score_error_max=float(np.abs(errors).max(initial=0.0)),
        score_error_rms=float(np.sqrt((errors**2).mean())) if len(errors) else 0.0,
        score_spread=truth.spread,
        logsumexp_error_max=float(np.abs(answer.logsumexp - truth.best.logsumexp).max()),
    )


def ask(runtime: Runtime, texts: Sequence[str], k: int, progress: Progress) -> TopK:
    """Return the bundle's answer for all texts."""
    answers = []
    for start in range(0, len(texts), _BATCH):
        answers.append(runtime.topk(texts[start : start + _BATCH], k))
        progress("bundle ranking", min(start + _BATCH, len(texts)), len(texts))
    return replace(answers[0], **joined_arrays(answers))


def _recalls(expected: npt.NDArray[np.int64], found: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    shared = [len(np.intersect1d(a, b)) / len(a) for a, b in zip(expected, found, strict=True)]
    return np.array(shared)


def _counts(recalls: npt.NDArray[np.float64]) -> dict[str, int]:
    """Count the recalls of each class."""
    counts, above = {}, np.inf
    for label, least in RECALL_CLASSES.items():
        counts[label] = int(((recalls >= least - 1e-9) & (recalls < above - 1e-9)).sum())
        above = least
    return counts


def _shared_errors(best: Partial, answer: TopK, item: int) -> npt.NDArray[np.float64]:
    _, mine, theirs = np.intersect1d(best.ids[item], answer.user_ids[item], return_indices=True)
    difference: npt.NDArray[np.float64] = answer.scores[item][theirs].astype(np.float64) - best.scores[item][mine]
    return difference
