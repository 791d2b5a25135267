"""An answer as JSON, in the form of :meth:`fllm_export.TopK.to_dict`."""

from __future__ import annotations

import math
from typing import Any

from pydantic_core import to_json

from fllm_export.runtime.topk import TopK


def answer_json(answer: TopK, timings_ms: dict[str, float]) -> bytes:
    """Return the body of a response: what ``to_dict`` gives, made without a NumPy scalar per number."""
    columns = (
        answer.user_ids.tolist(),
        answer.scores.tolist(),
        answer.log_probs.tolist(),
        answer.logsumexp.tolist(),
        answer.coverage.tolist(),
        answer.complete.tolist(),
        answer.exact.tolist(),
        answer.log_probs_exact.tolist(),
        answer.log_prob_error.tolist(),
        answer.log_probs_certified.tolist(),
    )
    items = [_item(*row) for row in zip(*columns, strict=True)]
    return to_json({"items": items, "generation": answer.generation, "timings_ms": timings_ms})


def _item(
    users: list[int],
    scores: list[float],
    log_probs: list[float],
    logsumexp: float,
    coverage: float,
    complete: bool,
    exact: bool,
    log_probs_exact: bool,
    log_prob_error: float,
    log_probs_certified: bool,
) -> dict[str, Any]:
    known = not math.isnan(logsumexp)
    return {
        "users": [
            {"user_id": user, "score": score, "log_prob": log_prob if known else None}
            for user, score, log_prob in zip(users, scores, log_probs, strict=True)
            if user >= 0
        ],
        "logsumexp": logsumexp if known else None,
        "coverage": coverage,
        "complete": complete,
        "exact": exact,
        "log_probs_exact": log_probs_exact,
        "log_prob_error": None if math.isnan(log_prob_error) else log_prob_error,
        "log_probs_certified": log_probs_certified,
    }
