"""One answer from the answers of the parts of a table, without loss: the merge is exact for any cut into parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.engines.base import Answer
from fllm_export.engines.partial import NO_USER
from fllm_export.errors import UsageError

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_TOLD = ("ids", "keys", "scores", "refined_scores")
"""What an answer tells of each user, the last one only where the request wants it."""


def merge(answers: Sequence[Answer], k: int, rows: int) -> Answer:
    """Merge what the parts of a table found for the same B items.

    Users are ordered by key descending, then user id ascending. The key of a sampled user is its score plus the noise
    of its id, so samples merge like rankings. Log-normalisers merge as in :func:`log_sum`. Refined scores stay with
    their users, where all answers have them, and do not change the order.

    Args:
        answers: one per part that answered, in the order of the parts.
        k: users per item.
        rows: users of the whole table. Where the parts that answered hold fewer, the answer is not complete.

    Returns:
        The answer. ``log_prob_error`` merges as in :func:`merged_error`. ``scan_ms`` is that of the slowest part;
        ``merge_ms`` is for the caller to set.

    Raises:
        UsageError: there is no answer, the answers are of several generations, or of other numbers of items.
    """
    generation = _generation(answers)
    whole = sum(answer.rows for answer in answers) == rows
    told = _TOLD if all(answer.refined_scores is not None for answer in answers) else _TOLD[:-1]
    users = {name: np.concatenate([getattr(answer, name) for answer in answers], 1) for name in told}
    # What a part has in place of a user that it lacks has the key of minus infinity, and so comes last.
    order = np.lexsort((users["ids"], -users["keys"]), axis=1)[:, : min(k, rows)]
    found: dict[str, Any] = {name: np.take_along_axis(array, order, 1) for name, array in users.items()}
    for name in ("complete", "exact", "log_probs_exact"):
        found[name] = np.all([getattr(answer, name) for answer in answers], axis=0) & whole
    sums, errors = [answer.logsumexp for answer in answers], [answer.log_prob_error for answer in answers]
    error = np.where(whole, merged_error(sums, errors), np.float32(np.nan))
    return Answer(
        **found,
        logsumexp=log_sum(sums),
        log_prob_error=error,
        log_probs_certified=np.all([answer.log_probs_certified for answer in answers], axis=0) & ~np.isnan(error),
        rows_scored=np.sum([answer.rows_scored for answer in answers], axis=0),
        rows=rows,
        generation=generation,
        scan_ms=max(answer.scan_ms for answer in answers),
        merge_ms=0.0,
    )


def log_sum(parts: Sequence[F64]) -> F64:
    """Return log(sum of exp(part)) for each item, float64 [B].

    With m the largest part, it is m + log(sum of exp(part - m)): the merge of the pairs (m, l) of the parts, each of
    which is (logsumexp, 1). NaN, which stands for "not requested", stays NaN.

    Args:
        parts: logsumexp of the parts, float64 [B] each; minus infinity where a part scored no row.
    """
    stacked = np.stack(parts)
    m = stacked.max(0)
    reference = np.where(np.isneginf(m), 0.0, m)
    with np.errstate(divide="ignore"):
        found: F64 = reference + np.log(np.exp(stacked - reference).sum(0))
    return found


def merged_error(sums: Sequence[F64], errors: Sequence[F32]) -> F32:
    """Return the most by which :func:`log_sum` of ``sums`` is off, given that of each part, float32 [B].

    Off by e_i each, the sum is off by no more than log(sum of w_i exp(e_i)), w_i being the part's share of it: below,
    it is off by less. Bounds of independent samples that hold with 95% each also hold with 95% together: each is a
    Bernstein bound, the deviations and ranges of all add up to no less than those of one sample of all rows
    (:mod:`fllm_export.engines.estimator`).

    Args:
        sums: logsumexp of the parts, float64 [B] each.
        errors: the most by which each is off, float32 [B] each; NaN, which stands for "not known", stays NaN.
    """
    whole = log_sum(sums)
    with np.errstate(invalid="ignore", over="ignore"):
        grown = log_sum([np.asarray(total + error, np.float64) for total, error in zip(sums, errors, strict=True)])
        found: F32 = (grown - whole).astype(np.float32)
    return found


def nothing(items: int, rows: int, generation: int) -> Answer:
    """Return the answer of a part of which no row was scored, for so many items, to any request."""
    no_users = np.zeros((items, 0), np.float32)
    never = np.full(items, rows == 0)
    return Answer(
        ids=np.full((items, 0), NO_USER, np.int64),
        keys=no_users,
        scores=no_users,
        logsumexp=np.full(items, -np.inf),
        rows_scored=np.zeros(items, np.int64),
        complete=never,
        exact=never,
        log_probs_exact=never,
        log_prob_error=np.full(items, 0.0 if rows == 0 else np.nan, np.float32),
        log_probs_certified=never,
        rows=rows,
        generation=generation,
        scan_ms=0.0,
        merge_ms=0.0,
        refined_scores=no_users,
    )


def _generation(answers: Sequence[Answer]) -> int:
    if not answers:
        raise UsageError("no part of the table has answered", expected="at least one")
    generations = sorted({answer.generation for answer in answers})
    if len(generations) > 1:
        raise UsageError(
            f"the parts answered from the generations {', '.join(map(str, generations))}",
            expected="one generation of the table",
        )
    items = {len(answer.ids) for answer in answers}
    if len(items) > 1:
        raise UsageError(f"the parts answered {sorted(items)} items", expected="the same number of items")
    return generations[0]
